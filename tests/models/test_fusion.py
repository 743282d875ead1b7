"""Weights of a fusion, on validation users whose best answer is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from recops.evaluation.judging import Judging
from recops.links import Links
from recops.models.fusion import Fusion, _candidates, _drawn
from recops.params import EvaluateParams
from recops.protocols import ServingParts
from recops.release.export import torch_scorer
from recops.runtime import Scorer

NUM_ITEMS, NUM_USERS = 40, 400


def by_item(scores: np.ndarray) -> ServingParts:
    return ServingParts(item_scores=np.concatenate(([0], scores)).astype(np.float32), needs_history=False)


def links_to(table: np.ndarray) -> ServingParts:
    """Links [N, N] of items 1..N as a model of links alone; only the last event votes."""
    num_items = len(table)
    rows, columns = np.nonzero(table)
    indptr = np.concatenate(([0], np.searchsorted(rows, np.arange(num_items + 1)))).astype(np.int64)
    links = (indptr, (columns + 1).astype(np.int32), table[rows, columns].astype(np.float32))
    return ServingParts(links=links, link_window=1)


def judging(histories: list[np.ndarray], targets: list[int], **changes) -> Judging:
    return Judging(
        user_ids=[f"u{user}" for user in range(len(targets))],
        histories=histories,
        targets=[np.array([target]) for target in targets],
        item_counts=np.ones(NUM_ITEMS + 1, np.int64),
        fallback=np.ones(NUM_ITEMS + 1, np.float32),
        settings=EvaluateParams(),
        remove_seen=True,
        **changes,
    )


def blended(members: dict[str, ServingParts], valid: Judging, **options):
    model = Fusion(Fusion.Config(members=list(members), **options), 5, NUM_ITEMS, seed=1)
    model.attach(members)
    report = model.blend({name: torch_scorer(parts) for name, parts in members.items()}, valid)
    return model, report


def circle() -> tuple[ServingParts, list[np.ndarray], list[int]]:
    """A model that says the item after the last one, and users of whom that is true."""
    table = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for item in range(NUM_ITEMS):
        for step in range(1, 20):
            table[item, (item + step) % NUM_ITEMS] = 20 - step
    generator = np.random.default_rng(3)
    last = generator.integers(1, NUM_ITEMS + 1, NUM_USERS)
    return links_to(table), [np.array([item]) for item in last], [int(item % NUM_ITEMS) + 1 for item in last]


@pytest.mark.parametrize("weights", ["ndcg", "likelihood"])
@pytest.mark.parametrize("calibration", ["zscore", "rank"])
def test_noise_gets_no_weight_worth_speaking_of(weights: str, calibration: str) -> None:
    right, histories, targets = circle()
    noise = by_item(np.random.default_rng(0).normal(size=NUM_ITEMS))
    model, report = blended(
        {"noise": noise, "right": right}, judging(histories, targets), weights=weights, calibration=calibration
    )
    assert report.best_metric == pytest.approx(1)
    scorer = torch_scorer(model.parts())
    assert judging(histories, targets).mean(scorer, "ndcg@10") == pytest.approx(1)
    assert model.state()["weights"].sum() == pytest.approx(1)


@pytest.mark.parametrize("weights", ["ndcg", "likelihood"])
def test_two_halves_of_the_truth_are_better_than_either(weights: str) -> None:
    """One member knows the block of ten that the next item lies in, the other its place in the block."""
    items = np.arange(NUM_ITEMS)
    generator = np.random.default_rng(1)
    last, target = generator.integers(0, NUM_ITEMS, NUM_USERS), np.zeros(NUM_USERS, int)
    target = (last // 10 + 1) % 4 * 10 + (last + 3) % 10
    block = (items[None] // 10 == (items[:, None] // 10 + 1) % 4) + 0.001
    place = (items[None] % 10 == (items[:, None] + 3) % 10) + 0.001
    valid = judging([np.array([item + 1]) for item in last], [int(t) + 1 for t in target])
    members = {"block": links_to(block), "place": links_to(place)}
    alone = [valid.mean(torch_scorer(parts), "ndcg@10") for parts in members.values()]
    _, report = blended(members, valid, weights=weights)
    assert report.best_metric is not None and report.best_metric > 0.95 > max(alone)


def test_the_figure_is_cross_fitted() -> None:
    """Members that are noise to each user: weights sought on all users fit some of it, and must not be believed."""
    generator = np.random.default_rng(5)
    members = {f"m{m}": links_to(generator.normal(size=(NUM_ITEMS, NUM_ITEMS))) for m in range(6)}
    histories = [np.array([1 + user % NUM_ITEMS]) for user in range(60)]
    valid = judging(histories, generator.integers(1, NUM_ITEMS + 1, 60).tolist())
    model, report = blended(members, valid, edges=[])
    fitted = valid.mean(torch_scorer(model.parts()), "ndcg@10")
    assert report.best_metric is not None and report.best_metric < fitted - 0.01


def test_whom_no_weighted_member_answers_is_judged_by_the_fallback() -> None:
    """Half have no history; the only member that answers them is worth nothing, the fallback knows what they take."""
    right, histories, targets = circle()
    some = [history if user % 2 else history[:0] for user, history in enumerate(histories)]
    wanted = [target if user % 2 else 7 for user, target in enumerate(targets)]
    fallback = np.zeros(NUM_ITEMS + 1, np.float32)
    fallback[7] = 1
    valid = replace(judging(some, wanted), fallback=fallback)
    noise = by_item(np.where(np.arange(1, NUM_ITEMS + 1) == 7, -9, np.random.default_rng(0).normal(size=NUM_ITEMS)))
    model, report = blended({"right": right, "noise": noise}, valid, edges=[])
    found = _candidates([torch_scorer(right), torch_scorer(noise)], valid, "zscore", 10)
    alone = np.tile(np.array([1, 0], np.float32), (NUM_USERS, 1))
    assert model._judged(found, alone, valid, "ndcg@10") == pytest.approx(1)
    assert report.best_metric is not None


def test_weights_by_length_of_history_where_that_helps() -> None:
    """Short histories are followed by what is popular, long ones by the next item."""
    right, short, _ = circle()
    popular = by_item(np.arange(NUM_ITEMS, 0, -1))
    long = [np.concatenate([history] * 12) for history in short]
    _, _, targets = circle()
    first = [int(np.setdiff1d([1, 2], history)[0]) for history in short]
    valid = judging([*short, *long], [*first, *targets])
    model, report = blended({"right": right, "popular": popular}, valid, min_segment_users=50)
    assert model.parts().fusion.edges == (10, 50)
    assert report.best_metric is not None and report.best_metric > 0.9
    lists = torch_scorer(model.parts()).scores([np.array([20]), np.full(12, 20)]).argmax(1)
    assert lists.tolist() == [1, 21]
    common, worse = blended({"right": right, "popular": popular}, valid, edges=[])
    assert common.parts().fusion.edges == () and worse.best_metric < report.best_metric


def test_unknown_targets_are_misses_and_items_not_yet_there_no_candidates() -> None:
    right, histories, targets = circle()
    half = [target if user % 2 else 0 for user, target in enumerate(targets)]
    _, report = blended({"right": right}, judging(histories, half))
    assert report.best_metric == pytest.approx(0.5, abs=0.05)
    # All but the target come later: any list then begins with it.
    first_seen = np.full(NUM_ITEMS + 1, 10)
    first_seen[targets[0]] = 0
    valid = judging(histories[:1] * 8, targets[:1] * 8, first_seen=first_seen, at_time=np.full(8, 5))
    _, report = blended({"flat": by_item(np.arange(NUM_ITEMS))}, valid)
    assert report.best_metric == 1


def test_without_validation_users_all_weigh_the_same() -> None:
    right, _, _ = circle()
    model, report = blended({"a": right, "b": right, "c": right, "d": right}, judging([], []))
    assert report.best_metric is None and model.state()["weights"].tolist() == [[0.25] * 4]


def test_members_without_weight_are_not_served() -> None:
    right, histories, targets = circle()
    against = by_item(np.zeros(NUM_ITEMS))
    model, _ = blended({"nothing": against, "right": right}, judging(histories, targets))
    assert [name for name, _ in model.parts().members] == ["right"]


@pytest.mark.parametrize(
    "wrong",
    [{"members": []}, {"members": ["ease", "ease"]}, {"members": ["fusion"]}, {"edges": [5, 3]}, {"edges": [0]}],
)
def test_wrong_settings(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Fusion.Config(**wrong)


def test_ndcg_of_candidates_is_that_of_lists() -> None:
    """The quick figure that weights are sought by, against the evaluation's own."""
    generator = np.random.default_rng(2)
    members = {name: by_item(generator.integers(0, 9, NUM_ITEMS)) for name in "ab"}
    histories = [np.array([1 + user % NUM_ITEMS]) for user in range(30)]
    targets = [np.unique(generator.integers(0, NUM_ITEMS + 1, 1 + user % 4)) for user in range(30)]
    valid = judging(histories, [1] * 30)
    valid = Judging(**{**vars(valid), "targets": targets})
    scorers = {name: torch_scorer(parts) for name, parts in members.items()}
    found = _candidates(list(scorers.values()), valid, "zscore", 10)
    for name, scorer in scorers.items():
        weights = np.array([name == "a", name == "b"], np.float64)
        assert math.isclose(found.ndcg(weights, 10), valid.mean(scorer, "ndcg@10"), rel_tol=1e-9)


