"""Models with item content: items never trained on are scored by what the encoders say, and served as evaluated."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recops.bundle import load_bundle
from recops.calibration import Fusion
from recops.data.content import ItemContent, item_content
from recops.data.interactions import Interactions
from recops.errors import CallError, RefusedError
from recops.links import Links
from recops.models._content import Projection
from recops.models.content_knn import ContentKnn
from recops.models.ease import Ease
from recops.plugins import load
from recops.protocols import ServingParts
from recops.release.export import FACTS, ITEM_COLUMNS, export_bundle, torch_scorer
from recops.release.parity import measure_parity
from recops.runtime import Scorer
from recops.training.loop import fit_model, new_model
from tests.models.small_logs import positives

NUM_GROUPS, GROUP, NUM_USERS = 3, 8, 90
COLD = [f"z{group}{i}" for group in range(NUM_GROUPS) for i in range(2)]  # two new items of each group
WITH_CONTENT = ("ligr", "two_tower", "ligr joint", "two_tower joint", "spectral")


@cache
def planted() -> Interactions:
    """Users who take items of one group each, in any order; text tells the group, the image of some items too."""
    generator = np.random.default_rng(2)
    rows = [
        (f"u{user:02}", f"i{user % NUM_GROUPS}{item}")
        for user in range(NUM_USERS)
        for item in generator.permutation(GROUP)[:6]
    ]
    train = positives(rows)
    ids = [*train.items.ids, *COLD, "silent"]
    group = np.array([int(item_id[1]) for item_id in ids[:-1]])
    text = np.eye(NUM_GROUPS + 2)[group] + generator.normal(0, 0.1, (len(group), NUM_GROUPS + 2))
    image = 3 + np.eye(NUM_GROUPS)[group] * (np.arange(len(group)) % 2)[:, None]
    image[::4] = 0
    vectors = {"text": np.vstack([text, text[:1] * 0]), "image": np.vstack([image, image[:1] * 0])}
    return replace(train, content=item_content(ids, vectors, train.items, {"text": {"name": "text", "version": "1"}}))


@cache
def fitted(name: str, **settings: Any) -> Any:
    """A model by its name; `joint` after it means trained together with the projection of content."""
    name, _, fit = name.partition(" ")
    kind = load("models", name)
    keys: dict[str, Any] = {"content": ["text", "image"], "embedding_dim": 16, "num_blocks": 1, "precision": "float32"}
    keys |= {"epochs": 8, "batch_size": 256, "learning_rate": 0.02, "id_dropout": 0.3, "content_fit": fit or "after"}
    keys |= {"num_factors": 8, "max_links": 4, **settings}
    keys = {key: value for key, value in keys.items() if key in kind.Config.model_fields}
    model = new_model(kind, kind.Config(**keys), planted(), seed=1)
    fit_model(model, planted(), None, seed=1, threads=1)
    return model


def cold_rows(group: int) -> np.ndarray:
    return planted().all_items.to_idx([i for i in COLD if i[1] == str(group)])


def own_share(scorer: Scorer) -> float:
    """How often, of the new items, those of the user's group come first."""
    train = planted()
    users = range(1, train.num_users + 1)
    scores = scorer.scores([train.history(user).astype(np.int64) for user in users])
    new = np.arange(train.num_items + 1, len(train.all_items) + 1)
    wanted = [cold_rows(int(user_id[1:]) % NUM_GROUPS) for user_id in train.users.ids]
    found = [new[np.argsort(-row[new])[:2]] for row in scores]
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(found, wanted, strict=True)]))


def test_new_items_have_the_rows_after_those_trained_on() -> None:
    train = planted()
    assert train.all_items.ids[: train.num_items] == train.items.ids
    assert train.all_items.ids[train.num_items :] == COLD  # and none of which nothing is known
    content = train.content
    assert content is not None and content.vectors["text"].shape == (len(train.all_items) + 1, NUM_GROUPS + 2)
    assert not content.vectors["text"][0].any()


