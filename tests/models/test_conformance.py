"""What every file of recops/models must do (protocols.Recommender). A new model is found here by itself."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from recops.bundle import load_bundle
from recops.data.content import item_content
from recops.data.interactions import Catalogue, Interactions, make_interactions
from recops.evaluation.judging import Judging
from recops.evaluation.ratings import predictions, rating_figures, ratings_of
from recops.histories import Histories
from recops.models.rating_means import RatingMeans
from recops.params import EvaluateParams
from recops.plugins import load, names
from recops.protocols import ServingParts
from recops.release.export import FACTS, ITEM_COLUMNS, export_bundle, torch_scorer
from recops.runtime import Scorer
from recops.training.loop import fit_model, new_model

MODELS = names("models")
SHORT = {
    "epochs": 12,
    "batch_size": 256,
    "learning_rate": 0.02,
    "precision": "float32",
    "burn_in": 20,
    "num_samples": 20,
}
MEMBERS = ("sasrec", "item_knn", "ease")  # of an ensemble: a network, and links twice
CLUSTER_OF_USER = (0, 0, 0, 1, 1, 2, 3)  # repeated over the users
CLUSTER_SIZE, NUM_USERS, NUM_EVENTS = 16, 120, 7
NUM_ITEMS = CLUSTER_SIZE * (max(CLUSTER_OF_USER) + 1)


@cache
def planted() -> tuple[Interactions, np.ndarray]:
    """A small log with planted taste: four groups of items, each user likes one, some groups and items are liked more.

    Returns the train part, and the withheld last item row of each user row (0 for none).
    """
    generator = np.random.default_rng(7)
    share = 1 / np.arange(1, CLUSTER_SIZE + 1)
    # Every item once, so that all are in the vocabulary.
    rows = [("filler", item) for item in range(NUM_ITEMS)]
    withheld = {}
    for user in range(NUM_USERS):
        first = CLUSTER_SIZE * CLUSTER_OF_USER[user % len(CLUSTER_OF_USER)]
        own = first + generator.choice(CLUSTER_SIZE, NUM_EVENTS, replace=False, p=share / share.sum())
        rows += [(f"u{user:03}", int(item)) for item in own[:-1]]
        withheld[f"u{user:03}"] = f"i{own[-1]:02}"
    frame = pl.DataFrame(
        {
            "user_id": [user for user, _ in rows],
            "item_id": [f"i{item:02}" for _, item in rows],
            "timestamp": pl.Series(range(len(rows)), dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
            "event": "rating",
            "value": pl.Series(generator.integers(1, 6, len(rows)), dtype=pl.Float32),
            "signal": "positive",
            "weight": pl.Series([1.0] * len(rows), dtype=pl.Float32),
        }
    )
    train = with_groups(make_interactions(frame))
    target = np.zeros(train.num_users + 1, np.int64)
    for user_id, item_id in withheld.items():
        target[train.users.to_idx([user_id])[0]] = train.items.to_idx([item_id])[0]
    return train, target


def with_groups(train: Interactions) -> Interactions:
    """With the group of each item as its category and, with some noise, as its content; and with the group that a user
    likes as an attribute."""
    group = np.arange(train.num_items) // CLUSTER_SIZE
    unknown = np.full(train.num_items + 1, np.nan)
    offsets = np.concatenate([[0], np.arange(train.num_items + 1)])
    noise = np.random.default_rng(1).normal(0, 0.1, (train.num_items, max(CLUSTER_OF_USER) + 3))
    text = (np.eye(noise.shape[1])[group] + noise).astype(np.float16)
    liked = [CLUSTER_OF_USER[int(user_id[1:]) % len(CLUSTER_OF_USER)] for user_id in train.users.ids[1:]]
    attributes = np.vstack([np.zeros(4), np.eye(4)[liked]])
    assert train.users.ids[0] == "filler"
    return replace(
        train,
        catalogue=Catalogue(unknown, unknown.astype(np.float32), offsets, group.astype(np.int32)),
        content=item_content(train.items.ids, {"text": text}, train.items),
        user_attributes=item_content(train.users.ids, {"attributes": attributes}, train.users),
    )


def shortened(model_class: Any, **changes: Any) -> Any:
    """A config with what of `SHORT` and `MEMBERS` the model has keys for."""
    keys = {**SHORT, "members": list(MEMBERS)}
    keys = {key: value for key, value in keys.items() if key in model_class.Config.model_fields}
    return model_class.Config(**keys | changes)


def make(name: str, **changes: Any) -> Any:
    """A model with its defaults, shortened where it has the keys for it; an ensemble with its members fitted."""
    model_class = load("models", name)
    train, _ = planted()
    model = new_model(model_class, shortened(model_class, **changes), train, seed=3)
    if hasattr(model, "attach"):
        model.attach({member: fitted(member).parts() for member in MEMBERS}, train)
    return model


def fit(name: str) -> Any:
    model = make(name)
    if hasattr(model, "blend"):
        model.blend({member: scorer_of(fitted(member)) for member in MEMBERS}, planted_judging())
    else:
        fit_model(model, planted()[0], None, seed=3, threads=1)
    return model


def planted_judging() -> Judging:
    """The users of the planted log and what was withheld from them."""
    train, target = planted()
    users = np.flatnonzero(target)
    return Judging(
        user_ids=[train.users.ids[user - 1] for user in users],
        histories=[train.history(user) for user in users],
        targets=[target[user : user + 1] for user in users],
        item_counts=np.bincount(train.item_idx, minlength=train.num_items + 1),
        fallback=np.ones(train.num_items + 1, np.float32),
        settings=EvaluateParams(),
        remove_seen=True,
        users=users,
    )


@cache
def fitted(name: str) -> Any:
    return fit(name)


def scorer_of(model: Any) -> Scorer:
    return torch_scorer(model.parts())


def histories(num: int) -> list[np.ndarray]:
    train, _ = planted()
    return [train.history(user)[: 1 + user % 6] for user in range(2, 2 + num)]


def asked(some: list[np.ndarray]) -> Histories:
    """Those histories as the service would ask: with the rows of users who were trained on, and times."""
    return Histories(some, [np.arange(len(h), 0, -1) * 3600 for h in some], np.arange(2, 2 + len(some)))


@pytest.mark.parametrize("name", MODELS)
def test_two_fits_give_the_same_bytes(name: str) -> None:
    first, second = fitted(name).state(), fit(name).state()
    assert {k: (v.dtype, v.tobytes()) for k, v in first.items()} == {
        k: (v.dtype, v.tobytes()) for k, v in second.items()
    }


@pytest.mark.parametrize("name", MODELS)
def test_state_round_trip_scores_the_same(name: str) -> None:
    again = make(name)
    again.load_state(fitted(name).state())
    expected = scorer_of(fitted(name)).scores(asked(histories(5)))
    np.testing.assert_array_equal(scorer_of(again).scores(asked(histories(5))), expected)
    assert all(np.array_equal(value, again.state()[key]) for key, value in fitted(name).state().items())


@pytest.mark.parametrize("name", MODELS)
def test_parts_have_the_shapes_of_the_protocol(name: str) -> None:
    parts: ServingParts = fitted(name).parts()
    if parts.members:
        assert parts.fusion is not None and parts.fusion.weights.shape == (
            len(parts.fusion.edges) + 1,
            len(parts.members),
        )
        assert parts.encoder is parts.item_vectors is parts.links is parts.item_scores is parts.user_table is None
    for part in [member for _, member in parts.members] or [parts]:
        check_shapes(part, takes=fitted(name).takes)


def check_shapes(parts: ServingParts, takes: str) -> None:
    train = planted()[0]
    num_rows = train.num_items + 1
    assert parts.item_scores is not None or parts.links is not None or parts.item_vectors is not None
    assert (parts.item_vectors is None) == (parts.encoder is None and parts.user_table is None)
    assert (parts.user_table is not None) == (takes == "user")
    assert parts.max_history >= 1
    if parts.user_table is not None:
        assert parts.encoder is None
        assert parts.user_table.dtype == np.float32 and len(parts.user_table) == train.num_users + 1
    if parts.item_scores is not None:
        assert parts.item_scores.dtype == np.float32 and parts.item_scores.shape == (num_rows,)
        assert parts.item_scores[0] == 0
    if parts.item_vectors is not None:
        assert parts.item_vectors.dtype == np.float32 and len(parts.item_vectors) == num_rows
        assert not parts.item_vectors[0].any()
    if parts.links is not None:
        indptr, indices, weights = parts.links
        assert (indptr.dtype, indices.dtype, weights.dtype) == (np.int64, np.int32, np.float32)
        assert len(indptr) == num_rows + 1 and indptr[0] == indptr[1] == 0 and indptr[-1] == len(indices)
        assert indices.min() >= 1 and indices.max() < num_rows
        assert not (np.repeat(np.arange(num_rows), np.diff(indptr)) == indices).any(), "an item links to itself"


@pytest.mark.parametrize("name", MODELS)
def test_any_history_gives_finite_scores(name: str) -> None:
    train, _ = planted()
    longest = np.tile(np.arange(1, train.num_items + 1), 1 + fitted(name).parts().max_history // train.num_items)
    scores = scorer_of(fitted(name)).scores([np.zeros(0, np.int64), np.array([1]), np.array([1, 1, 1]), longest])
    assert scores.shape == (4, train.num_items + 1)
    assert np.isfinite(scores[:, 1:]).all() and np.isneginf(scores[:, 0]).all()
    if not fitted(name).parts().needs_history:
        assert len(np.unique(scores[0, 1:])) > 1


@pytest.mark.parametrize("name", MODELS)
def test_who_can_be_answered(name: str) -> None:
    """A model that takes a history answers anyone with one, a model that takes a user those it was trained on; all
    others get the fallback."""
    train, _ = planted()
    fallback = np.arange(train.num_items + 1, dtype=np.float32)
    scorer = torch_scorer(fitted(name).parts(), fallback)
    someone = Histories([np.array([3, 9])] * 2 + [np.zeros(0, np.int64)], users=np.array([4, 0, 4]))
    expected = {"history": [True, True, False], "user": [True, False, True]}[fitted(name).takes]
    if not fitted(name).parts().needs_history:
        expected = [True, True, True]
    assert scorer.answers(someone).tolist() == expected
    scores = scorer.scores(someone)
    for row, is_own in zip(scores, expected, strict=True):
        assert np.array_equal(row[1:], fallback[1:]) != is_own


@pytest.mark.parametrize("name", MODELS)
def test_scores_depend_on_the_history_alone(name: str) -> None:
    """Not on who stands beside it in the batch, nor on the padding that the longest of them asks for."""
    scorer = scorer_of(fitted(name))
    alone, short = np.array([3, 9]), histories(6)
    users = np.array([*range(2, 2 + len(short)), 1, 9])
    together = scorer.scores(Histories([*short, alone, np.arange(1, 40)], users=users))[len(short)]
    by_itself = scorer.scores(Histories([alone], users=np.array([1])))[0]
    np.testing.assert_allclose(by_itself, together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_padding_on_the_left_changes_nothing(name: str) -> None:
    parts = fitted(name).parts()
    if parts.encoder is None:
        return
    vectors = []
    for num_padding in (0, 1, 4):
        inputs = [[[0] * num_padding + [5, 6, 7]] * 2, [[0] * num_padding + [300, 20, 1]] * 2]
        with torch.no_grad():
            vectors.append(parts.encoder(*map(torch.tensor, inputs[: 1 + parts.uses_time])))
    for vector in vectors[1:]:
        torch.testing.assert_close(vector, vectors[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_exported_bundle_scores_as_torch_does(name: str, tmp_path: Any) -> None:
    train, _ = planted()
    items: dict[str, list] = {column: [None] * train.num_items for column in ITEM_COLUMNS}
    items |= {"item_id": train.items.ids, "categories": [[]] * train.num_items}
    items |= {"title": train.items.ids, "available": [True] * train.num_items}
    export_bundle(
        fitted(name).parts(),
        tmp_path / "bundle",
        items=items,
        users=train.users.ids,
        fallback=np.zeros(train.num_items + 1, np.float32),
        content=train.content,
        profile={},
        facts={**dict.fromkeys(FACTS), "model": name, "remove_seen": True},
        opset=20,
        max_links=300,
    )
    served, ours = load_bundle(tmp_path / "bundle").scorer, scorer_of(fitted(name))
    for num_users in (1, 2, 7):
        for length in (1, 2, 6):
            some = [history[:length] for history in histories(num_users)]
            np.testing.assert_allclose(served.scores(asked(some)), ours.scores(asked(some)), rtol=1e-4, atol=1e-4)


RATING_MODELS = [name for name in MODELS if getattr(load("models", name), "task", "ranking") == "rating"]


@pytest.mark.parametrize("name", RATING_MODELS)
def test_predicts_planted_ratings(name: str) -> None:
    """Much better than the means of users and items, on a table of two directions and noise of which a third is
    withheld; the means themselves better than nothing, where users differ in what they give."""
    generator = np.random.default_rng(5)
    users_UD, items_ND = generator.standard_normal((80, 2)), generator.standard_normal((50, 2))
    noisy_UN = 3 + users_UD @ items_ND.T + 0.3 * generator.standard_normal((80, 50))
    if name == "rating_means":
        noisy_UN += 3 * users_UD[:, :1]
    rows = [(f"u{u:02}", f"i{i:02}", float(value)) for (u, i), value in np.ndenumerate(noisy_UN)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "value"], orient="row").with_columns(
        timestamp=pl.lit(None, pl.Datetime("us", "UTC")), signal=pl.lit("positive"), weight=pl.lit(1.0)
    )
    is_withheld = pl.Series(generator.random(len(frame)) < 1 / 3)
    train = make_interactions(frame.filter(~is_withheld))
    model_class = load("models", name)
    model = model_class(shortened(model_class), train.num_users, train.num_items, seed=3)
    fit_model(model, train, None, seed=3, threads=1)
    withheld = ratings_of(frame.filter(is_withheld), train)
    means = RatingMeans(RatingMeans.Config(), train.num_users, train.num_items, seed=3)
    means.fit(train)
    by_model, by_means = (
        rating_figures(predictions(torch_scorer(one.parts()), withheld), withheld, samples=0, seed=0)
        for one in (model, means)
    )
    if name == "rating_means":
        assert by_model["rmse"]["value"] < 0.6 * withheld.value.std()
    else:
        assert by_model["rmse"]["value"] < 0.5 * by_means["rmse"]["value"]


@pytest.mark.parametrize("name", [name for name in MODELS if name not in RATING_MODELS])
def test_finds_the_planted_taste(name: str) -> None:
    """Hit rate at 10 of the withheld item, seen items removed, against a random list over the same candidates."""
    train, target = planted()
    users = np.flatnonzero(target)
    seen = [train.history(user) for user in users]
    scores = scorer_of(fitted(name)).scores(Histories(seen, users=users))
    for row, history in zip(scores, seen, strict=True):
        row[history] = -np.inf
    target_score = np.take_along_axis(scores, target[users, None], 1)
    hit_rate = ((scores > target_score).sum(1) < 10).mean()
    by_chance = np.mean([10 / (train.num_items - len(history)) for history in seen])
    # Popularity knows only which items are liked most; the others must also find the group: 16 items, 6 of them seen.
    parts = fitted(name).parts()
    is_personal = bool(parts.members) or parts.item_vectors is not None or parts.links is not None
    assert hit_rate > (3 if is_personal else 1.3) * by_chance


@pytest.mark.parametrize("name", MODELS)
def test_config_round_trip_and_unknown_key(name: str) -> None:
    config_class = load("models", name).Config
    config = config_class()
    assert config_class(**config.model_dump(mode="json")) == config
    with pytest.raises(ValidationError, match="no_such_key"):
        config_class(no_such_key=1)
