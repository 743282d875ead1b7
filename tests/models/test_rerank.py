"""The second stage: learns what the members do not know, is left out where it does not help, and is served as it is."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from recops.bundle import ITEM_FACTS, RERANKER, Bundle, load_bundle, verify, write_manifest
from recops.data.impressions import Impressions
from recops.data.interactions import Catalogue, Interactions
from recops.data.vocabulary import Vocabulary
from recops.errors import BundleError, CallError
from recops.evaluation.judging import Judging
from recops.histories import Histories
from recops.models._listwise import Lists, learn
from recops.models.rerank import Rerank, item_facts
from recops.params import EvaluateParams
from recops.protocols import FitReport, ServingParts
from recops.release.export import FACTS, ITEM_COLUMNS, export_bundle, torch_scorer
from recops.release.parity import check_parity
from recops.runtime import Scorer
from recops.serving.release import Release
from recops.serving.requests import Recommend, parse
from recops.serving.retrieval import recommend

NUM_ITEMS, NUM_USERS, NUM_CATEGORIES, LENGTH = 60, 192, 12, 4
DAY_S = 86_400
LEARNT = {"edges": [], "hidden_dim": 4, "learning_rate": 0.05, "candidates": 40, "epochs": 15}


def taste(is_real: bool = True) -> tuple[Interactions, Judging]:
    """Users who each like the five items of one category, and are judged by another item of it; where the taste is
    not real, by any item. Item i has category i % 12; nothing else tells what is liked."""
    generator = np.random.default_rng(4)
    ids = [f"i{item:02}" for item in range(1, NUM_ITEMS + 1)]
    own = np.arange(NUM_USERS) % NUM_CATEGORIES
    liked = np.array([1 + c + NUM_CATEGORIES * generator.permutation(5) for c in own])
    history, target = (
        liked[:, :LENGTH],
        liked[:, LENGTH] if is_real else generator.integers(1, NUM_ITEMS + 1, NUM_USERS),
    )
    times = np.arange(NUM_USERS * LENGTH).reshape(NUM_USERS, LENGTH) * DAY_S * 1_000_000 // 50
    unknown = np.full(NUM_ITEMS + 1, np.nan)
    train = Interactions(
        user_idx=np.repeat(np.arange(1, NUM_USERS + 1), LENGTH).astype(np.int32),
        item_idx=history.ravel().astype(np.int32),
        timestamp=times.ravel(),
        value=np.full(history.size, np.nan, np.float32),
        weight=np.ones(history.size, np.float32),
        offsets=np.concatenate(([0], np.arange(NUM_USERS + 1) * LENGTH)),
        users=Vocabulary(f"u{user:03}" for user in range(NUM_USERS)),
        items=Vocabulary(ids),
        catalogue=Catalogue(
            unknown,
            unknown.astype(np.float32),
            np.concatenate(([0], np.arange(NUM_ITEMS + 1))),
            (np.arange(NUM_ITEMS) % NUM_CATEGORIES).astype(np.int32),
        ),
    )
    asked_at = np.full(NUM_USERS, times.max() + DAY_S * 1_000_000)
    valid = Judging(
        user_ids=train.users.ids,
        histories=list(history.astype(np.int64)),
        targets=[np.array([item]) for item in target],
        item_counts=np.bincount(train.item_idx, minlength=NUM_ITEMS + 1),
        fallback=np.ones(NUM_ITEMS + 1, np.float32),
        settings=EvaluateParams(),
        remove_seen=True,
        ages=list((asked_at[:, None] - times) // 1_000_000),
        users=np.arange(1, NUM_USERS + 1),
        asked_at=asked_at,
    )
    return train, valid


def members() -> dict[str, ServingParts]:
    """Two that know nothing of the user."""
    generator = np.random.default_rng(2)
    scores = generator.normal(size=(2, NUM_ITEMS + 1)).astype(np.float32)
    scores[:, 0] = 0
    return {name: ServingParts(item_scores=row, needs_history=False) for name, row in zip("ab", scores, strict=True)}


def unfitted(train: Interactions, some: dict[str, ServingParts], **changes: Any) -> Rerank:
    config = Rerank.Config(members=["a", "b"], **{**LEARNT, **changes})
    model = Rerank(config, train.num_users, train.num_items, seed=5)
    model.attach(some, train)
    return model


def blended(train: Interactions, valid: Judging, **changes: Any) -> tuple[Rerank, FitReport]:
    some = members()
    model = unfitted(train, some, **changes)
    return model, model.blend({name: torch_scorer(parts) for name, parts in some.items()}, valid)


@pytest.fixture(scope="module")
def fitted() -> tuple[Rerank, FitReport, Interactions, Judging]:
    train, valid = taste()
    return *blended(train, valid), train, valid


def export(model: Rerank, train: Interactions, out: Path) -> Path:
    items: dict[str, list] = {column: [None] * NUM_ITEMS for column in ITEM_COLUMNS}
    categories = [[f"c{item % NUM_CATEGORIES}"] for item in range(NUM_ITEMS)]
    export_bundle(
        model.parts(),
        out,
        items={**items, "item_id": train.items.ids, "categories": categories},
        fallback=np.zeros(NUM_ITEMS + 1, np.float32),
        profile={},
        facts={**dict.fromkeys(FACTS), "model": "rerank", "remove_seen": True},
        opset=20,
        max_links=300,
    )
    return out


def test_learns_from_features_what_no_member_knows(fitted: tuple[Rerank, FitReport, Interactions, Judging]) -> None:
    model, report, _, valid = fitted
    assert report.figures["stage_one"] < 0.2 and report.figures["reranked"] > 0.6
    assert report.best_metric == report.figures["reranked"] and "reranked" in report.note
    scorer = torch_scorer(model.parts())
    assert valid.mean(scorer, "ndcg@10") > 0.6
    # Whoever has no history is still answered, by what the members say.
    assert np.isfinite(scorer.scores(Histories([np.zeros(0, np.int64)]))[:, 1:]).all()


def test_is_not_served_where_it_does_not_help() -> None:
    train, valid = taste(is_real=False)
    model, report = blended(train, valid, features=["hour", "weekday"])
    assert model.parts().reranker is None
    assert "not served" in report.note and report.best_metric == report.figures["stage_one"]


def test_figures_are_of_users_not_learnt_from() -> None:
    """Chance cannot be learnt: a network that fits what it sees by heart gains nothing that is believed."""
    train, valid = taste(is_real=False)
    few = valid.of(np.arange(0, NUM_USERS, 4))
    _, report = blended(train, few, hidden_dim=32, weight_decay=0.0, epochs=60, patience=60)
    chance = 10 / (NUM_ITEMS - LENGTH) * 0.45
    assert report.figures["reranked"] < 2.2 * chance


@pytest.fixture(scope="module")
def bundle(fitted: tuple[Rerank, FitReport, Interactions, Judging], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(export(fitted[0], fitted[2], tmp_path_factory.mktemp("rerank") / "bundle"))


def test_the_bundle_gives_the_answers_of_torch(
    fitted: tuple[Rerank, FitReport, Interactions, Judging], bundle: Bundle
) -> None:
    model, _, _, valid = fitted
    assert bundle.scorer.reranker is not None
    check_parity(model.parts(), bundle, valid.asked, k=10, remove_seen=True)
    names = set(verify(bundle.folder)["files"])
    assert {RERANKER, *ITEM_FACTS.values()} <= names
    assert bundle.manifest["format_version"] == 3
    signature = bundle.manifest["signature"][RERANKER]
    shapes = [value["shape"][:2] for value in (*signature["inputs"], *signature["outputs"])]
    assert shapes == [["batch", "candidates"]] * 3


def test_a_bundle_without_it_has_the_format_it_always_had(tmp_path: Path) -> None:
    train, _ = taste()
    model = unfitted(train, members())
    bundle = load_bundle(export(model, train, tmp_path / "bundle"))
    assert bundle.manifest["format_version"] == 2 and "rerank" not in bundle.manifest["scoring"]
    assert not set(ITEM_FACTS.values()) & set(bundle.manifest["files"])


@pytest.mark.parametrize("name", ITEM_FACTS)
def test_facts_that_do_not_fit_are_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "bundle"))
    array = np.load(folder / ITEM_FACTS[name])
    np.save(folder / ITEM_FACTS[name], array[:-1])
    write_manifest(folder, {k: v for k, v in bundle.manifest.items() if k not in ("files", "format_version")})
    with pytest.raises(BundleError, match="rerank"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("name", "alter"),
    [
        ("event_times", lambda times: times[::-1].copy()),
        ("event_times", lambda times: times.astype(np.float64)),
        ("prices", lambda prices: prices[:, None]),
        ("category_idx", lambda rows: rows - 1),
        ("category_idx", lambda rows: np.full_like(rows, 2**31 - 1)),  # as many categories would not fit in memory
    ],
)
def test_facts_that_mean_nothing_are_refused(
    bundle: Bundle, tmp_path: Path, name: str, alter: Callable[[np.ndarray], np.ndarray]
) -> None:
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "bundle"))
    np.save(folder / ITEM_FACTS[name], alter(np.load(folder / ITEM_FACTS[name])))
    write_manifest(folder, {k: v for k, v in bundle.manifest.items() if k not in ("files", "format_version")})
    with pytest.raises(BundleError, match=f"rerank_{name}"):
        load_bundle(folder)


def test_features_of_another_recops_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "bundle"))
    facts = {k: v for k, v in bundle.manifest.items() if k not in ("files", "format_version")}
    reranking = {**facts["scoring"]["rerank"], "features": ["moon"]}
    write_manifest(folder, {**facts, "scoring": {**facts["scoring"], "rerank": reranking}})
    with pytest.raises(BundleError, match="moon"):
        load_bundle(folder)


def test_filters_still_hold_after_it(fitted: tuple[Rerank, FitReport, Interactions, Judging]) -> None:
    """Every item has a score, whatever its place, so that a mask leaves the order of all others as it was."""
    model, _, _, valid = fitted
    scores = torch_scorer(model.parts()).scores(valid.asked[:1])[0]
    assert np.isfinite(scores[1:]).all()
    allowed = np.arange(NUM_ITEMS + 1) % 3 == 1
    order = [row for row in np.argsort(-scores, kind="stable") if allowed[row]]
    masked = np.where(allowed, scores, -np.inf)
    assert np.argsort(-masked, kind="stable")[: allowed.sum()].tolist() == order


def test_a_request_with_a_filter_gets_what_is_best_of_the_rest(bundle: Bundle) -> None:
    served = Release(bundle, {})
    assert served.uses_time
    events = [{"item_id": item, "timestamp": "2024-01-01T00:00:00Z"} for item in ("i01", "i13", "i25")]
    asked = {"history": events, "k": 20}
    answers = [
        recommend(served, parse(Recommend, json.dumps({**asked, **more}).encode()), None)["items"]
        for more in ({}, {"filters": {"categories": ["c0", "c5"]}})
    ]
    everything, some = ([answer["item_id"] for answer in items] for items in answers)
    assert {"i37", "i49"} == set(everything[:2])  # those left of the category of the history
    allowed = [item for item in everything if int(item[1:]) % NUM_CATEGORIES in (1, 6)]
    assert some[: len(allowed)] == allowed and len(some) == 7
    assert all(np.diff([answer["score"] for answer in items]).max() <= 0 for items in answers)


def test_seen_items_are_candidates_only_where_they_may_be_shown() -> None:
    """Users come back for what they had last, which a fusion of strangers cannot know."""
    train, valid = taste()
    back = replace(valid, remove_seen=False, targets=[history[-1:] for history in valid.histories])
    model, report = blended(train, back, candidates=NUM_ITEMS, epochs=60)
    assert report.figures["reranked"] > 0.8
    again = unfitted(train, members())
    again.load_state(model.state())
    assert again.parts().reranker is not None and not again.parts().reranker.remove_seen
    scorer = torch_scorer(again.parts())
    assert (scorer.scores(back.asked).argmax(1) == [history[-1] for history in back.histories]).mean() > 0.5


def test_weights_stay_and_facts_are_of_what_it_is_attached_to(
    fitted: tuple[Rerank, FitReport, Interactions, Judging],
) -> None:
    """As a release fits the members again on the whole log, perhaps without one of them."""
    model, _, train, _ = fitted
    whole = replace(
        train,
        item_idx=np.append(train.item_idx, np.int32(7)),
        user_idx=np.append(train.user_idx, train.user_idx[-1]),
        timestamp=np.append(train.timestamp, train.timestamp[-1] + 1),
    )
    again = unfitted(whole, {"b": members()["b"]})
    state = model.state()
    again.load_state({**state, "weights": np.ones((1, 1), np.float32), "edges": np.array([], np.int64)})
    reranker = again.parts().reranker
    assert reranker is not None and reranker.members == (-1, 0)
    assert len(reranker.facts.event_times) == len(train) + 1
    found = {name: value for name, value in again.state().items() if name.startswith("reranker.")}
    assert found and all(np.array_equal(value, state[name]) for name, value in found.items())
    scores = torch_scorer(again.parts()).scores([np.array([1, 13])])
    assert np.isfinite(scores[:, 1:]).all()


def test_a_log_without_times_or_catalogue_is_no_hindrance() -> None:
    train, valid = taste()
    bare = replace(train, timestamp=None, catalogue=None)
    facts = item_facts(bare, bare.num_items)
    assert not len(facts.event_times) and np.diff(facts.offsets).sum() == len(bare)
    _, report = blended(bare, replace(valid, ages=None, asked_at=None))
    assert np.isfinite(report.best_metric or np.nan)


def test_without_validation_users_it_is_a_fusion() -> None:
    train, valid = taste()
    model, report = blended(train, valid.of(np.zeros(0, np.int64)))
    assert report.best_metric is None and model.parts().reranker is None


def shown(num_lists: int, length: int = 6) -> tuple[Lists, np.ndarray]:
    """Lists in which what is good stands low, and hardly anyone looks low: relevance is column 0 of the features, and
    the ranker that made the lists went by its opposite. Returns relevance too, [U, C]."""
    generator = np.random.default_rng(11)
    relevance = generator.uniform(0, 1, (num_lists, length))
    order = np.argsort(relevance + 0.3 * generator.normal(size=relevance.shape), axis=1)
    position = np.argsort(order, axis=1) + 1
    looked = generator.random(relevance.shape) < 1 / position**2.0
    chosen = looked & (generator.random(relevance.shape) < 0.1 + 0.8 * relevance)
    lists = Lists(
        features=relevance[:, :, None].astype(np.float32),
        scores=np.zeros(relevance.shape, np.float32),
        fade=np.ones(relevance.shape, np.float32),
        is_there=np.ones(relevance.shape, bool),
        is_chosen=chosen,
        position=position,
    )
    return lists, relevance


@pytest.mark.parametrize("corrects_position", [True, False])
def test_position_bias_is_corrected(corrects_position: bool) -> None:
    lists, relevance = shown(2_000)
    options = {"hidden_dim": 2, "learning_rate": 0.05, "weight_decay": 0.0, "epochs": 12, "patience": 3, "seed": 1}
    network = learn(lists, corrects_position=corrects_position, **options)
    with torch.no_grad():
        said = network(torch.from_numpy(lists.features), torch.from_numpy(lists.fade)).numpy()
    within = relevance - relevance.mean(1, keepdims=True)
    agreement = np.corrcoef(said.ravel(), within.ravel())[0, 1]
    assert agreement > 0.95 if corrects_position else agreement < -0.5


def test_learns_from_what_was_shown() -> None:
    """The whole model on a log of impressions: of the lists' items those of the own category were chosen."""
    train, valid = taste()
    generator = np.random.default_rng(8)
    rows = np.array([[target[0], *(1 + generator.permutation(NUM_ITEMS)[:5])] for target in valid.targets], np.int64)
    user = np.arange(NUM_USERS)
    log = Impressions(user, rows, np.tile(np.arange(1, 7), (NUM_USERS, 1)), rows == rows[:, :1])
    _, report = blended(train, replace(valid, impressions=log), learn_from="impressions", corrects_position=False)
    assert report.figures["reranked"] > 0.6
    with pytest.raises(CallError, match="impressions"):
        blended(train, valid, learn_from="impressions")


