"""What is special about the two factor models: the fold-in, the split first layer, the objectives."""

import numpy as np
import polars as pl
import pytest
import torch

from recops.data.interactions import Interactions, make_interactions
from recops.errors import CallError
from recops.models.concat_mlp import ConcatMlp
from recops.models.matrix_factorization import MatrixFactorization
from recops.training.loop import fit_model


def ratings(value: float | None = None) -> Interactions:
    """40 users who each rated 6 of 20 items; rating = 2 + user's parity + item's parity where no value is given."""
    generator = np.random.default_rng(0)
    rows = [(user, int(item)) for user in range(40) for item in generator.choice(20, 6, replace=False)]
    values = [2.0 + user % 2 + item % 2 for user, item in rows]
    frame = pl.DataFrame(
        {
            "user_id": [f"u{user:02}" for user, _ in rows],
            "item_id": [f"i{item:02}" for _, item in rows],
            "timestamp": pl.Series([None] * len(rows), dtype=pl.Datetime("us", "UTC")),
            "event": "rating",
            "value": pl.Series(values if value is None else [value] * len(rows), dtype=pl.Float32),
            "signal": "positive",
            "weight": pl.Series([1.0] * len(rows), dtype=pl.Float32),
        }
    )
    return make_interactions(frame)


def test_fold_in_is_the_ridge_regression_of_its_docstring() -> None:
    train = ratings()
    model = MatrixFactorization(MatrixFactorization.Config(embedding_dim=8, epochs=5, batch_size=64), 40, 20, seed=1)
    fit_model(model, train, None)
    state = {name: value.astype(np.float64) for name, value in model.state().items()}
    vectors, bias = state["items.weight"], state["item_bias.weight"][:, 0]
    weight, ridge = float(state["unobserved_weight"]), model.config.regularization
    parts = model.parts()
    assert parts.encoder is not None and parts.item_vectors is not None
    for history in ([3], [4, 9, 11], [7, 7], list(range(1, 21)), []):
        seen = np.array(history, dtype=int)
        system = vectors[seen].T @ vectors[seen] + weight * vectors.T @ vectors
        system += ridge * (len(seen) + weight * 20) * np.eye(8)
        expected = np.linalg.solve(system, vectors[seen].T @ (1 - bias[seen]) - weight * vectors.T @ bias)
        found = parts.encoder(torch.tensor([[0, 0, *history]]))[0].numpy()
        np.testing.assert_allclose(found, [*expected, 1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(parts.item_vectors, np.column_stack([vectors, bias]), atol=1e-6)


def test_implicit_loss_is_that_of_the_whole_matrix() -> None:
    """Without sampling: the mean over events of (1 - s)^2 plus the weighted sum of s^2 over all pairs."""
    train = ratings()
    config = MatrixFactorization.Config(embedding_dim=4, regularization=0.0, batch_size=10_000, num_negatives=2.0)
    model = MatrixFactorization(config, 40, 20, seed=1)
    model.prepare(train)
    with torch.no_grad():
        for table in (model.module.user_bias, model.module.item_bias):
            table.weight[1:].normal_(generator=torch.Generator().manual_seed(0))
        (batch,) = model.batches(torch.Generator().manual_seed(0))
        found = float(model.loss(batch))
        scores = model.module(torch.arange(1, 41)[:, None], torch.arange(1, 21)[None])
        observed = scores[train.user_idx - 1, train.item_idx - 1]
        every_pair = 2.0 * len(train) / (40 * 20) * (scores**2).sum()
        expected = float((((1 - observed) ** 2).sum() + every_pair) / len(train))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("model_class", [MatrixFactorization, ConcatMlp])
def test_mse_learns_the_ratings(model_class: type) -> None:
    """The planted ratings have variance .5; both models see what makes them."""
    train = ratings()
    config = model_class.Config(objective="mse", epochs=60, batch_size=64, learning_rate=0.02, embedding_dim=8)
    model = model_class(config, 40, 20, seed=0)
    fit_model(model, train, None)
    with torch.no_grad():
        predicted = model.module(torch.from_numpy(train.user_idx).long(), torch.from_numpy(train.item_idx).long())
    assert float(((predicted.numpy() - train.value) ** 2).mean()) < 0.1


@pytest.mark.parametrize("model_class", [MatrixFactorization, ConcatMlp])
def test_mse_names_the_key_where_values_are_missing(model_class: type) -> None:
    model = model_class(model_class.Config(objective="mse"), 40, 20, seed=0)
    with pytest.raises(CallError, match=r"objective: mse needs a value for every event, 240 of 240 have none"):
        model.prepare(ratings(value=float("nan")))


def test_ranker_gives_what_the_concatenation_gives() -> None:
    """The user and the item embedding side by side through one first layer, written out."""
    model = ConcatMlp(ConcatMlp.Config(embedding_dim=4, hidden_dims=[6, 5]), 3, 7, seed=0)
    mlp = model.module.eval()
    parts = model.parts()
    assert parts.ranker is not None and parts.item_vectors is not None
    with torch.no_grad():
        users = mlp.users.weight[1:]
        first = torch.cat([mlp.user_part.weight, mlp.item_part.weight], 1)
        pairs = torch.cat([users[:, None].expand(3, 8, 4), mlp.items.weight[None].expand(3, 8, 4)], 2)
        expected = mlp.top(pairs @ first.T + mlp.user_part.bias)[:, :, 0]
        found = parts.ranker(mlp.user_part(users), torch.from_numpy(parts.item_vectors))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_mlp_serves_known_users_nearly_as_trained() -> None:
    """The fold-in from the history keeps most of what the learned user embedding says."""
    train = ratings()
    model = ConcatMlp(ConcatMlp.Config(embedding_dim=8, epochs=30, batch_size=64, dropout=0.0), 40, 20, seed=0)
    fit_model(model, train, None)
    parts = model.parts()
    assert parts.encoder is not None and parts.ranker is not None and parts.item_vectors is not None
    histories = torch.from_numpy(np.stack([train.history(user) for user in range(1, 41)]).astype(np.int64))
    with torch.no_grad():
        served = parts.ranker(parts.encoder(histories), torch.from_numpy(parts.item_vectors))[:, 1:]
        trained = model.module(torch.arange(1, 41)[:, None], torch.arange(1, 21)[None])
    assert np.corrcoef(served.numpy().ravel(), trained.numpy().ravel())[0, 1] > 0.5
