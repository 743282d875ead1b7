"""Which items answer a question: what may be shown at all, and how well each fits.

In: Wishes, the Catalogue, one user's scores by the served model. Out: `Ranking`. Several signals, each brought to
mean 0 and deviation 1 over what may be shown (`recops.calibration`), are weighed and added. The weights were chosen on
half of the questions of `python -m benchmarks.ask` and are judged on the other half. Knows nothing about the words of
an answer.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recops.calibration import Fusion
from recops.serving.assistant.catalogue import Catalogue
from recops.serving.assistant.wishes import SUPERLATIVE, Prices, Span, Wishes
from recops.serving.release import NO_TIME
from recops.topk import top_k

# Of each signal: vectors of content near the asker's words; BM25 of these; content near the items that are liked, and
# links of the model to them; the model's own scores for the user; being named itself ('have you got …'); categories
# leaned to; new and cheap, where asked for.
WEIGHTS = {
    "content": 1.0,
    "words": 1.0,
    "likeness": 0.7,
    "links": 0.6,
    "model": 0.8,
    "named": 5.0,
    "leanings": 0.7,
    "newest": 1.0,
    "cheapest": 1.0,
}
MOST_OF_MODEL = 4.0  # deviations
DISLIKED = 0.5  # of what nearness to a liked item counts


@dataclass
class Ranking:
    """`rows` int64 [K], best first, with `scores` float32 [K]; what each signal says of every item that may be shown
    (`signals`, over `candidates`); `retrieved_by` names the signals."""

    rows: np.ndarray
    scores: np.ndarray
    candidates: np.ndarray
    signals: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def retrieved_by(self) -> list[str]:
        return list(self.signals)

    def said(self, name: str) -> np.ndarray | None:
        """What a signal says of `rows`, before it is calibrated; None where it says nothing."""
        signal = self.signals.get(name)
        return None if signal is None else signal[np.searchsorted(self.candidates, self.rows)]


def allowed(catalogue: Catalogue, wishes: Wishes, leave_out: str | None = None) -> np.ndarray:
    """bool [N+1]: the items that hold every hard constraint, `leave_out` aside. A value that is unknown holds none."""
    columns = catalogue.release.columns
    mask = np.ones(catalogue.num_items + 1, bool)
    mask[0] = False

    def is_asked(name: str) -> bool:
        return name != leave_out and getattr(wishes, name) not in (None, ())

    def having(names: Any) -> np.ndarray:
        found = np.zeros(len(mask), bool)
        for name in names:
            found[columns.rows_by_category.get(name, [])] = True
        return found

    if is_asked("categories"):
        for group in wishes.categories:
            mask &= having(group)
    if is_asked("not_categories"):
        mask &= ~having(wishes.not_categories)
    if is_asked("price"):
        assert wishes.price is not None
        mask &= _costs(catalogue.prices, wishes.price)
    if is_asked("dates"):
        assert wishes.dates is not None
        mask &= _within(catalogue, wishes.dates)
    if is_asked("not_dates"):
        mask &= catalogue.starts != NO_TIME
        for span in wishes.not_dates:
            mask &= (catalogue.ends <= span.start) | (catalogue.starts >= span.end)
    if is_asked("available"):
        mask &= columns.available == int(bool(wishes.available))
    if is_asked("excluded"):
        mask[[row for row in wishes.excluded if row < len(mask)]] = False
    if is_asked("without"):
        for phrase in wishes.without:
            mask[catalogue.having(phrase)] = False
    if is_asked("among"):
        among = np.zeros(len(mask), bool)
        among[[row for row in wishes.among or () if row < len(mask)]] = True
        mask &= among
    return mask


def _costs(prices: np.ndarray, asked: Prices) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        low = prices > asked.low if asked.open_low else prices >= asked.low
        return low & (prices < asked.high if asked.open_high else prices <= asked.high)


def _within(catalogue: Catalogue, span: Span) -> np.ndarray:
    return (catalogue.starts != NO_TIME) & (catalogue.starts >= span.start) & (catalogue.ends <= span.end)


def rank(
    catalogue: Catalogue,
    wishes: Wishes,
    mask: np.ndarray,
    user_scores: np.ndarray,
    k: int,
    weights: dict[str, float] | None = None,
) -> Ranking:
    """The best `k` of the items in `mask` [N+1]; `user_scores` [N+1] are the model's, or those of popularity."""
    weights = dict(WEIGHTS if weights is None else weights)
    for name in ("newest", "cheapest"):
        weights[name] *= abs(getattr(wishes, name))
    superlatives = [name for name in ("newest", "cheapest") if abs(getattr(wishes, name)) == SUPERLATIVE]
    if superlatives:
        weights["model"] /= SUPERLATIVE  # 'the oldest' is not the one that is chosen most
    candidates = np.flatnonzero(mask)
    if not len(candidates):
        return Ranking(candidates, np.zeros(0, np.float32), candidates)
    signals = signals_of(catalogue, wishes, candidates, user_scores)
    scores = fused(signals, weights)
    if len(superlatives) == 1 and not (wishes.text or wishes.likes or wishes.leanings or wishes.less):
        # Nothing else is asked for, so that it alone sorts ('the oldest western'); what is unknown is last.
        unknown = np.isnan(_ordered_by(catalogue, superlatives[0], candidates))
        scores = np.where(unknown, -2.0, signals[superlatives[0]]) * len(candidates) + _order(scores) / 2
    padded = np.concatenate([[-np.inf], scores]).astype(np.float32)  # row 0 is no item
    places, best = (found[0] for found in top_k(padded[None], min(k, len(candidates))))
    return Ranking(candidates[places - 1], best, candidates, signals)


