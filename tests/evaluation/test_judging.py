"""Who is judged with what history, on a split small enough to know."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recops.data.content import item_content
from recops.data.interactions import read_interactions
from recops.data.split import split_events
from recops.errors import CallError
from recops.evaluation.judging import Judging, metric_k, read_judging
from recops.models.most_popular import MostPopular
from recops.params import EvaluateParams, IngestParams, SplitParams
from recops.runtime import Scorer

START = datetime(2024, 1, 1, tzinfo=UTC)
# u and v end with a validation and a test item each; e is in nobody's training, w has too few events.
LOG = ["ua", "va", "ub", "vc", "uc", "vb", "vd", "wa", "wd", "ud", "ve"]
TIME = pl.Datetime("us", "UTC")


def make(tmp_path: Path, part: str, *, times: bool = True, items: pl.DataFrame | None = None, **settings) -> Judging:
    pl.DataFrame(
        {
            "user_id": [row[0] for row in LOG],
            "item_id": [row[1] for row in LOG],
            "timestamp": [START + timedelta(hours=n) if times else None for n in range(len(LOG))],
            "event": ["click"] * len(LOG),
            "value": pl.Series([None] * len(LOG), dtype=pl.Float32),
        },
        schema_overrides={"timestamp": TIME},
    ).write_parquet(tmp_path / "events.parquet")
    split_events(tmp_path / "events.parquet", tmp_path / "split", SplitParams(), IngestParams().events, True)
    if items is not None:
        items.write_parquet(tmp_path / "items.parquet")
    train = read_interactions(tmp_path / "split" / "train.parquet")
    assert train.items.ids == ["a", "b", "c", "d"]
    return read_judging(
        tmp_path / "split",
        part,  # type: ignore[arg-type]
        train,
        EvaluateParams(**settings),
        True,
        tmp_path / "items.parquet" if items is not None else None,
    )


def lists(judging: Judging) -> dict[str, tuple[list[int], list[int]]]:
    pairs = zip(judging.user_ids, judging.histories, judging.targets, strict=True)
    return {user: (history.tolist(), target.tolist()) for user, history, target in pairs}


def test_histories_hold_what_came_before_the_judged_part(tmp_path: Path):
    assert lists(make(tmp_path, "valid")) == {"u": ([1, 2], [3]), "v": ([1, 3, 2], [4])}
    assert lists(make(tmp_path, "test")) == {"u": ([1, 2, 3], [4]), "v": ([1, 3, 2, 4], [0])}


def test_who_is_not_judged_is_counted(tmp_path: Path):
    assert make(tmp_path, "test").not_judged == {"trained on, no target in this part": 1}
    sampled = make(tmp_path, "test", max_users=1)
    assert len(sampled) == 1
    assert sampled.not_judged == {"trained on, no target in this part": 1, "left out by evaluate.max_users": 1}
    assert lists(sampled).items() <= lists(make(tmp_path, "test")).items()


def test_times_of_items_and_targets(tmp_path: Path):
    judging = make(tmp_path, "valid")
    assert judging.first_seen is not None and judging.at_time is not None
    start = int(START.timestamp() * 1e6)
    hours = [int(t - start) // 3_600_000_000 for t in judging.first_seen[1:]]
    assert hours == [0, 2, 3, 6]
    assert judging.asked_at is not None and (judging.asked_at == judging.at_time).all()  # of one target each
    assert judging.asked.at is judging.asked_at and judging.of(np.array([1])).asked.at.tolist() == [judging.asked_at[1]]
    # The first user's target is at hour 4, when item d was in no event yet; it was published at hour 1.
    model = Scorer(4, item_scores=np.array([0, 1, 2, 3, 4], np.float32), needs_history=False)
    assert judging.rank(model, 2).top_idx.tolist() == [[3, 0], [4, 0]]
    items = pl.DataFrame(
        {"item_id": ["d", "c"], "published_at": [START + timedelta(hours=1), None], "categories": [["x"], ["x", "y"]]},
        schema_overrides={"published_at": TIME},
    )
    assert make(tmp_path, "valid", items=items).rank(model, 2).top_idx.tolist() == [[4, 3], [4, 0]]


def test_categories_stand_at_their_item(tmp_path: Path):
    items = pl.DataFrame(
        {"item_id": ["d", "zz", "a"], "published_at": [None] * 3, "categories": [["y", "x", "x"], ["q"], []]},
        schema_overrides={"published_at": TIME},
    )
    found = make(tmp_path, "test", items=items).item_categories
    assert found is not None
    assert found.toarray().tolist() == [[0, 0], [0, 0], [0, 0], [0, 0], [1, 1]]


def test_the_whole_catalogue_can_be_asked_for(tmp_path: Path):
    judging = make(tmp_path, "valid", catalogue="all")
    model = Scorer(4, item_scores=np.array([0, 1, 2, 3, 4], np.float32), needs_history=False)
    assert judging.rank(model, 2).top_idx.tolist() == [[4, 3], [4, 0]]


def test_a_log_without_times_has_no_catalogue_rule(tmp_path: Path):
    judging = make(tmp_path, "test", times=False)
    assert judging.first_seen is None and judging.at_time is None
    assert lists(judging)["u"] == ([1, 2, 3], [4])


def test_figures_of_a_scorer(tmp_path: Path):
    judging = make(tmp_path, "test", k=[2], metric="recall@1", bootstrap_samples=100)
    model = Scorer(4, item_scores=np.array([0, 1, 2, 3, 4], np.float32), needs_history=False)
    # u's d is the only item left to recommend; v's e is not known.
    assert judging.mean(model, "ndcg@2") == 0.5
    figures = judging.evaluate(model)
    assert figures["metrics"]["recall@1"]["value"] == figures["metrics"]["recall@2"]["value"] == 0.5
    assert figures["users"]["unknown_targets"] == 1
    assert [h.tolist() for h in judging.sample(5, seed=1)] == [[1, 2, 3], [1, 3, 2, 4]]


def test_users_without_history_are_judged_by_the_list_they_are_served(tmp_path: Path):
    # One purchase weighs more than two views, in the model `most_popular` that the bundle's fallback is made of too.
    train = [("u", "a", "view"), ("v", "a", "view"), ("w", "b", "purchase")]
    parts = {"train": train, "valid": [("n", "b", "view")], "test": [("n", "b", "view")]}
    for name, rows in parts.items():
        pl.DataFrame(
            {
                "user_id": [user for user, _, _ in rows],
                "item_id": [item for _, item, _ in rows],
                "timestamp": pl.Series([None] * len(rows), dtype=TIME),
                "event": [event for _, _, event in rows],
                "value": pl.Series([None] * len(rows), dtype=pl.Float32),
                "signal": ["positive"] * len(rows),
                "weight": [5.0 if event == "purchase" else 1.0 for _, _, event in rows],
            }
        ).write_parquet(tmp_path / f"{name}.parquet")
    pl.DataFrame({"item_id": ["a", "b"], "timestamp": pl.Series([None] * 2, dtype=TIME)}).write_parquet(
        tmp_path / "first_seen.parquet"
    )
    interactions = read_interactions(tmp_path / "train.parquet")
    judging = read_judging(tmp_path, "valid", interactions, EvaluateParams(), True)
    popular = MostPopular(MostPopular.Config(), interactions.num_users, interactions.num_items, seed=0)
    popular.fit(interactions)
    needs_history = Scorer(2, item_scores=np.zeros(3, np.float32))
    assert judging.fallback.tolist() == popular.item_scores.tolist() == [0.0, 2.0, 5.0]
    ranked = judging.rank(needs_history, 2)
    assert ranked.top_idx.tolist() == [[2, 1]]
    assert ranked.item_counts.tolist() == [0, 2, 1]


def test_the_fingerprint_tells_judgings_apart(tmp_path: Path):
    own = make(tmp_path, "valid").fingerprint()
    assert make(tmp_path, "valid").fingerprint() == own
    others = [make(tmp_path, "test"), make(tmp_path, "valid", catalogue="all"), make(tmp_path, "valid", max_users=1)]
    assert len({own, *(judging.fingerprint() for judging in others)}) == 4


def test_models_are_not_chosen_by_a_figure_that_no_single_user_has(tmp_path: Path):
    model = Scorer(4, item_scores=np.zeros(5, np.float32), needs_history=False)
    with pytest.raises(CallError, match=r"evaluate\.metric: coverage is one figure"):
        make(tmp_path, "test").mean(model, "coverage@10")


@pytest.mark.parametrize("metric", ["diversity@10", "calibration@10"])
def test_models_are_not_chosen_by_a_figure_that_nobody_here_has(tmp_path: Path, metric: str):
    """On validation no categories are looked at."""
    model = Scorer(4, item_scores=np.zeros(5, np.float32), needs_history=False)
    with pytest.raises(CallError, match=rf"evaluate\.metric: {metric} is undefined for each of 2 users"):
        make(tmp_path, "valid").mean(model, metric)


@pytest.mark.parametrize("metric", ["ndcg", "ndcg@", "ndcg@x", "ndcg@0"])
def test_a_metric_without_a_length_is_refused(metric: str):
    with pytest.raises(CallError, match="such as ndcg@10"):
        metric_k(metric)


def test_new_items_are_candidates_where_something_is_known_of_them(tmp_path: Path):
    """c comes after the cut: a model that has no row for it misses, one that has finds it; histories hold what was
    neither trained on nor judged, up to the first target."""
    rows = ["ua", "va", "ub", "wb", "ub", "vb", "wa", "wc", "vc", "va", "ud"]
    pl.DataFrame(
        {
            "user_id": [row[0] for row in rows],
            "item_id": [row[1] for row in rows],
            "timestamp": [START + timedelta(hours=n) for n in range(len(rows))],
            "event": ["click"] * len(rows),
            "value": pl.Series([None] * len(rows), dtype=pl.Float32),
        },
        schema_overrides={"timestamp": TIME},
    ).write_parquet(tmp_path / "events.parquet")
    split = SplitParams(name="cold_items", valid_fraction=0.45, test_fraction=0.1)
    split_events(tmp_path / "events.parquet", tmp_path / "split", split, IngestParams().events, True)
    train = read_interactions(tmp_path / "split" / "train.parquet")
    text = np.ones((4, 2), np.float16)
    train = replace(train, content=item_content(["d", "a", "c", "z"], {"text": text}, train.items))
    assert train.items.ids == ["a", "b"] and train.all_items.ids == ["a", "b", "c", "d", "z"]
    judging = read_judging(tmp_path / "split", "valid", train, EvaluateParams(), True)
    assert lists(judging) == {"w": ([2, 1], [3]), "v": ([1, 2], [3])}
    assert judging.item_counts.tolist() == [0, 2, 3, 0, 0, 0]
    # d was not there yet; z, which has no event at all, always was.
    assert judging.first_seen is not None and judging.at_time is not None
    assert [bool(seen <= judging.at_time[0]) for seen in judging.first_seen[1:]] == [True, True, True, False, True]
    scores = np.array([0, 1, 2, 3, 4, 0], np.float32)
    knows, does_not = (Scorer(n, item_scores=scores[: n + 1], needs_history=False) for n in (5, 2))
    assert judging.rank(knows, 3).top_idx.tolist() == [[3, 5, 0], [3, 5, 0]]
    assert judging.rank(does_not, 3).top_idx.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert (judging.mean(knows, "recall@1"), judging.mean(does_not, "recall@1")) == (1, 0)
    assert lists(read_judging(tmp_path / "split", "test", train, EvaluateParams(), True)) == {"u": ([1, 2, 2], [4])}
