"""Data sets with a published division that hold sets of items without an order: LightGCN's Gowalla, NCF's MovieLens-1M.

In: the folder of all data sets. Out: `Task`s. Both publish a train and a test part and no validation part: models are
chosen on a part held out of the train part (`train`, `valid`) and then fitted again on all of it (`whole`) to be told
by the test part, as the published models are. Knows no models.
"""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.quality.sequences import read_lines, read_pairs
from benchmarks.quality.tasks import Task, interactions, judging
from recops.data.interactions import Interactions

QUICK_USERS = 500
HELD_OUT = 0.1
NUM_NEGATIVES = 99


def gowalla(data: Path, quick: bool) -> Task:
    """LightGCN's division: Recall@20 and NDCG@20 over the whole catalogue without the user's train items.

    `Recall` and `Ndcg` are those of the authors' code: hits over all targets, and an ideal list of min(targets, 20)
    hits. Validation: a tenth of each user's train items, drawn with a fixed seed, at least one.
    """
    folder, metrics = data / "lightgcn-gowalla", ("ndcg@20", "recall@20")
    train = read_lines(folder / "train.txt.gz")
    test = read_lines(folder / "test.txt.gz")
    judged = sorted(test, key=lambda user: (len(train[user]), user))
    whole = interactions(
        [user for user, items in train.items() for _ in items], [item for items in train.values() for item in items]
    )
    part = without(whole, drawn(whole, HELD_OUT, seed=0))
    if quick:
        judged = judged[:: len(judged) // QUICK_USERS]
    rows = whole.users.to_idx(judged)
    kept, all_of = [part.history(row) for row in rows], [whole.history(row) for row in rows]
    held_out = [np.setdiff1d(every, some) for every, some in zip(all_of, kept, strict=True)]
    targets = [whole.items.to_idx(test[user]) for user in judged]
    return Task(
        name="gowalla",
        train=part,
        valid=judging(part, judged, kept, held_out, metrics),
        test=judging(whole, judged, all_of, targets, metrics),
        metrics=metrics,
        whole=whole,
    )


def ncf_movielens_1m(data: Path, quick: bool) -> Task:
    """The division of neural collaborative filtering: each user's test item among 99 sampled negatives.

    As the authors' code does, an item that stands twice among the candidates counts once; 156 of the published
    negatives are the user's own test item. The order of a user's events is that of SASRec's file, which has no ties;
    items that it leaves out come first. Validation: the latest train item of each user among 99 items outside the
    user's train part, drawn with a fixed seed.
    """
    folder, metrics = data / "ncf-splits", ("ndcg@10", "hit_rate@10")
    place = {pair: place for place, pair in enumerate(in_time_order(data))}
    with gzip.open(folder / "ml-1m.train.rating.gz", "rt", encoding="utf-8") as lines:
        pairs = [(user, item) for user, item, *_ in map(str.split, lines)]
    pairs.sort(key=lambda pair: place.get(pair, -1))
    whole = interactions([user for user, _ in pairs], [item for _, item in pairs])
    target, negatives = {}, {}
    with (folder / "ml-1m.test.negative").open(encoding="utf-8") as lines:
        for line in lines:
            pair, *items = line.split()
            user, target[user] = pair.strip("()").split(",")
            negatives[user] = [target[user], *items]
    judged = sorted(target, key=lambda user: (len(whole.history(whole.users.to_idx([user])[0])), user))
    if quick:
        judged = judged[:: len(judged) // QUICK_USERS]
    rows = whole.users.to_idx(judged)
    all_of = [whole.history(row) for row in rows]
    held_out = np.array([history[-1] for history in all_of])
    is_latest = np.zeros(len(whole), bool)
    is_latest[whole.offsets[rows + 1] - 1] = True
    part = without(whole, is_latest)
    return Task(
        name="ncf_ml_1m",
        train=part,
        # Weights of a fusion are sought over the whole catalogue, where the tenth of 100 is beyond the hundredth.
        valid=judging(part, judged, [part.history(row) for row in rows], list(held_out[:, None]), ("ndcg@100",)),
        test=judging(whole, judged, all_of, [whole.items.to_idx([target[user]]) for user in judged], metrics),
        metrics=metrics,
        valid_candidates=[
            np.append(negative, item) for negative, item in zip(sampled(whole, rows, seed=0), held_out, strict=True)
        ],
        test_candidates=[whole.items.to_idx(negatives[user]) for user in judged],
        whole=whole,
    )


def drawn(log: Interactions, share: float, seed: int) -> np.ndarray:
    """bool [E]: a share of each user's events, at least one, drawn without repetition."""
    order = np.lexsort((np.random.default_rng(seed).random(len(log)), log.user_idx))
    place = np.arange(len(log)) - log.offsets[log.user_idx]
    wanted = np.maximum(1, np.round(share * np.diff(log.offsets))).astype(np.int64)
    chosen = np.zeros(len(log), bool)
    chosen[order[place < wanted[log.user_idx]]] = True
    return chosen


def without(log: Interactions, leave_out: np.ndarray) -> Interactions:
    """The other events, with the same vocabularies: an item may be left without any."""
    user_idx = log.user_idx[~leave_out]
    return replace(
        log,
        user_idx=user_idx,
        item_idx=log.item_idx[~leave_out],
        value=log.value[~leave_out],
        weight=log.weight[~leave_out],
        offsets=np.searchsorted(user_idx, np.arange(log.num_users + 2)).astype(np.int64),
    )


def sampled(log: Interactions, rows: np.ndarray, seed: int) -> list[np.ndarray]:
    """For each user row NUM_NEGATIVES items that the user has no event with, drawn without repetition."""
    generator = np.random.default_rng(seed)
    everything = np.arange(1, log.num_items + 1)
    return [generator.choice(np.setdiff1d(everything, log.history(row)), NUM_NEGATIVES, replace=False) for row in rows]


def in_time_order(data: Path) -> list[tuple[str, str]]:
    """(user, item) of SASRec's file in the ids of NCF's, each user's events oldest first."""
    folder = data / "sasrec-bert4rec"
    to_ncf = {(kind, movielens_id): id_ for kind, id_, movielens_id in _rows(data / "ncf-splits" / "ml-1m.id_map.tsv")}
    users, items = (
        {id_: to_ncf[kind, movielens_id] for id_, movielens_id in _rows(folder / f"ml-1m.sas_to_original_{kind}s.txt")}
        for kind in ("user", "item")
    )
    sequences = read_pairs(folder / "ml-1m.txt.gz")
    return [(users[user], items[item]) for user, sequence in sequences.items() for item in sequence]


def _rows(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
