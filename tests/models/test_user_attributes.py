"""Users without a history, told by their attributes: trained, judged, exported and served."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recops.bundle import load_bundle
from recops.calibration import Fusion
from recops.data.content import item_content
from recops.data.interactions import Interactions
from recops.errors import RefusedError
from recops.histories import Histories
from recops.models.neural_cf import NeuralCf
from recops.models.two_tower import TwoTower
from recops.protocols import ServingParts
from recops.release.export import export_bundle, torch_scorer
from recops.release.parity import measure_parity
from recops.runtime import Scorer
from recops.serving.release import Release
from recops.serving.requests import Recommend
from recops.serving.retrieval import Stored, recommend
from recops.training.loop import fit_model, new_model
from tests.models.small_logs import positives
from tests.release.small_bundles import facts, items

NUM_GROUPS, GROUP, NUM_USERS = 3, 8, 90
NEW = ["x0", "x1", "x2"]  # one of each group, without any event


@cache
def planted() -> Interactions:
    """Users who take items of one group each, which is what their attributes say."""
    generator = np.random.default_rng(2)
    rows = [
        (f"u{user:02}", f"i{user % NUM_GROUPS}{item}")
        for user in range(NUM_USERS)
        for item in generator.permutation(GROUP)[:6]
    ]
    train = positives(rows)
    ids = [*train.users.ids, *NEW, "silent"]
    vectors = np.eye(NUM_GROUPS)[[int(user_id[1:]) % NUM_GROUPS for user_id in ids[:-1]]]
    told = item_content(ids, {"attributes": np.vstack([vectors, np.zeros(NUM_GROUPS)])}, train.users)
    return replace(train, user_attributes=told)


def config(**settings: Any) -> TwoTower.Config:
    keys: dict[str, Any] = {"embedding_dim": 16, "epochs": 8, "batch_size": 256, "learning_rate": 0.02}
    return TwoTower.Config(**{**keys, "user_attributes": True, "history_dropout": 0.3, **settings})


@cache
def fitted() -> TwoTower:
    model = new_model(TwoTower, config(), planted(), seed=1)
    fit_model(model, planted(), None, seed=1, threads=1)
    assert isinstance(model, TwoTower)
    return model


def own_share(scorer: Scorer, asked: Histories, groups: list[int]) -> float:
    best = np.argsort(-scorer.scores(asked)[:, 1:], axis=1)[:, :5]
    return float(
        np.mean(
            [[planted().items.ids[i][1] == str(group) for i in row] for row, group in zip(best, groups, strict=True)]
        )
    )


def new_users() -> Histories:
    return Histories([np.zeros(0, np.int64)] * 3, users=planted().all_users.to_idx(NEW).astype(np.int64))


def test_new_users_follow_those_trained_on() -> None:
    train = planted()
    assert train.all_users.ids == [*train.users.ids, *NEW]  # and nobody of whom nothing is known
    assert replace(train, user_attributes=None).all_users is train.users


def test_finds_what_users_of_the_same_attributes_take() -> None:
    scorer = torch_scorer(fitted().parts())
    assert scorer.answers(new_users()).all()
    assert own_share(scorer, new_users(), [0, 1, 2]) == 1


def test_a_history_says_more_than_attributes() -> None:
    train = planted()
    one_of_each = Histories([train.items.to_idx(["i20"]).astype(np.int64)] * 3, users=new_users().users)
    scores = torch_scorer(fitted().parts()).scores(one_of_each)
    np.testing.assert_allclose(scores[1:, 1:], scores[:1, 1:].repeat(2, axis=0), rtol=1e-5)


def test_state_round_trip_needs_the_attributes_alone() -> None:
    again = new_model(TwoTower, config(), planted(), seed=2)
    again.load_state(fitted().state())
    assert "attributes" not in again.state()
    expected = torch_scorer(fitted().parts()).scores(new_users())
    np.testing.assert_array_equal(torch_scorer(again.parts()).scores(new_users()), expected)


def test_some_targets_are_left_to_attributes() -> None:
    model = new_model(TwoTower, config(batch_size=10_000), planted(), seed=1)
    model.prepare(planted())  # type: ignore[attr-defined]
    (batch,) = model.batches(torch.Generator().manual_seed(0))  # type: ignore[attr-defined]
    told = batch["user"][batch["user"] > 0]
    assert 0.2 < len(told) / len(batch["user"]) < 0.4
    assert told.max() <= NUM_USERS


def test_without_attributes_nothing_is_fitted() -> None:
    with pytest.raises(RefusedError, match=r"encode\.users"):
        new_model(TwoTower, config(), replace(planted(), user_attributes=None), seed=1)


def export(parts: ServingParts, folder: Path) -> None:
    export_bundle(
        parts,
        folder,
        items=items(*planted().items.ids),
        users=planted().all_users.ids,
        fallback=np.arange(parts.num_items + 1, dtype=np.float32),
        profile={},
        facts=facts(),
        opset=20,
        max_links=300,
    )


def test_served_by_attributes_until_there_is_a_history(tmp_path: Path) -> None:
    export(fitted().parts(), tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest["format_version"] == 5
    release = Release(bundle, {})

    def asked(user_id: str | None = None, history: list[str] | None = None, stored: Stored | None = None) -> Any:
        request = Recommend.model_validate({"user_id": user_id, "history": history, "k": 5})
        answer = recommend(release, request, stored)
        return answer["source"], {item["item_id"][1] for item in answer["items"]}

    assert asked("x1") == ("cold-start", {"1"})
    assert asked("x1", ["i20"]) == ("cold-start", {"2"})
    assert asked("x1", stored=Stored(["i20"])) == ("model", {"2"})
    assert asked("nobody")[0] == asked("silent")[0] == "fallback"


def test_beside_a_model_that_knows_users_by_their_id(tmp_path: Path) -> None:
    train = planted()
    ids = NeuralCf(NeuralCf.Config(embedding_dim=4, epochs=1), train.num_users, train.num_items, seed=1)
    members = [("two_tower", fitted().parts()), ("neural_cf", ids.parts())]
    parts = ServingParts(members=members, fusion=Fusion(np.array([[0.5, 0.5]], np.float32)))
    export(parts, tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    assert measure_parity(parts, bundle, new_users(), 10, True)["max_abs_difference"] < 1e-4
    assert own_share(bundle.scorer, new_users(), [0, 1, 2]) == 1
