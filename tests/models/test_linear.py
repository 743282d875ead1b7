"""The closed-form models, on numbers worked by hand."""

import numpy as np
import polars as pl
import pytest

from recops.data.interactions import Interactions, make_interactions
from recops.errors import CallError
from recops.models._links import user_item_matrix
from recops.models.ease import Ease
from recops.models.item_knn import ItemKnn
from recops.models.most_popular import MostPopular
from recops.models.recent_popular import RecentPopular
from recops.nearest import strongest

DAY = 86_400_000_000


def interactions(rows: list[tuple[str, str, int | None, float]]) -> Interactions:
    """From (user, item, day, weight)."""
    frame = pl.DataFrame(
        {
            "user_id": [row[0] for row in rows],
            "item_id": [row[1] for row in rows],
            "timestamp": pl.Series([None if row[2] is None else row[2] * DAY for row in rows], dtype=pl.Int64).cast(
                pl.Datetime("us", "UTC")
            ),
            "event": "rating",
            "value": pl.Series([None] * len(rows), dtype=pl.Float32),
            "signal": "positive",
            "weight": pl.Series([row[3] for row in rows], dtype=pl.Float32),
        },
        schema_overrides={"user_id": pl.String, "item_id": pl.String},
    )
    return make_interactions(frame)


def dense(links: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    indptr, indices, weights = links
    full = np.zeros((len(indptr) - 1, len(indptr) - 1))
    full[np.repeat(np.arange(len(full)), np.diff(indptr)), indices] = weights
    return full


TRAIN = interactions([("u", "a", 0, 1.0), ("u", "b", 30, 1.0), ("v", "a", 60, 2.0), ("v", "a", 60, 1.0)])


def test_most_popular_sums_weights() -> None:
    model = MostPopular(MostPopular.Config(), 2, 2, seed=0)
    model.fit(TRAIN)
    assert model.item_scores.tolist() == [0, 4, 1]


def test_recent_popular_halves_with_age() -> None:
    model = RecentPopular(RecentPopular.Config(half_life_days=30), 2, 2, seed=0)
    model.fit(TRAIN)
    assert model.item_scores.tolist() == [0, 3.25, 0.5]


def test_recent_popular_counts_later_events_where_there_is_no_time() -> None:
    model = RecentPopular(RecentPopular.Config(half_life_events=1), 1, 3, seed=0)
    model.fit(interactions([("u", item, None, 1.0) for item in "abc"]))
    assert model.item_scores.tolist() == [0, 0.25, 0.5, 1]


def test_matrix_keeps_the_largest_weight_of_a_pair() -> None:
    assert user_item_matrix(TRAIN).toarray().tolist() == [[0, 0, 0], [0, 1, 1], [0, 2, 0]]


def test_strongest_is_by_size_and_of_equal_ones_the_first() -> None:
    weights = np.array([0.0, -3.0, 1.0, 2.0, 1.0])
    assert strongest(weights, 3).tolist() == [1, 2, 3]
    assert strongest(weights, 9).tolist() == [1, 2, 3, 4]
    assert strongest(np.zeros(4), 2).tolist() == []


def test_item_knn_is_the_cosine_with_shrinkage() -> None:
    """a: u, v; b: u; c: v, w. a.b = 1, a.c = 1, b.c = 0; norms sqrt 2, 1, sqrt 2."""
    train = interactions([(u, i, 0, 1.0) for u, i in ("ua", "va", "ub", "vc", "wc")])
    model = ItemKnn(ItemKnn.Config(shrinkage=1.0), 3, 3, seed=0)
    model.fit(train)
    ab, ac = 1 / (2**0.5 + 1), 1 / (2 + 1)
    expected = np.zeros((4, 4))
    expected[1, 2] = expected[2, 1] = ab
    expected[1, 3] = expected[3, 1] = ac
    np.testing.assert_allclose(dense(model.links), expected, rtol=1e-6)


def test_item_knn_lets_only_the_nearest_vote_for_an_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one neighbour a is voted for by b alone, while b and c are both voted for by a; also in blocks of one."""
    monkeypatch.setattr("recops.models.item_knn.BLOCK_CELLS", 1)
    train = interactions([(u, i, 0, 1.0) for u, i in ("ua", "va", "ub", "vc", "wc")])
    model = ItemKnn(ItemKnn.Config(shrinkage=0.0, num_neighbors=1), 3, 3, seed=0)
    model.fit(train)
    assert (dense(model.links) > 0).astype(int).tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_ease_is_the_closed_form_of_the_paper() -> None:
    generator = np.random.default_rng(0)
    pairs = [(f"u{u:02}", f"i{i}", 0, 1.0) for u in range(30) for i in range(6) if generator.random() < 0.4]
    train = interactions(pairs)
    model = Ease(Ease.Config(regularization=2.0), train.num_users, train.num_items, seed=0)
    model.fit(train)
    seen = user_item_matrix(train).toarray()[:, 1:].astype(np.float64)
    inverse = np.linalg.inv(seen.T @ seen + 2 * np.eye(6))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(dense(model.links)[1:, 1:], expected, atol=1e-5)


def test_ease_keeps_the_strongest_links_of_each_history_item() -> None:
    generator = np.random.default_rng(0)
    train = interactions(
        [(f"u{u:02}", f"i{i}", 0, 1.0) for u in range(30) for i in range(6) if generator.random() < 0.4]
    )
    whole, cut = (Ease(Ease.Config(max_links=k), train.num_users, train.num_items, seed=0) for k in (9, 2))
    whole.fit(train)
    cut.fit(train)
    for all_weights, kept in zip(dense(whole.links)[1:], dense(cut.links)[1:], strict=True):
        assert sorted(np.abs(kept[kept != 0])) == sorted(np.abs(all_weights))[-2:]


def test_ease_names_the_key_for_a_catalogue_too_large() -> None:
    with pytest.raises(CallError, match=r"train\.models\.ease\.max_items: 10 allowed, 11 items found"):
        Ease(Ease.Config(max_items=10), 1, 11, seed=0)


@pytest.mark.parametrize("model_class", [MostPopular, RecentPopular, ItemKnn, Ease])
def test_no_events_give_no_scores(model_class: type) -> None:
    train = interactions([])
    model = model_class(model_class.Config(), 0, 0, seed=0)
    model.fit(train)
    assert all(not array.any() for array in model.state().values())
