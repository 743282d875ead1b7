"""Takes one user's scores apart: what each model says, what a reranker adds, and what each item of the history carries.

In: a Scorer and one history. Out: `Account`. What an item of the history carries is what a score loses once its events
are left out (occlusion; Zeiler & Fergus: "Visualizing and understanding convolutional networks", ECCV 2014), asked of
the very scorer that made the scores, all items in one batch. No gradients, no ids, no words, no files.

How this user's scores are read stays as the whole history has it: calibration, weights of the members, and which
items are candidates of a reranker. So the differences are those of the score that was shown, and where all is linear
they are the very terms of its sum. Leaving out an event also moves the events before it one place up, as it would
have been without it.

Shapes: M models, N items (row 0 is padding), H items of a history, R rows asked about, C candidates of a reranker.
"""

from functools import cached_property

import numpy as np

from recops.calibration import Scale
from recops.histories import Histories
from recops.links import Links
from recops.runtime import Scorer

# Items left out at once, so that an answer with reasons costs a few times one without. An encoder's time grows with the
# events of the batch, a reranker's with the histories.
MOST, MOST_ENCODED, LEAST_ENCODED, EVENTS_ENCODED, MOST_RERANKED = 32, 16, 4, 1_000, 6
# The latest items of a history and the first rows of a list that are looked at to choose them.
LOOKED_AT, ROWS_LOOKED_AT = 1_000, 20
NOISE = 1e-4  # of the deviation of the scores: less is rounding, not a reason


