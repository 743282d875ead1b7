"""The parts of the Gibbs sampler against what is known of them; test_conformance.py has the model as a whole."""

import numpy as np
import polars as pl
import pytest

from recops.data.interactions import Interactions, make_interactions
from recops.errors import CallError
from recops.models.bayesian_factorization import BayesianFactorization, _MeanSketch, _who_rated_what, _wishart


def interactions(rows: list[tuple[str, str, float | None]], weight: float = 1.0) -> Interactions:
    columns = {"user_id": pl.String, "item_id": pl.String, "value": pl.Float32}
    return make_interactions(
        pl.DataFrame(rows, schema=columns, orient="row").with_columns(
            timestamp=pl.lit(None, pl.Datetime("us", "UTC")), signal=pl.lit("positive"), weight=pl.lit(weight)
        )
    )


def fitted(train: Interactions, **config: int) -> BayesianFactorization:
    keys = {"embedding_dim": 2, "burn_in": 30, "num_samples": 60, "served_dim": 8, **config}
    model = BayesianFactorization(BayesianFactorization.Config(**keys), train.num_users, train.num_items, seed=1)
    model.fit(train)
    return model


def test_a_value_that_is_missing_is_named() -> None:
    with pytest.raises(CallError, match="1 of 2 have none"):
        fitted(interactions([("a", "x", 3.0), ("a", "y", None)]))


def test_nothing_to_learn_from_scores_zero() -> None:
    model = fitted(interactions([]))
    assert not (model.user_table @ model.item_vectors.T).any()


def test_users_that_chose_the_same_items_are_expected_to_like_the_same() -> None:
    """Two halves, told apart by which of the first 20 items they rated, all with the value 3; one half gives the items
    after that 5 and the other 1. Of the last users nothing is known but which items they rated."""
    generator = np.random.default_rng(2)
    rows, tail = [], []
    for user in range(60):
        half, is_told = user % 2, user < 40
        rows += [(f"u{user:02}", f"a{10 * half + i}", 3.0) for i in generator.permutation(10)[:7]]
        told = [(f"u{user:02}", f"b{i}", 5.0 - 4 * half) for i in range(4)]
        rows += told if is_told else []
        tail += [] if is_told else told
    train = interactions(rows)
    users, items = ([row[c] for row in tail] for c in (0, 1))

    def error(num_features: int) -> float:
        model = fitted(train, num_features=num_features)
        vectors = model.user_table[train.users.to_idx(users)] * model.item_vectors[train.items.to_idx(items)]
        return float(np.sqrt(((vectors.sum(1) - [row[2] for row in tail]) ** 2).mean()))

    assert error(num_features=2) < 0.6 * error(num_features=0)


def test_the_sketch_of_the_mean_is_exact_where_it_has_few_directions() -> None:
    generator = np.random.default_rng(3)
    sketch, expected, bias_N = _MeanSketch((30, 20), 6, generator), np.zeros((30, 20)), np.zeros(20)
    for _ in range(2):
        users_UD, items_ND = generator.standard_normal((30, 4)), generator.standard_normal((20, 4))
        sketch.add(users_UD, items_ND)
        expected += users_UD[:, 1:] @ items_ND[:, 1:].T / 2
        bias_N += items_ND[:, 0] / 2
    user_bias_U, item_bias_N, left_UK, right_NK = sketch.mean()
    np.testing.assert_allclose(left_UK @ right_NK.T, expected, atol=1e-9)
    np.testing.assert_allclose(item_bias_N, bias_N)
    assert left_UK.shape == (30, 6) and user_bias_U.shape == (30,)


def test_features_are_the_table_of_who_rated_what_by_its_counts() -> None:
    user_idx, item_idx = np.array([1, 1, 2, 2]), np.array([1, 2, 1, 1])
    users_UF, items_NF = _who_rated_what(user_idx, item_idx, (3, 3), 5)
    # User 1 rated both items, user 2 the first, twice, which counts once.
    table_UN = np.zeros((3, 3))
    table_UN[1, 1], table_UN[1, 2], table_UN[2, 1] = 1 / 2, 1 / np.sqrt(2), 1 / np.sqrt(2)
    np.testing.assert_allclose(users_UF @ users_UF.T, table_UN @ table_UN.T, atol=1e-9)
    np.testing.assert_allclose(items_NF @ items_NF.T, table_UN.T @ table_UN, atol=1e-9)


def test_wishart_draws_have_the_mean_of_the_distribution() -> None:
    scatter_DD = np.array([[2.0, 0.5], [0.5, 1.0]])
    generator = np.random.default_rng(4)
    mean_DD = np.mean([_wishart(scatter_DD, 9, generator) for _ in range(1500)], axis=0)
    np.testing.assert_allclose(mean_DD, 9 * np.linalg.inv(scatter_DD), atol=0.5)
