"""RMSE and MAE by hand, and who answers what the scorer cannot."""

import doctest

import numpy as np
import polars as pl
import pytest

from recops.data.interactions import Interactions, make_interactions
from recops.errors import CallError
from recops.evaluation import ratings as ratings_module
from recops.evaluation.ratings import damped_means, predictions, rating_figures, ratings_of
from recops.runtime import Scorer


def frame(*rows: tuple[str, str, float | None]) -> pl.DataFrame:
    columns = {"user_id": pl.String, "item_id": pl.String, "value": pl.Float32}
    return pl.DataFrame(rows, schema=columns, orient="row").with_columns(
        timestamp=pl.lit(None, pl.Datetime("us", "UTC")),
        event=pl.lit("rating"),
        signal=pl.lit("positive"),
        weight=pl.lit(1.0, pl.Float32),
    )


TRAIN = frame(("ann", "a", 4.0), ("ann", "b", 2.0), ("bob", "a", 5.0))


def table(train: Interactions) -> Scorer:
    """Says 10 for (ann, a), 20 for (ann, b), 1 and 2 for bob."""
    return Scorer(
        num_items=train.num_items,
        user_table=np.array([[0], [10], [1]], np.float32),
        item_vectors=np.array([[0], [1], [2]], np.float32),
    )


def test_doctest() -> None:
    result = doctest.testmod(ratings_module)
    assert result.attempted and not result.failed


def test_damped_means_by_hand() -> None:
    mean, user_U, item_N = damped_means(make_interactions(TRAIN))
    assert mean == pytest.approx(11 / 3)
    # a: (1/3 + 4/3) / (2 + 5); b: (-5/3) / (1 + 5); row 0 is nobody.
    np.testing.assert_allclose(item_N, [0, 5 / 21, -5 / 18], rtol=1e-6)
    np.testing.assert_allclose(user_U, [0, (1 / 3 - 5 / 21 - 5 / 3 + 5 / 18) / 7, (4 / 3 - 5 / 21) / 6], rtol=1e-6)


def test_a_prediction_is_of_its_own_user_and_item_and_within_the_values_seen() -> None:
    train = make_interactions(TRAIN)
    ratings = ratings_of(frame(("bob", "b", 3.0), ("ann", "b", 1.0), ("bob", "a", 5.0)), train)
    assert ratings.value.tolist() == [1, 3, 5]  # by user
    # 20 is more than anyone gave, 1 less.
    assert predictions(table(train), ratings).tolist() == [5, 2, 2]


def test_many_users_come_out_in_their_order() -> None:
    ids = [f"u{number:03}" for number in range(700)]
    train = make_interactions(frame(*[(user, "a", float(number)) for number, user in enumerate(ids)]))
    scorer = Scorer(
        num_items=1,
        user_table=np.arange(-1, 700, dtype=np.float32)[:, None],
        item_vectors=np.array([[0], [1]], np.float32),
    )
    ratings = ratings_of(frame(*[(user, "a", 0.0) for user in reversed(ids)]), train)
    assert predictions(scorer, ratings).tolist() == list(range(700))


def test_what_was_never_trained_on_gets_the_damped_means() -> None:
    train = make_interactions(TRAIN)
    mean, user_U, item_N = damped_means(train)
    ratings = ratings_of(frame(("ann", "new", 3.0), ("new", "a", 3.0), ("new", "new", 3.0)), train)
    found = predictions(table(train), ratings)
    np.testing.assert_allclose(found, [mean + user_U[1], mean + item_N[1], mean], rtol=1e-6)


def test_intervals_resample_users_with_all_their_events() -> None:
    train = make_interactions(TRAIN)
    ratings = ratings_of(frame(("ann", "a", 4.0), ("ann", "b", 4.0), ("bob", "a", 4.0)), train)
    figures = rating_figures(np.array([5.0, 3.0, 4.0]), ratings, samples=300, seed=1)
    assert figures["rmse"]["value"] == pytest.approx((2 / 3) ** 0.5)
    # Resamples have ann twice, bob twice, or both.
    assert (figures["rmse"]["low"], figures["rmse"]["high"]) == (0, 1)
    assert (figures["events"], figures["users"]) == (3, 2)
    assert figures == rating_figures(np.array([5.0, 3.0, 4.0]), ratings, samples=300, seed=1)


def test_nothing_to_predict_gives_nan() -> None:
    train = make_interactions(TRAIN)
    ratings = ratings_of(TRAIN.clear(), train)
    figures = rating_figures(predictions(table(train), ratings), ratings, samples=10, seed=1)
    assert figures["events"] == 0 and all(np.isnan(list(figures[name].values())).all() for name in ("rmse", "mae"))


def test_an_event_without_value_is_named() -> None:
    with pytest.raises(CallError, match="1 of 4 have none"):
        ratings_of(frame(("ann", "a", None)), make_interactions(TRAIN))
