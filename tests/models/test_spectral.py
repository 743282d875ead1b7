"""The graph filter against the dense matrix function it stands for."""

import numpy as np
import polars as pl
import pytest
from numpy.polynomial import Chebyshev
from scipy import sparse

from recops.data.interactions import Interactions, make_interactions
from recops.models._links import user_item_matrix
from recops.models.spectral import Spectral, _largest
from recops.release.export import torch_scorer


def interactions(rows: list[tuple[str, str]]) -> Interactions:
    frame = pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.String}, orient="row")
    return make_interactions(
        frame.with_columns(
            pl.lit(None, pl.Datetime("us", "UTC")).alias("timestamp"),
            pl.lit("play").alias("event"),
            pl.lit(None, pl.Float32).alias("value"),
            pl.lit("positive").alias("signal"),
            pl.lit(1.0, pl.Float32).alias("weight"),
        )
    )


def random_log(num_users: int = 60, num_items: int = 40) -> Interactions:
    generator = np.random.default_rng(5)
    share = 1 / np.arange(1, num_items + 1)
    pairs = [
        (f"u{user:02}", f"i{item:02}")
        for user in range(num_users)
        for item in generator.choice(num_items, 5, replace=False, p=share / share.sum())
    ]
    return interactions(pairs)


def scores_of(train: Interactions, history: list[int], **config: float | None) -> np.ndarray:
    """Without the items of the history themselves and padding, for which links hold nothing: 0."""
    model = Spectral(Spectral.Config(**config), train.num_users, train.num_items, seed=1)
    model.fit(train)
    scores = torch_scorer(model.parts()).scores([np.array(history)])[0]
    scores[[0, *history]] = 0
    return scores


def dense_scores(
    train: Interactions, history: list[int], b: float, f: np.ufunc, num_ideal: int, alpha: float
) -> np.ndarray:
    """x D^-b f(S) D^b, by the eigenvectors of the whole S."""
    seen = user_item_matrix(train, np.float64).toarray()[1:, 1:]
    users, items = seen.sum(1), seen.sum(0)
    graph = seen / np.sqrt(users[:, None] * items[None])
    strength, axes = np.linalg.eigh(graph.T @ graph)
    response = f(np.clip(strength, 0, 1))
    response[len(response) - num_ideal :] += alpha
    full = axes @ np.diag(response) @ axes.T
    x = np.zeros(len(items))
    x[np.array(history) - 1] = 1
    scores = np.concatenate([[0], (x * items**-b) @ full * items**b])
    scores[[0, *history]] = 0
    return scores


def test_linear_filter_by_hand() -> None:
    """u: a, b; v: b, c. Degrees 1, 2, 1 and 2, 2. S_ab = 1 / sqrt(2 * 1) / sqrt(2 * 2) = 1 / (2 sqrt 2), S_ac = 0.
    With b = 1/2 the vote of a for b is S_ab * sqrt(2 / 1) = 1/2, that of b for a is S_ab * sqrt(1 / 2) = 1/4."""
    train = interactions([("u", "a"), ("u", "b"), ("v", "b"), ("v", "c")])
    plain = {"flatness": 1.0, "ideal_weight": 0.0, "degree_exponent": 0.5}
    np.testing.assert_allclose(scores_of(train, [1], **plain), [0, 0, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(scores_of(train, [2], **plain), [0, 0.25, 0, 0.25], atol=1e-6)


@pytest.mark.parametrize("num_factors", [3, 40])
def test_gfcf_is_the_whole_filter_at_any_number_of_factors(num_factors: int) -> None:
    """Flatness 1 is a straight line, so what the vectors leave out the links have."""
    train = random_log()
    expected = dense_scores(train, [1, 7, 30], 0.5, lambda s: s, 3, 0.3)
    keys = {"flatness": 1.0, "num_ideal": 3, "ideal_weight": 0.3, "degree_exponent": 0.5}
    np.testing.assert_allclose(
        scores_of(train, [1, 7, 30], num_factors=num_factors, **keys), expected, rtol=1e-3, atol=2e-5
    )


@pytest.mark.parametrize("order", [None, 8])
@pytest.mark.parametrize("max_links", [0, 300])
def test_plateau_is_the_dense_matrix_function(order: int | None, max_links: int) -> None:
    def exact(s: np.ndarray) -> np.ndarray:
        return 0.5 + np.sign(2 * s - 1) * np.abs(2 * s - 1) ** 1.5 / 2

    polynomial = exact if order is None else Chebyshev.interpolate(exact, order, domain=[0, 1])
    train = random_log()
    expected = dense_scores(train, [2, 5], 0.4, polynomial, 4, 0.2)
    keys = {"flatness": 1.5, "num_ideal": 4, "ideal_weight": 0.2, "degree_exponent": 0.4, "num_factors": 40}
    found = scores_of(train, [2, 5], order=order, max_links=max_links, **keys)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5)


def test_eigenvectors_of_a_larger_graph_are_those_of_the_dense_matrix() -> None:
    """More items than the subspace is wide, and a spectrum that falls: the leading ones are exact."""
    generator = np.random.default_rng(1)
    mixed = generator.standard_normal((300, 12)) * 0.5 ** np.arange(12) @ generator.standard_normal((12, 200))
    graph = np.where(np.abs(mixed) > 1, mixed, 0).astype(np.float32) / 100
    graph[0], graph[:, 0] = 0, 0
    strength, axes = _largest(sparse.csr_array(graph), 5, seed=0)
    _, singular, rows = np.linalg.svd(graph)
    np.testing.assert_allclose(strength, singular[:5] ** 2, rtol=1e-3)
    np.testing.assert_allclose(np.abs((axes * rows[:5].T).sum(0)), 1, atol=1e-3)


def test_links_are_the_strongest_few() -> None:
    train = random_log()
    models = [Spectral(Spectral.Config(max_links=most), train.num_users, train.num_items, 0) for most in (2, 300)]
    for model in models:
        model.fit(train)
    (indptr, indices, weights), (all_indptr, _, all_weights) = (model.links for model in models)
    assert np.diff(indptr).max() == 2 and indptr[1] == 0
    for item in range(1, train.num_items + 1):
        row = np.sort(all_weights[all_indptr[item] : all_indptr[item + 1]])
        np.testing.assert_array_equal(np.sort(weights[indptr[item] : indptr[item + 1]]), row[-2:])
        assert item not in indices[indptr[item] : indptr[item + 1]]


def test_no_events() -> None:
    model = Spectral(Spectral.Config(), 0, 0, seed=0)
    model.fit(interactions([]))
    assert torch_scorer(model.parts()).scores([np.array([], int)]).tolist() == [[-np.inf]]