def fused(signals: dict[str, np.ndarray], weights: dict[str, float]) -> np.ndarray:
    """float32 [C] of signals [C]."""
    names = list(signals)
    asked = np.array([[weights[name] for name in names]], np.float32)
    padded = np.stack([np.concatenate([[np.nan], signals[name]]) for name in names]).astype(np.float32)
    calibrated = Fusion(asked).calibrated(padded, np.zeros(0, np.int64))[:, 1:]
    calibrated = np.nan_to_num(calibrated)
    if len(names) > 1 and "model" in names:
        # A few items that nearly everybody chooses must not outweigh what was asked for.
        calibrated[names.index("model")] = calibrated[names.index("model")].clip(-MOST_OF_MODEL, MOST_OF_MODEL)
    return asked[0] @ calibrated


def signals_of(
    catalogue: Catalogue, wishes: Wishes, candidates: np.ndarray, user_scores: np.ndarray
) -> dict[str, np.ndarray]:
    """Of each signal that has something to say float32 [C]; `model` always has."""
    found: dict[str, np.ndarray] = {}
    asked = [wishes.text] if wishes.text else []
    if (vectors := catalogue.encoded([*asked, *wishes.less])) is not None:
        content = np.zeros(len(candidates), np.float32)
        for place, vector in enumerate(vectors):
            content += (1.0 if place < len(asked) else -DISLIKED) * catalogue.cosines(vector, candidates)
        found["content"] = content
    if wishes.terms and catalogue.has_words:
        rows, scores = catalogue.search(wishes.terms)
        found["words"] = _spread(rows, scores, catalogue.num_items)[candidates]
    near, linked = _nearness(catalogue, wishes, candidates)
    found |= {name: signal for name, signal in (("likeness", near), ("links", linked)) if signal is not None}
    named = np.isin(candidates, wishes.likes)
    if named.any():
        found["named"] = named.astype(np.float32)
    if wishes.leanings:
        leaned = np.zeros(catalogue.num_items + 1, np.float32)
        for name in wishes.leanings:
            leaned[catalogue.release.columns.rows_by_category.get(name, [])] += 1
        found["leanings"] = leaned[candidates]
    for name in ("newest", "cheapest"):
        if sign := np.sign(getattr(wishes, name)):
            found[name] = sign * _order(_ordered_by(catalogue, name, candidates))
    found["model"] = np.asarray(user_scores[candidates], np.float32)
    return found


def _spread(rows: np.ndarray, scores: np.ndarray, num_items: int) -> np.ndarray:
    spread = np.zeros(num_items + 1, np.float32)
    spread[rows] = scores
    return spread


def _ordered_by(catalogue: Catalogue, name: str, rows: np.ndarray) -> np.ndarray:
    """float64 [R]: what the signal of that name goes by, more is better; NaN where it is unknown."""
    if name == "cheapest":
        return -catalogue.prices[rows].astype(np.float64)
    starts = catalogue.starts[rows]
    return np.where(starts == NO_TIME, np.nan, starts.astype(np.float64))


def _order(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 to 1, those of equal values equal; what is unknown stands in the middle."""
    known = ~np.isnan(values)
    distinct, place = np.unique(values[known], return_inverse=True)
    ranks = np.full(len(values), 0.5, np.float32)
    ranks[known] = place / max(len(distinct) - 1, 1)
    return ranks


def _nearness(
    catalogue: Catalogue, wishes: Wishes, candidates: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """How near each candidate is to the items that are liked, less what it is near to those disliked: by content, and
    by the model's links or vectors."""
    if not (wishes.likes or wishes.dislikes):
        return None, None
    parts = [(row, 1.0) for row in wishes.likes] + [(row, -DISLIKED) for row in wishes.dislikes]
    near = linked = None
    if (vectors := catalogue.vectors) is not None:
        near = np.zeros(len(candidates), np.float32)
        for row, sign in parts:
            near += sign * catalogue.cosines(np.asarray(vectors[row], np.float32), candidates)
    links = catalogue.linked(np.array([row for row, _ in parts]), candidates)
    if links is not None:
        # Of each item its links count against its strongest, so that none outweighs the others.
        strongest = np.maximum(np.abs(links).max(1, initial=0), 1e-12)
        linked = np.asarray(np.array([sign for _, sign in parts]) @ (links / strongest[:, None]), np.float32)
    return near, linked