def test_content_is_put_in_the_rows_of_its_items() -> None:
    found = item_content(
        ["b", "c", "a"], {"text": np.array([[1.0], [2.0], [0.0]])}, planted().items.__class__(["a", "d"])
    )
    assert found.items.ids == ["a", "d", "b", "c"]
    assert found.vectors["text"].tolist() == [[0], [0], [0], [1], [2]]
    with pytest.raises(CallError, match="image"):
        found.blocks(["image"], "train.models.ligr.content")


def test_projection_centres_what_is_said_and_adds_nothing_where_nothing_is() -> None:
    projection = Projection([2, 1], 3, 0)
    projection.standardise_on([np.array([[1.0, 3], [3, 3], [0, 0]]), np.array([[0.0], [0], [0]])])
    torch.testing.assert_close(projection.mean, torch.tensor([2.0, 3, 0]))
    torch.testing.assert_close(projection.scale, torch.ones(3))
    with torch.no_grad():
        projection.outer.weight.copy_(torch.eye(3))
        projection.outer.bias.fill_(0.5)
        made = projection(torch.tensor([[1.0, 3, 0], [0, 0, 4]]))
    torch.testing.assert_close(made, torch.tensor([[-0.5, 0.5, 0.5], [0.5, 0.5, 4.5]]))


@pytest.mark.parametrize("name", [*WITH_CONTENT, "content_knn"])
def test_finds_new_items_of_the_users_taste(name: str) -> None:
    assert own_share(torch_scorer(fitted(name).parts())) > 0.8  # 1 in 3 by chance


@pytest.mark.parametrize("name", WITH_CONTENT)
def test_state_round_trip_needs_the_content_alone(name: str) -> None:
    again = new_model(type(fitted(name)), fitted(name).config, planted(), seed=2)
    again.load_state(fitted(name).state())
    assert not any("content" in key for key in again.state())
    history = [np.array([3, 25, 1])]
    expected = torch_scorer(fitted(name).parts()).scores(history)
    np.testing.assert_array_equal(torch_scorer(again.parts()).scores(history), expected)


def test_ids_are_dropped_in_training_alone() -> None:
    module = fitted("ligr joint").module
    num_trained = planted().num_items
    projected = module.projection(module.content.float()).detach()
    torch.testing.assert_close(module.eval().table()[num_trained + 1 :], projected[num_trained + 1 :])
    torch.testing.assert_close(
        module.table()[1 : num_trained + 1], projected[1 : num_trained + 1] + module.items.weight[1:]
    )
    table = module.train().table()
    assert len(table) == num_trained + 1 and not table[0].any()
    is_dropped = (table == projected[: num_trained + 1]).all(1)[1:]
    assert 0 < is_dropped.sum() < num_trained
    module.eval()


