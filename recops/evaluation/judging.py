"""Who is judged on a part of the split, and with what: histories, targets, and what is known of the items.

In: the folder of the split stage, the train part as Interactions. Out: `Judging`, which takes any number of scorers
over the same vocabulary. Knows no models.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
from scipy import sparse

from recops import plugins
from recops.data.impressions import Impressions
from recops.data.interactions import Interactions
from recops.errors import CallError
from recops.evaluation.protocol import Evaluation, RankedUsers, evaluate, metric_values, rank_users
from recops.histories import Histories
from recops.params import EvaluateParams
from recops.runtime import Scorer

# What a user had before the part that is judged, beside the train part.
EARLIER_PARTS: dict[str, list[str]] = {"valid": [], "test": ["valid"]}
CONTEXT = "context.parquet"  # what is not judged and yet history by then; only some splitters have any


@dataclass(frozen=True)
class Judging:
    """U users of one part in the order of their first target, each with history and targets as item rows.

    Items that were never trained on have the last rows where they have content, else they are 0 among the targets.
    `first_seen` and `at_time` are None where every item is always a candidate: `evaluate.catalogue: all`, or a log
    without times.
    """

    user_ids: list[str]
    histories: list[np.ndarray]
    targets: list[np.ndarray]
    item_counts: np.ndarray  # int64 [N+1], of the train part
    fallback: np.ndarray  # float32 [N+1], the same with weights: what someone without history is served
    settings: EvaluateParams
    remove_seen: bool
    item_categories: sparse.csr_array | None = None
    first_seen: np.ndarray | None = None  # int64 [N+1], microseconds
    at_time: np.ndarray | None = None  # int64 [U], the user's last target
    not_judged: dict[str, int] | None = None
    users: np.ndarray | None = None  # int64 [U], rows of `train.all_users`, 0 for one of whom nothing is known
    ages: list[np.ndarray] | None = None  # U int64 arrays: seconds from each event to the user's first target
    asked_at: np.ndarray | None = None  # int64 [U], microseconds: the user's first target
    impressions: Impressions | None = None  # what these users were shown when they chose
    lower_is_better: ClassVar[bool] = False
    refused: list[np.ndarray] | None = None  # U int arrays of rows that are no candidates for the user

    def __len__(self) -> int:
        return len(self.histories)

    @property
    def asked(self) -> Histories:
        """What a scorer is given for these users."""
        return Histories(self.histories, self.ages, self.users, self.asked_at)

    def rank(self, scorer: Scorer, k: int) -> RankedUsers:
        """The lists of one model. Users without history get the most popular items from a model that needs one, as
        they do when served."""
        return rank_users(
            scorer,
            self.asked,
            self.targets,
            k=k,
            remove_seen=self.remove_seen,
            item_counts=self.item_counts,
            fallback=self.fallback,
            item_categories=self.item_categories,
            first_seen=self.first_seen,
            at_time=self.at_time,
            refused=self.refused,
        )

    def mean(self, scorer: Scorer, metric: str) -> float:
        """One metric such as `ndcg@10` over all users; NaN where nobody is judged.

        Raises CallError for other names, for a figure of all lists together (models are compared user by user), and for
        one that no user has.
        """
        name, _, _ = metric.partition("@")
        if not plugins.load("evaluation.metrics", name).per_user:
            raise CallError(f"evaluate.metric: {name} is one figure of all lists together; take one that each user has")
        values = metric_values(self.rank(scorer, metric_k(metric)), metric)
        if len(self) and not np.isfinite(values).any():
            raise CallError(
                f"evaluate.metric: {metric} is undefined for each of {len(self)} users, as figures of categories are; "
                "take one of accuracy, such as ndcg@10"
            )
        return float(np.nanmean(values)) if len(self) else float("nan")

    def evaluation(self, scorer: Scorer) -> Evaluation:
        """All figures, and the values of each user, which the gate compares."""
        ks = sorted({*self.settings.k, metric_k(self.settings.metric)})
        return evaluate(
            self.rank(scorer, max(ks)),
            ks,
            samples=self.settings.bootstrap_samples,
            seed=self.settings.seed,
            not_judged=self.not_judged,
        )

    def evaluate(self, scorer: Scorer) -> dict[str, Any]:
        """`evaluation(scorer).figures`: JSON values only."""
        return self.evaluation(scorer).figures

    def fingerprint(self) -> str:
        """Hex digest of who is judged on what: figures of two judgings with the same one can be compared."""
        settings = {**self.settings.model_dump(), "remove_seen": self.remove_seen, "users": self.user_ids}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for arrays in (self.histories, self.targets, self.refused or [], [self.item_counts, self.fallback]):
            digest.update(np.array([len(array) for array in arrays], np.int64).tobytes())
            for array in arrays:
                digest.update(np.ascontiguousarray(array).tobytes())
        ages = None if self.ages is None else np.concatenate([np.empty(0, np.int64), *self.ages])
        for times in (self.first_seen, self.at_time, ages):
            digest.update(b"-" if times is None else times.tobytes())
        return digest.hexdigest()

    def of(self, rows: np.ndarray) -> "Judging":
        """The same for some users: int [U'], rising where there are impressions."""
        return replace(
            self,
            user_ids=[self.user_ids[row] for row in rows],
            histories=[self.histories[row] for row in rows],
            targets=[self.targets[row] for row in rows],
            at_time=None if self.at_time is None else self.at_time[rows],
            users=None if self.users is None else self.users[rows],
            ages=None if self.ages is None else [self.ages[row] for row in rows],
            asked_at=None if self.asked_at is None else self.asked_at[rows],
            impressions=None if self.impressions is None else self.impressions.of(rows),
            refused=None if self.refused is None else [self.refused[row] for row in rows],
        )

    def sample(self, num_users: int, seed: int) -> Histories:
        """At most `num_users` users drawn without repetition, in their order."""
        return self.asked[drawn(len(self), num_users, seed)]


def metric_k(metric: str) -> int:
    """10 for `ndcg@10`. Raises CallError where there is no such number."""
    _, _, k = metric.partition("@")
    if not k.isdecimal() or int(k) < 1:
        raise CallError(f"evaluate.metric: expected a name and a length such as ndcg@10, found {metric!r}")
    return int(k)


def read_judging(
    split: Path,
    part: Literal["valid", "test"],
    train: Interactions,
    settings: EvaluateParams,
    remove_seen: bool,
    items: Path | None = None,
) -> Judging:
    """The users with a positive in `part`; histories hold what each had in the parts before it. What they had turned
    down by their first target is no candidate (none for a split without refused.parquet).

    `items` (items.parquet) adds categories, and lets an item be a candidate from `published_at` on where that is
    earlier than its first event; `settings.catalogue: all` makes every item a candidate. `settings.max_users` judges a
    seeded sample. `not_judged` counts users of the train part without a target and those that the sample leaves out.
    """
    targets = _positives(split / f"{part}.parquet", train)
    users = targets.group_by("user_id", maintain_order=True).agg(
        "item_idx", pl.col("timestamp").max(), first=pl.col("timestamp").min().cast(pl.Int64)
    )
    trained = train.users.to_idx(users["user_id"].to_list()).astype(np.int64)
    histories: dict[str, list[np.ndarray]] = {}
    times: dict[str, list[np.ndarray]] = {}
    for user_id, row in zip(users["user_id"], trained.tolist(), strict=True):
        histories[user_id] = [train.history(row)]
        times[user_id] = [] if train.timestamp is None else [train.timestamp[train.span(row)]]
    known = _earlier(split, part, train, users)
    had = known.group_by("user_id", maintain_order=True).agg("item_idx", pl.col("timestamp").cast(pl.Int64))
    for user_id, rows, at in had.iter_rows():
        histories[user_id].append(np.array(rows, np.int64))
        times[user_id].append(np.array(at, np.int64) if train.timestamp is not None else np.empty(0))
    lists = [np.concatenate([np.empty(0, np.int64), *h]) for h in histories.values()]
    ages = None
    if train.timestamp is not None and users["first"].null_count() == 0:
        asked = zip(users["first"].to_list(), times.values(), strict=True)
        ages = [(first - np.concatenate([np.empty(0, np.int64), *at])) // 1_000_000 for first, at in asked]
    first_seen = _first_seen(split, train, items) if settings.catalogue == "at_time" else None
    kept = drawn(len(users), settings.max_users, settings.seed)
    not_judged = {
        "trained on, no target in this part": train.num_users - int((trained > 0).sum()),
        "left out by evaluate.max_users": len(users) - len(kept),
    }
    users = users[kept]
    known_users = train.all_users.to_idx(users["user_id"].to_list()).astype(np.int64)
    return Judging(
        user_ids=users["user_id"].to_list(),
        histories=[lists[row] for row in kept],
        targets=[np.array(rows, np.int64) for rows in users["item_idx"].to_list()],
        item_counts=np.bincount(train.item_idx, minlength=len(train.all_items) + 1),
        fallback=np.bincount(train.item_idx, train.weight, len(train.all_items) + 1).astype(np.float32),
        settings=settings,
        remove_seen=remove_seen,
        item_categories=_categories(items, train) if items is not None else None,
        first_seen=first_seen,
        at_time=users["timestamp"].cast(pl.Int64).to_numpy() if first_seen is not None else None,
        not_judged={reason: count for reason, count in not_judged.items() if count},
        users=known_users,
        ages=None if ages is None else [ages[row] for row in kept],
        asked_at=None if ages is None else users["first"].to_numpy(),
        refused=_refused(split, train, users),
    )


def refused_items(split: Path, users: pl.DataFrame) -> dict[str, list[str]]:
    """By user of `users` (user_id, first int64: microseconds of the first target, null in a log without times) the
    ids of what was not to be recommended by then."""
    if not (split / "refused.parquet").exists():
        return {}
    pairs = pl.read_parquet(split / "refused.parquet").join(users.select("user_id", "first"), on="user_id")
    by_then = pl.col("timestamp").is_null() | (pl.col("timestamp").cast(pl.Int64) < pl.col("first"))
    return dict(pairs.filter(by_then).group_by("user_id").agg("item_id").iter_rows())


def _refused(split: Path, train: Interactions, users: pl.DataFrame) -> list[np.ndarray]:
    items = refused_items(split, users)
    rows = [train.all_items.to_idx(items.get(user_id, [])) for user_id in users["user_id"]]
    return [row[row > 0].astype(np.int64) for row in rows]


def drawn(num_users: int, wanted: int | None, seed: int) -> np.ndarray:
    """Rows of at most `wanted` users, drawn without repetition, rising."""
    if wanted is None or wanted >= num_users:
        return np.arange(num_users)
    return np.sort(np.random.default_rng(seed).choice(num_users, wanted, replace=False))


def _earlier(split: Path, part: str, train: Interactions, users: pl.DataFrame) -> pl.DataFrame:
    """user_id, item_idx and timestamp of what `users` (user_id, first) had after the train part and before `part`."""
    found = [_positives(split / f"{earlier}.parquet", train) for earlier in EARLIER_PARTS[part]]
    if (split / CONTEXT).exists():
        found.append(_positives(split / CONTEXT, train))
    if not found:
        return pl.DataFrame(schema={"user_id": pl.String, "item_idx": pl.Int32, "timestamp": pl.Int64})
    known = pl.concat(found).filter(pl.col("item_idx") > 0).join(users.select("user_id", "first"), on="user_id")
    return before_first(known) if (split / CONTEXT).exists() else known


def before_first(events: pl.DataFrame) -> pl.DataFrame:
    """Events with a `timestamp` before the `first` (microseconds) that stands beside them, in the order of time."""
    is_earlier = pl.col("timestamp").cast(pl.Int64) < pl.col("first")
    return events.filter(is_earlier).sort("timestamp", maintain_order=True)


def _positives(path: Path, train: Interactions) -> pl.DataFrame:
    """user_id, timestamp and item_idx (0 unknown) of the positives of one part, in the order of the log."""
    frame = pl.read_parquet(path).filter(pl.col("signal") == "positive")
    item_idx = pl.Series("item_idx", train.all_items.to_idx(frame["item_id"].to_list()))
    return frame.select("user_id", "timestamp").with_columns(item_idx)


def _in_row_order(train: Interactions, table: pl.DataFrame) -> pl.DataFrame:
    """The rows of `table` for `train.all_items`, null where it has none: N rows, without padding."""
    items = pl.DataFrame({"item_id": train.all_items.ids}, schema={"item_id": pl.String})
    return items.join(table.unique("item_id", keep="first"), on="item_id", how="left", maintain_order="left")


def _first_seen(split: Path, train: Interactions, items: Path | None) -> np.ndarray | None:
    """int64 [N+1] microseconds from which an item is a candidate; None for a log without times."""
    seen = _in_row_order(train, pl.read_parquet(split / "first_seen.parquet"))["timestamp"]
    if seen[: train.num_items].null_count():
        return None
    if items is not None:
        published = _in_row_order(train, pl.read_parquet(items, columns=["item_id", "published_at"]))["published_at"]
        seen = pl.DataFrame([seen.alias("seen"), published.alias("published")]).min_horizontal()
    # An item without any event was always there, unless the catalogue says since when.
    return np.concatenate(([0], seen.cast(pl.Int64).fill_null(0).to_numpy()))


def _categories(items: Path, train: Interactions) -> sparse.csr_array | None:
    """0/1 float [N+1, C], columns in the order of the categories' names; None where no item has any."""
    listed = _in_row_order(train, pl.read_parquet(items, columns=["item_id", "categories"])).select("categories")
    pairs = listed.with_row_index("row", offset=1).explode("categories").drop_nulls().unique().sort("row", "categories")
    if pairs.is_empty():
        return None
    names = pairs["categories"].unique().sort()
    columns = names.search_sorted(pairs["categories"])
    shape = (len(train.all_items) + 1, len(names))
    return sparse.csr_array((np.ones(len(pairs)), (pairs["row"].to_numpy(), columns.to_numpy())), shape=shape)
