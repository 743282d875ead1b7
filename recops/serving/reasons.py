"""Why an item stands in a list: what the served model was moved by, and a sentence for each reason.

In: a Release and the Account of one user's scores. Out: plain dicts of one of these types. `history`: an item of the
history and its share of what speaks for the item, measured by leaving it out; three at most. `attribute`: the category
that this comes from, where that is more than the category's part in the history. `taste`: the model reads the user from
a table learnt in training, so that no event of the history carried anything, and says more of the item than it says to
the mean of its users; an item of the history that it puts near is named as such. `popular`: what speaks for the item is
the same for everybody. An empty list: nothing does.
"""

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from recops.attribution import NOISE, Account, cosines, shares
from recops.runtime import Scorer
from recops.serving.release import Release

NUM_REASONS = 3  # of the history
LEAST_SHARE = 0.05  # less is not worth a sentence
LEAST_LIFT = 0.1  # by which a category's share must exceed its share of the history

Reason = dict[str, Any]


class Reasons:
    """The reasons of one user's list, `rows` [R] of the release."""

    def __init__(self, release: Release, account: Account, rows: np.ndarray) -> None:
        self.release, self.account, self.rows = release, account, rows
        self.items = account.chosen(rows) if account.is_answered else np.zeros(0, np.int64)
        self.losses_HR = account.losses(self.items, rows)
        self.shares_HR = shares(self.losses_HR, account.deviation)

    def of(self, place: int) -> list[Reason]:
        """The reasons of the item at a place of `rows`, strongest first."""
        row, shares_H = int(self.rows[place]), self.shares_HR[:, place]
        if not shares_H.any():
            return self._without_history(row)
        least = min(LEAST_SHARE, shares_H.max())
        best = [h for h in np.argsort(-shares_H, kind="stable")[:NUM_REASONS] if shares_H[h] >= least]
        found = [self._history(int(self.items[h]), row, float(shares_H[h])) for h in best]
        return found + self._attribute(place)

    def _history(self, item: int, row: int, share: float) -> Reason:
        named = self._named(item)
        text = "You had it before" if item == row else f"Because of {_title(named)} in your history"
        return {"type": "history", **named, "share": share, "text": text}

    def _attribute(self, place: int) -> list[Reason]:
        """The category whose items carry most beyond their part of the history; none that a single item stands for."""
        column_of, lift_RA, carried_RA = self._by_category
        own = [c for c in self._categories(int(self.rows[place])) if c in column_of]
        if not own:
            return []
        best = max(own, key=lambda category: lift_RA[place, column_of[category]])
        column = column_of[best]
        if lift_RA[place, column] < LEAST_LIFT:
            return []
        share = min(float(carried_RA[place, column]), 1.0)
        text = f"Because of {best} in your history, which this is too"
        return [{"type": "attribute", "name": "category", "value": best, "share": share, "text": text}]

    @cached_property
    def _by_category(self) -> tuple[dict[str, int], np.ndarray, np.ndarray]:
        """Column of each category of the history, and for each row [R, A] what its items carry: beyond their part of
        the history (0 where fewer than two carry anything), and as it is."""
        column_of: dict[str, int] = {}
        cells = [
            (h, column_of.setdefault(category, len(column_of)))
            for h, item in enumerate(self.items.tolist())
            for category in self._categories(item)
        ]
        has_HA = np.zeros((len(self.items), len(column_of)))
        if cells:
            has_HA[tuple(np.array(cells).T)] = 1
        carried_RA = self.shares_HR.T @ has_HA
        several_RA = (self.shares_HR.T >= LEAST_SHARE) @ has_HA > 1
        return column_of, np.where(several_RA, carried_RA - has_HA.mean(0), 0), carried_RA

    def _categories(self, row: int) -> list[str]:
        return self.release.bundle.items["categories"][row - 1] or []

    def _without_history(self, row: int) -> list[Reason]:
        account = self.account
        if not account.is_answered:
            return self._popular(account.scores, row)
        parts = account.scorer.parts
        for part, said_N, taste_N in zip(parts, account.said, self._tastes, strict=True):
            if taste_N is not None and taste_N[row] > NOISE * account.deviation:
                return [self._taste(part, row)]
            if (taste_N is not None or part.item_scores is not None) and (found := self._popular(said_N, row)):
                return found
        return []

    @cached_property
    def _tastes(self) -> list[np.ndarray | None]:
        """For each model with a table of users how much more it says of each item [N+1] than it says to the mean of its
        users, over the catalogue neither more nor less; None for the others, and where it does not know the user."""
        account, found = self.account, list[np.ndarray | None]()
        for part, everybody, said_N in zip(account.scorer.parts, self.release.everybody, account.said, strict=True):
            if everybody is None or not part.answers(account.asked)[0]:
                found.append(None)
                continue
            usual = everybody.said(replace(account.asked, users=np.array([1])))[0, 0]
            more_N = np.full_like(said_N, np.nan)  # of items that this model does not have
            more_N[: len(usual)] = said_N[: len(usual)] - usual
            judged = account.judged & ~np.isnan(more_N)
            found.append(more_N - (more_N[judged].mean() if judged.any() else 0.0))
        return found

    def _taste(self, part: Scorer, row: int) -> Reason:
        items = self.account.items
        history = items[(items != row) & (items <= part.num_items)]
        assert part.item_vectors is not None, "a table of users needs item_vectors"
        alike = cosines(part.item_vectors[history], part.item_vectors[[row]])[:, 0]
        if not len(history) or alike.max() <= 0:
            return {"type": "taste", "text": "It fits the taste that was learnt of you"}
        named = self._named(int(history[alike.argmax()]))
        text = f"It fits the taste that was learnt of you; near it in your history is {_title(named)}"
        return {"type": "taste", **named, "similarity": float(alike.max()), "text": text}

    def _popular(self, scores: np.ndarray, row: int) -> list[Reason]:
        others = scores[self.account.judged & ~np.isnan(scores)]
        if not len(others) or not scores[row] > others.mean():
            return []
        is_rated = self.release.bundle.scorer.ratings is not None
        return [{"type": "popular", "text": "Many rate it well" if is_rated else "Many choose it"}]

    def _named(self, row: int) -> dict[str, Any]:
        return {"item_id": self.release.ids[row - 1], "title": self.release.titles[row - 1]}


def _title(named: dict[str, Any]) -> str:
    return named["title"] or named["item_id"]