@pytest.mark.parametrize("weights", ["ndcg", "likelihood"])
def test_users_whom_no_member_answers_are_judged_by_the_fallback(weights: str) -> None:
    """As every single model is: item 7 is what is popular, and what the newcomers went for."""
    right, histories, targets = circle()
    newcomers = [np.zeros(0, np.int64)] * 100
    popular = np.zeros(NUM_ITEMS + 1, np.float32)
    popular[7] = 1
    valid = replace(judging([*histories[:100], *newcomers], [*targets[:100], *[7] * 100]), fallback=popular)
    model, report = blended({"right": right}, valid, weights=weights)
    scorer = torch_scorer(model.parts())
    assert report.best_metric == pytest.approx(valid.mean(scorer, "ndcg@10")) == pytest.approx(1)


def test_a_target_that_no_member_puts_high_is_no_hit_of_a_long_list() -> None:
    """Of a thousand items in random order a list of 20 holds one in fifty."""
    num_items = 1000
    generator = np.random.default_rng(0)
    scorers = {
        name: Scorer(
            num_items, item_scores=generator.normal(size=num_items + 1).astype(np.float32), needs_history=False
        )
        for name in "ab"
    }
    targets = [generator.integers(1, num_items + 1, 1) for _ in range(400)]
    valid = Judging(
        user_ids=[f"u{user}" for user in range(400)],
        histories=[np.array([1])] * 400,
        targets=targets,
        item_counts=np.ones(num_items + 1, np.int64),
        fallback=np.ones(num_items + 1, np.float32),
        settings=EvaluateParams(metric="recall@20", k=[20]),
        remove_seen=True,
    )
    model = Fusion(Fusion.Config(members=["a", "b"]), 5, num_items, seed=1)
    model.attach({name: ServingParts(item_scores=s.item_scores, needs_history=False) for name, s in scorers.items()})
    report = model.blend(scorers, valid)
    assert report.best_metric == pytest.approx(0.02, abs=0.02)