def test_impressions_of_some_users_are_counted_anew() -> None:
    log = Impressions(np.array([0, 2, 2, 5]), np.arange(4)[:, None], np.ones((4, 1), int), np.ones((4, 1), bool))
    some = log.of(np.array([2, 4, 5]))
    assert some.user.tolist() == [0, 0, 2] and some.rows.ravel().tolist() == [1, 2, 3]


def test_lists_that_teach_nothing_add_nothing() -> None:
    lists, _ = shown(5)
    silent = replace(lists, is_chosen=np.zeros_like(lists.is_chosen))
    network = learn(
        silent, hidden_dim=2, learning_rate=1, weight_decay=0, epochs=3, patience=1, corrects_position=True, seed=0
    )
    with torch.no_grad():
        assert not network(torch.from_numpy(lists.features), torch.from_numpy(lists.fade)).any()


@pytest.mark.parametrize("features", [["blend", "blend"], ["nothing"], []])
def test_features_are_known_ones(features: list[str]) -> None:
    with pytest.raises(ValidationError, match="features"):
        Rerank.Config(features=features)


def test_more_candidates_than_memory_holds_the_pairs_of_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"candidates\n.*less than or equal to 2000"):
        Rerank.Config(candidates=50_000)


def test_price_is_a_feature_only_where_asked_for() -> None:
    assert "price" not in Rerank.Config().features
    assert "only as it is now" in str(Rerank.Config.model_fields["features"].description)