def test_new_items_cost_the_others_nothing() -> None:
    train = planted()
    histories = [train.history(user).astype(np.int64) for user in (1, 2, 3)]
    for name in ("ligr", "two_tower", "spectral"):
        own = torch_scorer(fitted(name).parts()).scores(histories)
        plain = torch_scorer(fitted(name, content=()).parts()).scores(histories)
        assert own.shape[1] == len(train.all_items) + 1 and plain.shape[1] == train.num_items + 1
        np.testing.assert_allclose(own[:, 1 : plain.shape[1]], plain[:, 1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WITH_CONTENT)
def test_weight_scales_the_scores_of_new_items_alone(name: str) -> None:
    train = planted()
    model = fitted(name)
    twice = new_model(type(model), model.config.model_copy(update={"new_item_weight": 2.0}), train, seed=1)
    twice.load_state(model.state())
    histories = [train.history(1).astype(np.int64), cold_rows(1).astype(np.int64)]
    before, after = (torch_scorer(one.parts()).scores(histories) for one in (model, twice))
    new = slice(train.num_items + 1, None)
    np.testing.assert_allclose(after[:, new], 2 * before[:, new], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after[:, 1 : new.start], before[:, 1 : new.start], rtol=1e-5)
    assert train.content is not None
    twin = {encoder: vectors[cold_rows(2)] for encoder, vectors in train.content.vectors.items()}
    wider = torch_scorer(twice.parts()).with_items(twin, train.content.vectors).scores(histories)
    np.testing.assert_allclose(wider[:, -2:], after[:, cold_rows(2)], rtol=1e-3, atol=1e-4)


def test_without_content_nothing_is_fitted() -> None:
    kind = load("models", "sasrec")
    with pytest.raises(RefusedError, match=r"encode\.encoders"):
        new_model(kind, kind.Config(content=["text"]), replace(planted(), content=None), seed=1)


def test_linear_members_leave_new_items_to_those_that_know_them() -> None:
    """As if they were not there for new items; where they say 0 or the least, the order of new items would differ from
    that of the content model only by chance, and their place among all would be their worst or best. Items that are
    told later stand in the content model's order too, and none above the best."""
    train = planted()
    ease = Ease(Ease.Config(regularization=1.0), train.num_users, train.num_items, seed=1)
    ease.fit(train)
    content = torch_scorer(fitted("ligr").parts())
    scorer = Scorer(
        content.num_items,
        members=(torch_scorer(ease.parts()), content),
        fusion=Fusion(np.array([[0.7, 0.3]], np.float32)),
    )
    history = train.history(1).astype(np.int64)
    asked = [np.append(history, cold_rows(0)[0])]  # a new item in the history is nothing to ease
    linear, own = scorer.calibrated(asked)[:, 0]
    new = slice(train.num_items + 1, None)
    assert np.isnan(linear[new]).all() and np.isfinite(linear[1 : train.num_items + 1]).all()
    np.testing.assert_allclose(scorer.scores(asked)[0, new], own[new], rtol=1e-5)
    assert train.content is not None
    told = {encoder: vectors[new] for encoder, vectors in train.content.vectors.items()}
    scores = scorer.with_items(told, train.content.vectors).scores(asked)[0]
    later = scores[content.num_items + 1 :]
    assert (np.diff(later[np.argsort(own[new], kind="stable")]) >= -1e-6).all() and np.ptp(later) > 0
    assert later.max() <= scores[1 : train.num_items + 1].max()
    assert scorer.linked is not None and scorer.linked.indptr[-1] == scorer.linked.indptr[-2]  # none for new items
    assert scorer.vectors is content.item_vectors
    np.testing.assert_allclose(linear[1:], scorer.calibrated([history])[0, 0, 1:], rtol=1e-4, atol=1e-5)


def export(parts: ServingParts, folder: Path, content: ItemContent | None) -> None:
    ids = planted().all_items.ids[: parts.num_items]
    items: dict[str, list] = {column: [None] * len(ids) for column in ITEM_COLUMNS}
    items |= {"item_id": ids, "title": ids, "categories": [[]] * len(ids), "available": [True] * len(ids)}
    export_bundle(
        parts,
        folder,
        items=items,
        fallback=np.zeros(len(ids) + 1, np.float32),
        content=content,
        profile={},
        facts={**dict.fromkeys(FACTS), "model": "made", "remove_seen": True},
        opset=20,
        max_links=300,
    )


@pytest.mark.parametrize("name", WITH_CONTENT)
def test_bundle_scores_new_items_as_torch_does(name: str, tmp_path: Path) -> None:
    """Those that were there at export, also in histories, and those that come later."""
    train = planted()
    ease = Ease(Ease.Config(), train.num_users, train.num_items, seed=1)
    ease.fit(train)
    members = [("ease", ease.parts()), (name, fitted(name).parts())]
    parts = ServingParts(members=members, fusion=Fusion(np.array([[0.5, 0.5]], np.float32)))
    export(parts, tmp_path / "bundle", train.content)
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest["format_version"] == 4
    assert [entry["name"] for entry in bundle.encoders] == ["text", "image"] and bundle.encoders[0]["version"] == "1"
    assert train.content is not None
    np.testing.assert_array_equal(bundle.content["image"], train.content.vectors["image"])
    histories = [train.history(user).astype(np.int64) for user in (1, 2, 3)]
    histories += [np.append(histories[0], cold_rows(0)), cold_rows(1).astype(np.int64)]
    # Of items that are planted alike spectral makes the same scores, whose order is free.
    assert measure_parity(parts, bundle, histories, 10, True)["lists_equal"] >= (0.8 if name == "spectral" else 1)

    twins = {encoder: vectors[cold_rows(2)] for encoder, vectors in bundle.content.items()}
    wider = bundle.scorer.with_items(twins, bundle.content)
    assert wider.num_items == bundle.num_items + 2
    # The deviation of all scores is another with more items.
    of_twins, of_originals = wider.calibrated(histories)[1][:, -2:], wider.calibrated(histories)[1][:, cold_rows(2)]
    np.testing.assert_allclose(of_twins, of_originals, rtol=1e-4, atol=1e-4)
    # In a history a later item is left out.
    before, after = wider.members[1].scores([histories[0], np.append(histories[0], bundle.num_items + 1)])
    np.testing.assert_allclose(after[1:], before[1:], rtol=1e-5)


def test_a_bundle_of_content_neighbours_finds_those_of_later_items(tmp_path: Path) -> None:
    """An item like one that is there gets the neighbours that one has, and votes with those that came with it."""
    train = planted()
    knn = ContentKnn(ContentKnn.Config(content=["text"]), train.num_users, train.num_items, seed=1)
    knn.attach_content(train.content)
    knn.fit(train)
    export(knn.parts(), tmp_path / "bundle", train.content)
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest["format_version"] == 5 and list(bundle.content) == ["text", "image"]
    assert bundle.num_items == len(train.all_items)
    original = int(cold_rows(2)[0])
    twins = {encoder: vectors[[original, original]] for encoder, vectors in bundle.content.items()}
    wider, last = bundle.scorer.with_items(twins, bundle.content), bundle.num_items
    assert wider.num_items == last + 2
    for history in (train.history(1).astype(np.int64), train.history(2).astype(np.int64)):
        scores = wider.scores([history])[0]
        np.testing.assert_allclose(scores[: last + 1], bundle.scorer.scores([history])[0], rtol=1e-6)
        if original not in history:
            np.testing.assert_allclose(scores[last + 1 :], scores[original], rtol=1e-3)
    # Whoever had one of two that are alike is offered the other, with all the weight there is.
    of_first = wider.scores([np.array([last + 1])])[0]
    assert of_first[1 : last + 1].max() == 0 and of_first[last + 2] == pytest.approx(1, abs=1e-3)


def test_a_model_without_content_keeps_its_format(tmp_path: Path) -> None:
    train = planted()
    ease = Ease(Ease.Config(), train.num_users, train.num_items, seed=1)
    ease.fit(train)
    export(ease.parts(), tmp_path / "bundle", None)
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest["format_version"] == 2 and not bundle.content
    assert bundle.scorer.with_items({}, {}) is bundle.scorer
    # What was encoded and no model takes is there for search.
    export(ease.parts(), tmp_path / "searched", train.content)
    assert list(load_bundle(tmp_path / "searched").content) == ["text", "image"]


def test_links_of_later_items_stand_where_their_voters_are() -> None:
    """By hand: item 1 votes for 2; items 3 and 4 come, 3 voted for by 1 and 2, 4 by 3."""
    links = Links(np.array([0, 0, 1, 1]), np.array([2], np.int32), np.array([0.5], np.float32))
    wider = links.with_items([(np.array([1, 2]), np.array([0.2, 0.3])), (np.array([3]), np.array([0.4]))])
    assert wider.indptr.tolist() == [0, 0, 2, 3, 4, 4] and wider.indices.tolist() == [2, 3, 3, 4]
    np.testing.assert_allclose(wider.votes(np.array([1, 3]), 5), [0, 0, 0.5, 0.2, 0.4], rtol=1e-6)
