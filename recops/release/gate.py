"""Decides whether a candidate replaces the champion, and judges a bundle on what happened after it was fitted.

In: one value a user for each of the two models, on the same users. Out: a `Decision` with its reasons. Rule: DESIGN
section 7. Knows nothing about how models are trained, and promotes nothing itself.

Shapes: U users judged, N items of a model, K list length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from recops.bundle import Bundle
from recops.data.vocabulary import Vocabulary
from recops.errors import CallError
from recops.evaluation.bootstrap import paired_bootstrap
from recops.evaluation.judging import metric_k
from recops.evaluation.protocol import metric_values, rank_users, ranked_lists
from recops.evaluation.segments import ITEM_CLASSES, item_classes, segments, user_segments
from recops.histories import Histories
from recops.params import GateParams
from recops.runtime import Scorer


@dataclass(frozen=True)
class Judged:
    """One model's metric for each user: `values` float64 [U], and the same within each segment, NaN outside of it.

    With `lower_is_better` it is an error.
    """

    metric: str
    user_ids: Sequence[str]
    values: np.ndarray
    segments: Mapping[str, np.ndarray] = field(default_factory=dict)
    lower_is_better: bool = False


@dataclass(frozen=True)
class Decision:
    """`promote`, `keep` (the champion stays) or `undecided` (too few users: a person may promote), and why."""

    verdict: Literal["promote", "keep", "undecided"]
    reasons: list[str]
    figures: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def decide(
    candidate: Judged, champion: Judged | None, params: GateParams, *, samples: int = 1000, seed: int = 42
) -> Decision:
    """The gate. Without a champion the candidate passes: which model becomes the first release was chosen before.

    Passes when the lower end of the 95 % interval of the paired difference is at least -margin of the champion's mean,
    and in no guard segment the mean difference is below -guard_margin of the champion's mean there; of an error, which
    is to be low, when the upper end is at most +margin, and no mean difference above +guard_margin. Fewer than
    `min_users` users decide nothing; a guard segment of fewer than `guard_min_users` is not judged. Users judged for
    one model only are left out and counted. Raises CallError for a guard segment that does not exist.
    """
    if champion is None:
        return Decision("promote", ["nothing is served yet: this is the first release"], {"metric": candidate.metric})
    assert candidate.metric == champion.metric, f"{candidate.metric} cannot be compared with {champion.metric}"
    ids = sorted(set(candidate.user_ids) & set(champion.user_ids))
    rows = [_rows(judged, ids) for judged in (candidate, champion)]
    sign = 1 if candidate.lower_is_better else -1  # of a loss
    whole = _compared(candidate.values[rows[0]], champion.values[rows[1]], sign * params.margin, samples, seed)
    figures: dict[str, Any] = {"metric": candidate.metric, **whole, "segments": {}}
    figures["not_judged"] = len(set(candidate.user_ids) | set(champion.user_ids)) - whole["users"]
    if whole["users"] < params.min_users:
        reason = f"{whole['users']} users judged, gate.min_users is {params.min_users}: a person may promote"
        return Decision("undecided", [reason], figures)

    def fails(worst: float, allowed: float) -> bool:
        return sign * worst > sign * allowed

    beyond, within = ("above", "at most") if candidate.lower_is_better else ("below", "at least")
    passes = not fails(whole["high" if candidate.lower_is_better else "low"], whole["allowed"])
    interval = f"{whole['difference']:+.4f} [{whole['low']:+.4f}, {whole['high']:+.4f}]"
    reasons = [
        f"{candidate.metric} {whole['candidate']:.4f}, champion {whole['champion']:.4f}; difference {interval}: "
        f"{within if passes else beyond} the {whole['allowed']:+.4f} allowed"
    ]
    for name in params.guard_segments:
        if name not in candidate.segments or name not in champion.segments:
            there = ", ".join(sorted(set(candidate.segments) & set(champion.segments)))
            raise CallError(f"gate.guard_segments: no segment {name!r}; there are {there or 'none'}")
        values = candidate.segments[name][rows[0]], champion.segments[name][rows[1]]
        part = _compared(*values, sign * params.guard_margin, samples, seed)
        figures["segments"][name] = part
        if part["users"] < params.guard_min_users:
            reasons.append(f"{name}: {part['users']} users, too few to judge (gate.guard_min_users)")
        elif fails(part["difference"], part["allowed"]):
            passes = False
            reasons.append(f"{name}: difference {part['difference']:+.4f}, {beyond} the {part['allowed']:+.4f} allowed")
    return Decision("promote" if passes else "keep", reasons, figures)


def judge_bundle(
    bundle: Bundle,
    histories: Mapping[str, Sequence[str]],
    targets: Mapping[str, Sequence[str]],
    *,
    ages: Mapping[str, Sequence[int]] | None = None,
    asked_at: Mapping[str, int] | None = None,
    metric: str,
    remove_seen: bool,
    item_counts: Mapping[str, int],
    first_seen: Mapping[str, int] | None = None,
    at_time: Mapping[str, int] | None = None,
    refused: Mapping[str, Sequence[str]] | None = None,
) -> Judged:
    """`judge_scorer` of a bundle, with its own catalogue and its own fallback for users without history."""
    return judge_scorer(
        bundle.scorer,
        bundle.items["item_id"],
        bundle.fallback,
        histories,
        targets,
        user_table=bundle.user_ids,
        ages=ages,
        asked_at=asked_at,
        metric=metric,
        remove_seen=remove_seen,
        item_counts=item_counts,
        first_seen=first_seen,
        at_time=at_time,
        refused=refused,
    )


def judge_scorer(
    scorer: Scorer,
    item_ids: Sequence[str],
    fallback: np.ndarray,
    histories: Mapping[str, Sequence[str]],
    targets: Mapping[str, Sequence[str]],
    *,
    user_table: Sequence[str] = (),
    ages: Mapping[str, Sequence[int]] | None = None,
    asked_at: Mapping[str, int] | None = None,
    metric: str,
    remove_seen: bool,
    item_counts: Mapping[str, int],
    first_seen: Mapping[str, int] | None = None,
    at_time: Mapping[str, int] | None = None,
    refused: Mapping[str, Sequence[str]] | None = None,
) -> Judged:
    """The metric (`ndcg@10`) for each user of `targets`, by user id, on ids: models of any vocabulary are comparable.

    `item_ids` [N], `fallback` float32 [N+1] and the ids of its `user_table` [U] belong to the scorer. `histories` hold
    what each user had before the targets, oldest first (a user without an entry has none), `ages` the seconds from each
    to the first target, `asked_at` the microseconds of that target; items unknown to the model are left out of them,
    and are misses among the targets. `item_counts` (train events by item) divides items in head, tail and new, for
    every model alike. `first_seen` (microseconds by item; one without entry was always there) and `at_time` (by user)
    go together: an item first seen after a user's time is no candidate for them; nor is what `refused`
    names (by user). No targets give no users.
    """
    assert (first_seen is None) == (at_time is None)
    user_ids = sorted(targets)
    past = [list(histories.get(user_id, ())) for user_id in user_ids]
    own = Vocabulary.in_order(item_ids)
    known = [own.to_idx(history) for history in past]
    row_of_user = {user_id: row for row, user_id in enumerate(user_table, start=1)}
    asked = Histories(
        [rows[rows > 0].astype(np.int64) for rows in known],
        None
        if ages is None
        else [
            np.array(ages.get(user_id, ()), np.int64)[rows > 0] for user_id, rows in zip(user_ids, known, strict=True)
        ],
        np.array([row_of_user.get(user_id, 0) for user_id in user_ids], np.int64),
        None if asked_at is None else np.array([asked_at[user_id] for user_id in user_ids], np.int64),
    )
    lists = rank_users(
        scorer,
        asked,
        [np.zeros(1, np.int64)] * len(user_ids),
        k=metric_k(metric),
        remove_seen=remove_seen,
        item_counts=fallback,
        first_seen=None if first_seen is None else np.array([0, *(first_seen.get(i, 0) for i in own.ids)], np.int64),
        at_time=None if at_time is None else np.array([at_time[user_id] for user_id in user_ids], np.int64),
        refused=None if refused is None else [own.to_idx(list(refused.get(user_id, ()))) for user_id in user_ids],
    )
    # From the model's own rows to rows that hold for every model.
    shared = Vocabulary([*own.ids, *item_counts, *(i for ids in [*past, *targets.values()] for i in ids)])
    row_of = np.concatenate([np.zeros(1, np.int32), shared.to_idx(own.ids)])
    ranked = ranked_lists(
        row_of[lists.top_idx],
        [shared.to_idx(list(targets[user_id])) for user_id in user_ids],
        item_counts=[0, *(item_counts.get(item_id, 0) for item_id in shared.ids)],
        scores=lists.top_scores,
        histories=[shared.to_idx(history) for history in past],
    )
    return Judged(
        metric=metric,
        user_ids=user_ids,
        values=metric_values(ranked, metric),
        segments={
            name: np.where(inside, metric_values(part, metric), np.nan)
            for name, (inside, part) in segments(ranked).items()
        },
    )


def judge_ratings(
    scorer: Scorer,
    item_ids: Sequence[str],
    targets: Mapping[str, Sequence[str]],
    values: Mapping[str, Sequence[float]],
    *,
    user_table: Sequence[str],
    item_counts: Mapping[str, int],
    histories: Mapping[str, Sequence[str]],
) -> Judged:
    """The mean squared error of each user of `targets`, whose ratings are `values`, as a scorer with `ratings` serves.

    Ids, `user_table`, `item_counts` and `histories` as in `judge_scorer`; histories only tell segments apart. An item
    or a user that the model does not know gets the means that it is served with.
    """
    user_ids = sorted(targets)
    row_of_item = {item_id: row for row, item_id in enumerate(item_ids, start=1)}
    row_of_user = {user_id: row for row, user_id in enumerate(user_table, start=1)}
    counted = sorted(item_counts)
    classes = item_classes(np.array([0, *(item_counts[item_id] for item_id in counted)]))
    class_of = dict(zip(counted, classes[1:].tolist(), strict=True))
    errors: list[np.ndarray] = []
    for user_id in user_ids:
        asked = Histories([np.empty(0, np.int64)], users=np.array([row_of_user.get(user_id, 0)], np.int64))
        rows = np.array([row_of_item.get(item_id, 0) for item_id in targets[user_id]], np.int64)
        errors.append((scorer.predictions(asked, rows)[0].astype(np.float64) - np.array(values[user_id])) ** 2)
    means = np.array([error.mean() for error in errors])
    lengths = np.array([len(histories.get(user_id, ())) for user_id in user_ids])
    found = {name: np.where(inside, means, np.nan) for name, inside in user_segments(lengths).items()}
    for name in ITEM_CLASSES:
        inside = [np.array([class_of.get(i, "new") == name for i in targets[user_id]]) for user_id in user_ids]
        kept = [error[keep] for error, keep in zip(errors, inside, strict=True)]
        found[f"items:{name}"] = np.array([error.mean() if len(error) else np.nan for error in kept])
    return Judged("squared error", user_ids, means, found, lower_is_better=True)


def _rows(judged: Judged, ids: Sequence[str]) -> list[int]:
    row_of = {user_id: row for row, user_id in enumerate(judged.user_ids)}
    return [row_of[user_id] for user_id in ids]


def _compared(a: np.ndarray, b: np.ndarray, margin: float, samples: int, seed: int) -> dict[str, Any]:
    """Means over the users known in both, their paired difference with its interval, and the loss that is allowed."""
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any():
        keys = ("candidate", "champion", "difference", "low", "high", "allowed")
        return {"users": 0, **dict.fromkeys(keys)}
    difference, low, high = paired_bootstrap(a[both], b[both], samples, seed)
    champion = float(b[both].mean())
    return {
        "users": int(both.sum()),
        "candidate": float(a[both].mean()),
        "champion": champion,
        "difference": difference,
        "low": low,
        "high": high,
        "allowed": margin * champion,
    }
