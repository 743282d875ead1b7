"""slist, on numbers worked by hand and against its own definition."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from recops.data.interactions import Interactions, make_interactions
from recops.errors import TooLargeError
from recops.models.ease import Ease
from recops.models.slist import Slist


def train_of(*sequences: str, weights: tuple[float, ...] | None = None) -> Interactions:
    """One user a string, one item a letter."""
    rows = [(f"u{user:02}", item) for user, items in enumerate(sequences) for item in items]
    frame = pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.String}, orient="row").with_columns(
        timestamp=pl.lit(None, pl.Datetime("us", "UTC")),
        value=pl.lit(None, pl.Float32),
        weight=pl.Series(weights or [1.0] * len(rows), dtype=pl.Float32),
        signal=pl.lit("positive"),
    )
    return make_interactions(frame)


def fitted(train: Interactions, **settings: Any) -> np.ndarray:
    """B [N, N] as the links have it."""
    model = Slist(Slist.Config(**{"solver": "exact", **settings}), train.num_users, train.num_items, 0)
    model.fit(train)
    indptr, indices, weights = model.links
    full = np.zeros((train.num_items + 1, train.num_items + 1))
    full[np.repeat(np.arange(len(full)), np.diff(indptr)), indices] = weights
    assert not full[0].any() and not full[:, 0].any()
    return full[1:, 1:]


def by_definition(train: Interactions, config: Slist.Config) -> np.ndarray:
    """The same B with a loop over every event, dense and in float64."""
    size = train.num_items
    S, T, X = [], [], np.zeros((train.num_users, size))
    for user in range(1, train.num_users + 1):
        items = train.history(user) - 1
        X[user - 1, items] = 1
        for cut in range(1, len(items)):
            past, future = np.zeros(size), np.zeros(size)
            for age, item in enumerate(items[:cut][::-1][: config.window]):
                past[item] += np.exp(-age / config.decay) + config.floor
            for wait, item in enumerate(items[cut : cut + config.horizon]):
                if config.learn_repeats or item != items[cut - 1]:
                    future[item] += np.exp(-wait / config.decay)
            if future.any():
                S.append(past)
                T.append(future)
    S, T = np.array(S), np.array(T)
    alike = config.alpha * X.T @ X
    inverse = np.linalg.inv(alike + (1 - config.alpha) * S.T @ S + config.regularization * np.eye(size))
    B = inverse @ (alike + (1 - config.alpha) * S.T @ T)
    B -= inverse * (np.diag(inverse @ alike) / np.diag(inverse))
    if not config.learn_repeats:
        np.fill_diagonal(B, 0)
    return B


def test_the_next_item_is_foretold() -> None:
    """Twice a then b: S'S is 2 at (a, a), S'T is 2 at (a, b), and 2 / (2 + 1) is left of it."""
    np.testing.assert_allclose(fitted(train_of("ab", "ab"), regularization=1.0), [[0, 2 / 3], [0, 0]], rtol=1e-6)


def test_the_weight_of_an_event_counts_where_it_is_foretold() -> None:
    train = train_of("ab", "ab", weights=(5.0, 3.0, 5.0, 1.0))
    np.testing.assert_allclose(fitted(train, regularization=1.0), [[0, 4 / 3], [0, 0]], rtol=1e-6)


def test_a_window_of_one_forgets_what_came_before() -> None:
    links = fitted(train_of("abc", "abc"), window=1, regularization=1.0)
    np.testing.assert_allclose(links, [[0, 2 / 3, 0], [0, 0, 2 / 3], [0, 0, 0]], rtol=1e-6)


def test_an_item_right_after_itself_is_a_target_only_where_repeats_are_learned() -> None:
    train = train_of("aa", "aab")
    np.testing.assert_allclose(fitted(train, window=1, regularization=1.0), [[0, 1 / 2], [0, 0]], rtol=1e-6)
    repeats = fitted(train, window=1, regularization=1.0, learn_repeats=True)
    np.testing.assert_allclose(repeats, [[2 / 4, 1 / 4], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"window": 3, "decay": 1.5, "floor": 0.2, "horizon": 3},
        {"alpha": 0.3, "floor": 0.1},
        {"alpha": 0.3, "learn_repeats": True, "horizon": 2},
    ],
)
def test_it_is_the_closed_form(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in blocks of a few examples and rows, and with a sparse product."""
    monkeypatch.setattr("recops.models.slist._EXAMPLES_AT_ONCE", 7)
    monkeypatch.setattr("recops.models.slist._ROWS_AT_ONCE", 2)
    monkeypatch.setattr("recops.models.slist._DENSE_ABOVE", 2.0 if settings else 0.1)
    letters = np.random.default_rng(1).choice(list("abcdef"), (12, 7))
    train = train_of(*("".join(row[: 2 + user % 6]) for user, row in enumerate(letters)), "ffab")
    expected = by_definition(train, Slist.Config(**{"solver": "exact", "regularization": 2.0, **settings}))
    np.testing.assert_allclose(fitted(train, regularization=2.0, **settings), expected, atol=1e-5)