def test_many_targets_make_fewer_users() -> None:
    valid = judging([np.array([1])] * 30, [1] * 30)
    crowded = replace(valid, targets=[np.arange(10_000)] * 30)
    rng = np.random.default_rng(1)
    assert len(_drawn(valid, 20, 2, rng)) == 20
    assert len(_drawn(crowded, 20, 2, rng)) == 1


def test_weights_that_leave_a_user_unanswered_are_judged_by_the_fallback():
    """The fallback ranks the target last, where a tie of all candidates would call it the best by its row."""
    num_items = 20
    links = Links(np.array([0, 0, *[2] * num_items], np.int64), np.array([2, 3], np.int32), np.ones(2, np.float32))
    silent = Scorer(num_items, links=links)
    popular = Scorer(num_items, item_scores=np.arange(num_items + 1, 0, -1).astype(np.float32), needs_history=False)
    fallback = np.arange(num_items + 1).astype(np.float32)
    valid = Judging(
        user_ids=["u"],
        histories=[np.empty(0, np.int64)],
        targets=[np.array([1])],
        item_counts=np.ones(num_items + 1, np.int64),
        fallback=fallback,
        settings=EvaluateParams(),
        remove_seen=True,
    )
    found = _candidates([silent, popular], valid, "zscore", 10)
    assert found.ndcg(np.array([1.0, 0.0]), 10) == 0
    assert found.ndcg(np.array([0.0, 1.0]), 10) == 1


def test_a_member_that_knows_content_is_heard_of_later_items() -> None:
    """It is noise to these users, and served all the same: nothing else can score what comes after the export."""
    right, histories, targets = circle()
    noise = by_item(np.random.default_rng(0).normal(size=NUM_ITEMS))
    valid = judging(histories, targets)
    deaf, _ = blended({"right": right, "noise": noise}, valid, edges=[])
    assert [name for name, _ in deaf.parts().members] == ["right"]
    model, _ = blended({"right": right, "noise": replace(noise, content=("text",))}, valid, edges=[])
    assert [name for name, _ in model.parts().members] == ["right", "noise"]
    np.testing.assert_allclose(model.parts().fusion.weights, [[0.99, 0.01]], rtol=1e-5)
