"""iALS against the dense normal equations, and its encoder against its own user vectors."""

import itertools

import numpy as np
import polars as pl
import pytest
import torch
from scipy import sparse

from recops.data.interactions import Interactions, make_interactions
from recops.models import ials
from recops.models._fold_in import FoldIn
from recops.models.ials import Ials


def interactions(rows: list[tuple[str, str, float]]) -> Interactions:
    """From (user, item, weight)."""
    columns = {"user_id": pl.String, "item_id": pl.String, "weight": pl.Float32}
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    return make_interactions(
        frame.with_columns(
            pl.lit(None, pl.Datetime("us", "UTC")).alias("timestamp"),
            pl.lit("play").alias("event"),
            pl.lit(None, pl.Float32).alias("value"),
            pl.lit("positive").alias("signal"),
        )
    )


def planted(num_users: int = 30, num_items: int = 24, per_user: int = 6) -> Interactions:
    """Even users like the first half of the items, odd users the second."""
    generator = np.random.default_rng(0)
    half = num_items // 2
    return interactions(
        [
            (f"u{user:02}", f"i{half * (user % 2) + item:02}", float(generator.integers(1, 4)))
            for user in range(num_users)
            for item in generator.choice(half, per_user, replace=False)
        ]
    )


def model_of(train: Interactions, **config: float) -> Ials:
    model = Ials(Ials.Config(**config), train.num_users, train.num_items, seed=1)
    model.fit(train)
    return model


@pytest.mark.parametrize("exponent", [1.0, 0.5, 0.0])
def test_a_solution_is_that_of_the_normal_equations(exponent: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of very different lengths, weights other than 1, one row without events; blocks of one row and of many."""
    generator = np.random.default_rng(2)
    weights = np.where(
        generator.random((9, 15)) < np.linspace(0, 0.9, 9)[:, None], generator.uniform(0.5, 3, (9, 15)), 0
    )
    weights[:, 0] = 0
    others = generator.standard_normal((15, 4)).astype(np.float32)
    others[0] = 0
    model = Ials(Ials.Config(regularization=0.1, regularization_exponent=exponent, solver_steps=12), 8, 14, seed=0)
    model.unobserved_weight[0] = 0.3
    start = generator.standard_normal((9, 4)).astype(np.float32)
    found = []
    for cells in (1, 100, 10_000):
        monkeypatch.setattr(ials, "BLOCK_CELLS", cells)
        found.append(model._solve(sparse.csr_array(weights.astype(np.float32)), start, others))
    for row, weight in enumerate(weights):
        ridge = 0.1 * (weight.sum() + 0.3 * 14) ** exponent
        system = others.T @ (weight[:, None] * others) + 0.3 * others.T @ others + ridge * np.eye(4)
        expected = np.linalg.solve(system, others.T @ weight)
        for solution in found:
            np.testing.assert_allclose(solution[row], expected, rtol=1e-3, atol=1e-4)
    assert not found[0][0].any()


def test_one_item_by_hand() -> None:
    """One user, one item: with a = 1 and regularization 0.1 both vectors solve x (y^2 + y^2 + 0.2) = y, so that at the
    end x = y, 2 x^2 + 0.2 = 1 and the score is x^2 = 0.4."""
    model = model_of(interactions([("u", "a", 1.0)]), embedding_dim=1, num_negatives=1.0, regularization=0.1, epochs=60)
    encoder = model.parts().encoder
    assert encoder is not None
    assert float(encoder(torch.tensor([[1]]))[0, 0] * model.item_vectors[1, 0]) == pytest.approx(0.4, abs=1e-3)


def test_encoder_solves_what_training_solved() -> None:
    """A history with an item twice is a user whose item has weight 2; the exponent of the ridge is no whole number."""
    train = interactions([(u, i, 1.0) for u, i in ("ua", "ub", "ub", "va", "vc", "wb", "wc")])
    model = model_of(train, embedding_dim=3, regularization_exponent=0.5, fold_in_steps=8)
    vectors, a = model.item_vectors.astype(np.float64), float(model.unobserved_weight[0])
    assert a == pytest.approx(10 * 7 / 9)
    weight = np.array([0, 1, 2, 0])
    ridge = 0.005 * (3 + 3 * a) ** 0.5
    system = vectors.T @ (weight[:, None] * vectors) + a * vectors.T @ vectors + ridge * np.eye(3)
    encoder = model.parts().encoder
    assert isinstance(encoder, FoldIn)
    found = encoder(torch.tensor([[0, 1, 2, 2]]))[0].numpy()
    np.testing.assert_allclose(found, np.linalg.solve(system, vectors.T @ weight), rtol=1e-3, atol=1e-5)
    assert not encoder(torch.zeros((1, 3), dtype=torch.long)).any()


def test_repeated_events_count_as_their_summed_weight() -> None:
    rows = [("u", "a", 1.0), ("u", "b", 1.0), ("v", "b", 1.0), ("v", "c", 1.0)]
    twice = model_of(interactions([*rows, ("v", "c", 1.0)]), embedding_dim=2, num_negatives=4.0)
    heavy = model_of(interactions([*rows[:3], ("v", "c", 2.0)]), embedding_dim=2, num_negatives=5.0)
    np.testing.assert_allclose(twice.item_vectors, heavy.item_vectors, atol=1e-5)


def test_epochs_lower_the_objective_of_the_docstring() -> None:
    train = planted()
    weights = np.zeros((train.num_users + 1, train.num_items + 1))
    np.add.at(weights, (train.user_idx, train.item_idx), train.weight)

    def objective(epochs: int) -> float:
        model = model_of(train, embedding_dim=6, epochs=epochs, regularization=0.02, solver_steps=20)
        items, a = model.item_vectors.astype(np.float64), float(model.unobserved_weight[0])
        users = model._solve(sparse.csr_array(weights.astype(np.float32)), np.zeros((31, 6), np.float32), items)
        scores = users @ items.T
        user_ridge = (weights.sum(1) + a * train.num_items) * (users**2).sum(1)
        item_ridge = (weights.sum(0) + a * train.num_users) * (items**2).sum(1)
        fit = (weights * (1 - scores) ** 2).sum() + a * (scores[1:, 1:] ** 2).sum()
        return fit + 0.02 * (user_ridge[1:].sum() + item_ridge[1:].sum())

    losses = [objective(epochs) for epochs in (1, 2, 4, 8)]
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))


def test_no_events() -> None:
    model = model_of(interactions([]), embedding_dim=2)
    parts = model.parts()
    assert parts.item_vectors is not None and parts.item_vectors.shape == (1, 2) and not parts.item_vectors.any()