def test_similarity_alone_is_ease() -> None:
    train = train_of("abc", "bcd", "ade", "ce", "fab")
    ease = Ease(Ease.Config(regularization=2.0), train.num_users, train.num_items, 0)
    ease.fit(train)
    full = np.zeros((7, 7))
    indptr, indices, weights = ease.links
    full[np.repeat(np.arange(7), np.diff(indptr)), indices] = weights
    np.testing.assert_allclose(fitted(train, alpha=1.0, regularization=2.0), full[1:, 1:], atol=1e-6)


def test_the_diagonal_solver_divides_counts_by_counts() -> None:
    """abc twice, a decay of 1 / ln 2: a stands alone and, half weighed, behind b, so its square is 2 (1 + 1/4).

    b follows a twice; c follows b twice and a, half weighed, twice. With `alpha` each pair adds .2 times 2 both ways.
    """
    train = train_of("abc", "abc")
    settings = {"decay": 1 / np.log(2), "regularization": 1.0, "solver": "diagonal"}
    expected = [[0, 2 / 3.5, 1 / 3.5], [0, 0, 2 / 3], [0, 0, 0]]
    np.testing.assert_allclose(fitted(train, **settings), expected, rtol=1e-5)
    a, b, c = 0.8 * 2.5 + 0.2 * 2 + 1, 0.8 * 2 + 0.2 * 2 + 1, 0.2 * 2 + 1
    expected = [[0, 2 / a, (0.8 + 0.4) / a], [0.4 / b, 0, 2 / b], [0.4 / c, 0.4 / c, 0]]
    np.testing.assert_allclose(fitted(train, alpha=0.2, **settings), expected, rtol=1e-5)


def test_the_diagonal_solver_takes_any_catalogue_and_repeats() -> None:
    train = train_of("aab", "aab")
    settings = {"solver": "diagonal", "max_items": 1, "window": 1, "regularization": 1.0}
    np.testing.assert_allclose(fitted(train, **settings), [[0, 2 / 3], [0, 0]], rtol=1e-6)
    repeats = fitted(train, learn_repeats=True, **settings)
    np.testing.assert_allclose(repeats, [[2 / 5, 2 / 5], [0, 0]], rtol=1e-6)


def test_serving_weighs_the_history_as_fitting_did() -> None:
    parts = Slist(Slist.Config(window=7, decay=2.0, floor=0.1), 1, 3, 0).parts()
    assert (parts.link_window, parts.link_decay, parts.link_floor, parts.max_history) == (7, 2.0, 0.1, 7)


def test_only_the_strongest_links_are_kept() -> None:
    train = train_of("ab", "ab", "ac")
    assert (fitted(train, max_links=1) != 0).tolist() == [[False, True, False], [False] * 3, [False] * 3]


def test_a_catalogue_too_large_names_the_key() -> None:
    with pytest.raises(
        TooLargeError, match=r"train\.models\.slist\.max_items: 10 allowed, 11 items found.*solver: diagonal"
    ):
        Slist(Slist.Config(solver="exact", max_items=10), 1, 11, 0)


@pytest.mark.parametrize("sequences", [(), ("a", "b")])
def test_without_a_transition_no_link_is_learned(sequences: tuple[str, ...]) -> None:
    assert not fitted(train_of(*sequences)).any()


@pytest.mark.parametrize(("times", "solver"), [(1, "diagonal"), (50, "exact")])
def test_auto_solves_exactly_where_items_have_many_events(times: int, solver: str) -> None:
    train = train_of(*["abc"] * times)
    np.testing.assert_array_equal(fitted(train, solver="auto"), fitted(train, solver=solver))
    other = "exact" if solver == "diagonal" else "diagonal"
    assert not np.allclose(fitted(train, solver="auto"), fitted(train, solver=other))
    np.testing.assert_array_equal(
        fitted(train, solver="auto", max_items=2), fitted(train, solver="diagonal")
    )  # rather than refusing
