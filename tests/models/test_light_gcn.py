"""LightGCN: a step over a graph of two users and two items, the gradient of it, the fold-in, batches and losses."""

import numpy as np
import polars as pl
import pytest
import torch
from scipy import sparse

from recops.data.interactions import Interactions, make_interactions
from recops.models.light_gcn import LightGcn, _Graph
from recops.training.loop import fit_model


def log(pairs: list[tuple[int, int]], weights: list[float] | None = None) -> Interactions:
    frame = pl.DataFrame(
        {
            "user_id": [f"u{user:02}" for user, _ in pairs],
            "item_id": [f"i{item:02}" for _, item in pairs],
            "timestamp": pl.Series([None] * len(pairs), dtype=pl.Datetime("us", "UTC")),
            "event": "view",
            "value": pl.Series([None] * len(pairs), dtype=pl.Float32),
            "signal": "positive",
            "weight": pl.Series(weights or [1.0] * len(pairs), dtype=pl.Float32),
        }
    )
    return make_interactions(frame)


def tastes() -> Interactions:
    """32 users who each had 5 of the 10 items of their half."""
    generator = np.random.default_rng(0)
    return log([(u, int(i) + 10 * (u % 2)) for u in range(32) for i in generator.choice(10, 5, replace=False)])


def test_one_layer_over_two_users_and_two_items() -> None:
    """u1 had i1 and i2, u2 had i1: R~ = [[1/2, 1/sqrt 2], [1/sqrt 2, 0]]."""
    graph = _Graph(sparse.csr_array(np.array([[0, 0, 0], [0, 1, 1], [0, 1, 0]], np.float32)))
    users_UD = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]])
    items_ND = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    users, items, given = graph.propagate(users_UD, items_ND, num_layers=1)
    root = 2**0.5
    np.testing.assert_allclose(users, np.array([[0, 0], [2 + 1 / 2, 1 / root], [1 / root, 4]]) / 2, rtol=1e-6)
    np.testing.assert_allclose(items, np.array([[0, 0], [1 + 1, 4 / root], [2 / root, 1]]) / 2, rtol=1e-6)
    np.testing.assert_allclose(given, np.array([[0, 0], [1 / root, 0], [0, 1]]) / 2, rtol=1e-6)


def test_the_gradient_is_that_of_the_dense_product() -> None:
    generator = torch.Generator().manual_seed(0)
    seen_UN = (torch.rand(5, 7, generator=generator) < 0.5).float()
    seen_UN[0], seen_UN[:, 0] = 0, 0
    tables = [torch.randn(rows, 3, generator=generator, requires_grad=True) for rows in seen_UN.shape]
    goal = torch.randn(7, 3, generator=generator)
    root_U, root_N = (seen_UN.sum(axis).clamp(min=1).sqrt() for axis in (1, 0))
    dense_UN = seen_UN / root_U[:, None] / root_N
    users, items, total = *tables, tables[1]
    for _ in range(3):
        users, items = dense_UN @ items, dense_UN.T @ users
        total = total + items
    expected = torch.autograd.grad((total / 4 * goal).sum(), tables)
    _, found, _ = _Graph(sparse.csr_array(seen_UN.numpy())).propagate(*tables, num_layers=3)
    for gradient, wanted in zip(torch.autograd.grad((found * goal).sum(), tables), expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_a_trained_user_is_served_what_training_used_less_the_users_own_vector(num_layers: int) -> None:
    train = tastes()
    model = LightGcn(LightGcn.Config(embedding_dim=4, num_layers=num_layers, epochs=2), 32, 20, seed=1)
    fit_model(model, train, None)
    assert model._graph is not None
    users, items, _ = model._graph.propagate(model.module.users, model.module.items, num_layers)
    expected = users - model.module.users / (num_layers + 1)
    parts = model.parts()
    assert parts.encoder is not None and parts.item_vectors is not None
    for user in (1, 7, 32):
        history = [0, 0, *train.history(user).tolist()]
        torch.testing.assert_close(parts.encoder(torch.tensor([history]))[0], expected[user], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(parts.item_vectors, items.detach(), rtol=1e-6)
    assert not parts.encoder(torch.zeros(1, 3, dtype=torch.int64)).any()


def test_an_epoch_has_each_pair_once_with_its_largest_weight() -> None:
    train = log([(1, 1), (1, 2), (1, 1), (2, 3), (3, 1)], [1.0, 2.0, 5.0, 1.0, 3.0])
    model = LightGcn(LightGcn.Config(batch_size=2), 3, 3, seed=1)
    model.prepare(train)
    pairs = []
    for batch in model.batches(torch.Generator().manual_seed(0)):
        users = batch["user_idx"][batch["row"]].tolist()
        pairs += list(zip(users, batch["item_idx"].tolist(), batch["weight"].tolist(), strict=True))
    assert sorted(pairs) == [(1, 1, 5.0), (1, 2, 2.0), (2, 3, 1.0), (3, 1, 3.0)]


def test_what_a_user_had_is_no_negative() -> None:
    model = LightGcn(LightGcn.Config(loss="bpr", num_negatives=64, batch_size=3), 3, 3, seed=1)
    model.prepare(log([(1, 1), (1, 2), (2, 3), (3, 1)]))
    for batch in model.batches(torch.Generator().manual_seed(0)):
        _, negative_MS = model._compared(torch.ones(len(batch["user_idx"]), 64), torch.ones(4, 64), batch)
        user_M = batch["user_idx"][batch["row"]]
        for user, scores_S in zip(user_M.tolist(), negative_MS, strict=True):
            left_out = set(batch["negative"][torch.isneginf(scores_S)].tolist())
            assert left_out == {1: {1, 2}, 2: {3}, 3: {1}}[user]


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax", "bpr", "gbce"])
def test_every_loss_finds_the_half_that_a_history_belongs_to(loss: str) -> None:
    config = LightGcn.Config(embedding_dim=8, loss=loss, num_negatives=8, epochs=6, regularization=1e-4)
    model = LightGcn(config, 32, 20, seed=1)
    report = fit_model(model, tastes(), None)
    assert report.epochs[-1]["loss"] < 0.9 * report.epochs[0]["loss"]
    parts = model.parts()
    assert parts.encoder is not None and parts.item_vectors is not None
    scores_BN = parts.encoder(torch.tensor([[1, 2], [11, 12]])).numpy() @ parts.item_vectors[1:].T
    assert scores_BN[0, :10].min() > scores_BN[0, 10:].max()
    assert scores_BN[1, 10:].min() > scores_BN[1, :10].max()


def test_regularization_is_half_the_squared_length_of_a_pair() -> None:
    losses = []
    for regularization in (0.0, 0.5):
        model = LightGcn(LightGcn.Config(batch_size=1, regularization=regularization), 1, 1, seed=1)
        model.prepare(log([(1, 1)]))
        losses.append(model.loss(next(model.batches(torch.Generator().manual_seed(0)))).item())
    length = (model.module.users[1] ** 2).sum() + (model.module.items[1] ** 2).sum()
    assert losses[1] - losses[0] == pytest.approx(0.5 * length.item() / 2, rel=1e-5)