class Account:
    """The scores of one user, and what they are made of. `asked` holds one history."""

    def __init__(self, scorer: Scorer, asked: Histories) -> None:
        assert len(asked) == 1, "an account is of one user"
        self.scorer, self.asked = scorer, asked
        self.history = np.asarray(asked.items[0])
        self._said_MBN = scorer.said(asked)

    @cached_property
    def scores(self) -> np.ndarray:
        """float32 [N+1]: what `Scorer.scores` gives."""
        return self.scorer.scores(self.asked, self._said_MBN)[0]

    @cached_property
    def is_answered(self) -> bool:
        """Whether the model itself says something of this user; else the scores are the fallback's."""
        return bool(self.scorer.answers(self.asked)[0])

    @cached_property
    def judged(self) -> np.ndarray:
        """bool [N+1]: items outside the history."""
        judged = np.ones(self.scorer.num_items + 1, bool)
        judged[0] = False
        judged[self.history] = False
        return judged

    @cached_property
    def deviation(self) -> float:
        """Of the scores, over the items outside the history; 0 where there is none."""
        return float(self.scores[self.judged].std()) if self.judged.any() else 0.0

    @cached_property
    def items(self) -> np.ndarray:
        """int64: the items of the history, each once, latest first."""
        latest_first, place = np.unique(self.history[::-1], return_index=True)
        return latest_first[np.argsort(place)]

    @property
    def said(self) -> np.ndarray:
        """What each model says on its own scale: float32 [M, N+1], NaN where it cannot say."""
        return self._said_MBN[:, 0]

    @cached_property
    def calibrated(self) -> np.ndarray:
        """The same on the common scale; of a model alone, as it is."""
        return self._on_scale(self.said)

    @cached_property
    def weights(self) -> np.ndarray:
        """float32 [M, N+1]: what each model counts for each item; those that cannot say leave theirs to the others."""
        weights_M1 = self._weights_M[:, None]
        known = ~np.isnan(self.said)
        given = (weights_M1 * known).sum(0)
        return weights_M1 * known * self._weights_M.sum() / np.where(given > 0, given, 1)

    @cached_property
    def stage_one(self) -> np.ndarray:
        """float32 [N+1]: what the models say together, before any reranking."""
        if self.scorer.fusion is None:
            return self._together(self.calibrated[:, None])[0]
        return self.scorer.together(self.asked, self.calibrated[:, None])[0]

    def losses(self, items: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """What the score of each row loses when an item is left out of the history: float64 [H, R].

        `items` are rows of the history, each once; all events of an item go together. A model to which that leaves
        nothing to say counts as one that says the same of all. Zeros where the fallback answers.
        """
        if not self.is_answered or not len(items) or not len(rows):
            return np.zeros((len(items), len(rows)))
        reranker = self.scorer.reranker
        candidates = fade = np.zeros((1, 0), np.int64)
        if reranker is not None:
            candidates, fade = reranker.best(self.asked, self.stage_one[None])
        looked_at = np.union1d(rows, candidates)
        with_and_without = self._without(np.array([0, *items]))  # row 0 is in no history
        said = self._said_without(with_and_without[1:], looked_at)
        calibrated = self._on_scale(np.concatenate([self.said[:, None, looked_at], said], axis=1))
        total = self._together(calibrated)
        if (later := looked_at > self.scorer.num_own).any():
            total[:, later] = self._later_scale(total[:, later])
        if reranker is not None:
            place = np.searchsorted(looked_at, candidates[0])
            rows_BC, fade_BC = (np.repeat(one, len(with_and_without), 0) for one in (candidates, fade))
            features = reranker.features_of(with_and_without, rows_BC, total[:, place], calibrated[:, :, place])
            change = reranker.network(features, fade_BC)
            is_there = candidates[0] > 0
            total[:, place[is_there]] += change[:, is_there]
        found = total[:, np.searchsorted(looked_at, rows)].astype(np.float64)
        return found[0] - found[1:]

    def chosen(self, rows: np.ndarray) -> np.ndarray:
        """Items of the history worth leaving out, int64 [H], latest first: all of them where they are few.

        Otherwise half of those that there is time for are the latest and half those nearest to any of `rows`: by the
        links of the heaviest model that has any, else by the cosine of item vectors. Of a very long history or list
        only the latest items and the first rows are looked at.
        """
        num = self._room()
        if len(self.items) <= num:
            return self.items
        latest = self.items[:LOOKED_AT]
        near = self.nearness(latest, rows[:ROWS_LOOKED_AT])
        order = np.arange(len(latest))
        if near is not None:
            strongest = (near / np.maximum(near.max(0, initial=0), 1e-12)).max(1, initial=0)
            nearest = np.argsort(-strongest[num // 2 :], kind="stable") + num // 2
            order = np.concatenate([order[: num // 2], nearest])
        return self.items[np.sort(order[:num])]

    def nearness(self, items: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
        """How near items of the history are to some rows, as item models see it: [H, R]; None where none does."""
        links, vectors = self.scorer.linked, self.scorer.vectors
        if links is not None:
            return self._linked(links, items, rows)
        return None if vectors is None else cosines(vectors[items], vectors[rows])

    def _linked(self, links: Links, items: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Links weighed by how much the latest event of each item votes."""
        last = self.history[-links.window :] if links.window is not None else self.history
        votes = np.zeros(self.scorer.num_items + 1)
        votes[last] = links.vote_weights(len(last))  # of an item that came twice the later one stands
        found = np.zeros((len(items), len(rows)))
        heard = np.flatnonzero(votes[items])
        found[heard] = votes[items[heard]][:, None] * links.between(items[heard], rows)
        return found

    def _room(self) -> int:
        room = MOST if self.scorer.reranker is None else MOST_RERANKED
        encoders = [part for part in self.scorer.parts if part.encode is not None]
        if not encoders:
            return room
        events = max(1, *(min(len(self.history), part.max_history) for part in encoders))
        return min(room, MOST_ENCODED, max(LEAST_ENCODED, EVENTS_ENCODED // events))

    def _without(self, items: np.ndarray) -> Histories:
        kept = [self.history != item for item in items]
        ages, users, at = self.asked.ages, self.asked.users, self.asked.at
        return Histories(
            [self.history[keep] for keep in kept],
            None if ages is None else [ages[0][keep] for keep in kept],
            None if users is None else np.repeat(users, len(items)),
            None if at is None else np.repeat(at, len(items)),
        )

    def _said_without(self, without: Histories, rows: np.ndarray) -> np.ndarray:
        """[M, H, R]; NaN exactly where the whole history leaves a model without a say."""
        said = self.scorer.said(without, rows)
        for part, said_HR, whole_N in zip(self.scorer.parts, said, self.said, strict=True):
            others = whole_N[self.judged & ~np.isnan(whole_N)]
            said_HR[~part.answers(without)] = others.mean() if len(others) else 0.0
            said_HR[:, np.isnan(whole_N[rows])] = np.nan
        return said

    @cached_property
    def _weights_M(self) -> np.ndarray:
        fusion = self.scorer.fusion
        return np.ones(1, np.float32) if fusion is None else fusion.weights_of(self.asked)[0]

    @cached_property
    def _later_scale(self) -> Scale:
        """Brings scores of items that only some models know to the scale of the others, as the whole history has it."""
        calibrated_MBN, weights_BM = self.calibrated[:, None], self._weights_M[None]
        total_BN = self.scorer.weighed(weights_BM, calibrated_MBN)
        return self.scorer.later_scales(self.asked, weights_BM, calibrated_MBN, total_BN)[0]

    def _together(self, calibrated_MBR: np.ndarray) -> np.ndarray:
        weights_BM = np.repeat(self._weights_M[None], calibrated_MBR.shape[1], axis=0)
        return self.scorer.weighed(weights_BM, calibrated_MBR)

    def _on_scale(self, said: np.ndarray) -> np.ndarray:
        """Scores [M, …] as the common scale of the whole history has them."""
        fusion = self.scorer.fusion
        if fusion is None:
            return said
        scales = fusion.scales(self.said, self.history)
        return np.stack([scale(scores) for scale, scores in zip(scales, said, strict=True)])


def shares(losses: np.ndarray, deviation: float) -> np.ndarray:
    """What each item carries of all that speaks for a row: losses [H, R] as float64 [H, R] that add up to 1 over H, or
    to 0 where nothing does. `deviation` is that of the scores. What speaks against a row carries nothing.

    >>> shares(np.array([[3.0, 0.0], [1.0, -2.0], [-5.0, 0.0]]), 1.0)
    array([[0.75, 0.  ],
           [0.25, 0.  ],
           [0.  , 0.  ]])
    """
    carried = np.where(losses > NOISE * deviation, losses, 0.0)
    total = carried.sum(0)
    return carried / np.where(total > 0, total, 1)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of each of some vectors with each of others: float64 [H, R]; 0 where one of the two has no length."""
    norms = [np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (first, second)]
    first, second = (v / np.where(norm > 0, norm, 1) for v, norm in zip((first, second), norms, strict=True))
    return np.asarray(first, np.float64) @ np.asarray(second, np.float64).T