def test_members_scores_reach_the_columns(fitted: tuple[Rerank, FitReport, Interactions, Judging]) -> None:
    reranker = fitted[0].parts().reranker
    assert reranker is not None
    named = [name for name, _ in fitted[0].parts().members]
    assert [named[m] for m in reranker.members if m >= 0] == [n for n in ("a", "b") if n in named]
    assert isinstance(torch_scorer(fitted[0].parts()), Scorer)


@pytest.mark.parametrize("there", [np.nan, 0.3])
def test_what_never_differed_while_learning_counts_for_nothing_later(there: float) -> None:
    """The time of a request to a model of a log without times: the service knows it, and nothing was learnt of it."""
    lists, _ = shown(40)
    taught = np.concatenate([lists.features, np.full_like(lists.features, there)], axis=2)
    options = {"hidden_dim": 4, "learning_rate": 0.1, "weight_decay": 0.0, "epochs": 5, "patience": 5, "seed": 1}
    network = learn(replace(lists, features=taught), corrects_position=True, **options)
    generator = np.random.default_rng(3)
    served = np.concatenate([lists.features, generator.normal(5, 3, lists.features.shape)], axis=2, dtype=np.float32)
    with torch.no_grad():
        said, before = (network(torch.from_numpy(f), torch.from_numpy(lists.fade)).numpy() for f in (served, taught))
    assert np.abs(before).max() > 0
    np.testing.assert_array_equal(said, before)
