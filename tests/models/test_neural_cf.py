"""NeuMF: what is served against the formula of the paper, and the negatives that training draws."""

import math

import numpy as np
import polars as pl
import pytest
import torch

from recops.data.interactions import Interactions, make_interactions
from recops.models.neural_cf import NeuralCf


def log(pairs: list[tuple[int, int]], weight: float = 1.0) -> Interactions:
    frame = pl.DataFrame(
        {
            "user_id": [f"u{user}" for user, _ in pairs],
            "item_id": [f"i{item}" for _, item in pairs],
            "timestamp": pl.Series([None] * len(pairs), dtype=pl.Datetime("us", "UTC")),
            "event": "view",
            "value": pl.Series([None] * len(pairs), dtype=pl.Float32),
            "signal": "positive",
            "weight": pl.Series([weight] * len(pairs), dtype=pl.Float32),
        }
    )
    return make_interactions(frame)


def test_what_is_served_is_the_formula_of_the_paper() -> None:
    """h' [p_u * q_i, MLP([p'_u, q'_i])], with the first layer over a concatenation."""
    model = NeuralCf(NeuralCf.Config(embedding_dim=3, hidden_dims=[5, 4]), 6, 7, seed=1)
    state = {name: value.astype(np.float64) for name, value in model.state().items()}
    first = np.hstack([state["user_part.weight"], state["item_part.weight"]])
    parts = model.parts()
    assert parts.user_table is not None and parts.item_vectors is not None and parts.ranker is not None
    found = parts.ranker(torch.from_numpy(parts.user_table), torch.from_numpy(parts.item_vectors)).detach().numpy()
    assert found.shape == (7, 8)
    for user in range(7):
        for item in range(8):
            product = state["gmf_users.weight"][user] * state["gmf_items.weight"][item]
            both = np.concatenate([state["mlp_users.weight"][user], state["mlp_items.weight"][item]])
            hidden = np.maximum(first @ both + state["user_part.bias"], 0)
            hidden = np.maximum(state["top.2.weight"] @ hidden + state["top.2.bias"], 0)
            fused = np.concatenate([state["gmf_head.weight"][0], state["top.5.weight"][0]])
            expected = fused @ np.concatenate([product, hidden]) + state["top.5.bias"][0]
            assert found[user, item] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_items_that_a_user_had_are_no_negatives() -> None:
    train = log([(1, 1), (1, 2), (2, 3), (3, 1), (3, 3), (3, 2)])
    model = NeuralCf(NeuralCf.Config(num_negatives=50, batch_size=4), 3, 3, seed=1)
    model.prepare(train)
    had, kinds = {1: {1, 2}, 2: {3}, 3: {1, 2, 3}}, set()
    for batch in model.batches(torch.Generator().manual_seed(0)):
        for user, items, told in zip(
            batch["user_idx"].tolist(), batch["negative_idx"].tolist(), batch["is_negative"].tolist(), strict=True
        ):
            assert told == [item not in had[user] for item in items]
            kinds.update(told)
    assert kinds == {True, False}


def test_the_loss_of_scores_of_zero_counts_the_negatives() -> None:
    """Each probability is 1/2, so an event costs log 2 and so does each item drawn that the user never had."""
    model = NeuralCf(NeuralCf.Config(num_negatives=2, batch_size=3, dropout=0.0), 2, 4, seed=1)
    model.prepare(log([(1, 1), (1, 2), (2, 3), (2, 4)], weight=2.0))
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.zero_()
    batch = {
        "user_idx": torch.tensor([1, 1]),
        "item_idx": torch.tensor([1, 2]),
        "weight": torch.tensor([2.0, 2.0]),
        "negative_idx": torch.tensor([[3, 4], [1, 4]]),
        "is_negative": torch.tensor([[True, True], [False, True]]),
    }
    assert model.loss(batch).item() == pytest.approx(2 * (3 + 2) / 2 * math.log(2))


def test_negatives_are_drawn_anew_each_epoch_and_repeat_with_the_generator() -> None:
    model = NeuralCf(NeuralCf.Config(), 3, 9, seed=1)
    model.prepare(log([(user, item) for user in (1, 2, 3) for item in range(1, 10) if (user + item) % 2]))

    def drawn(seed: int) -> list[list[int]]:
        batch = next(model.batches(torch.Generator().manual_seed(seed)))
        order = torch.argsort(batch["user_idx"] * 10 + batch["item_idx"])
        return batch["negative_idx"][order].tolist()

    assert drawn(1) == drawn(1) != drawn(2)


def test_row_0_of_the_items_stays_zero() -> None:
    model = NeuralCf(NeuralCf.Config(), 3, 9, seed=1)
    vectors = model.parts().item_vectors
    assert vectors is not None and not vectors[0].any() and vectors[1:].any(axis=1).all()
