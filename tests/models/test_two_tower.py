"""Two towers: what the user tower reads, what a batch holds, and the correction of in-batch negatives by frequency."""

import numpy as np
import polars as pl
import pytest
import torch

from recops.data.interactions import Interactions, make_interactions
from recops.models.two_tower import TwoTower
from recops.training.loop import fit_model


def log(histories: list[list[int]], weight: float = 1.0) -> Interactions:
    pairs = [(user, item) for user, items in enumerate(histories) for item in items]
    frame = pl.DataFrame(
        {
            "user_id": [f"u{user:02}" for user, _ in pairs],
            "item_id": [f"i{item:02}" for _, item in pairs],
            "timestamp": pl.Series(range(len(pairs)), dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
            "event": "view",
            "value": pl.Series([None] * len(pairs), dtype=pl.Float32),
            "signal": "positive",
            "weight": pl.Series([weight] * len(pairs), dtype=pl.Float32),
        }
    )
    return make_interactions(frame)


def seen(model: TwoTower) -> list[tuple[list[int], int]]:
    """Histories and the items to be predicted, of one epoch."""
    found = []
    for batch in model.batches(torch.Generator().manual_seed(0)):
        targets = batch["candidate"][batch["target"]].tolist()
        found += list(zip(batch["history"].tolist(), targets, strict=True))
    return sorted(found)


def test_each_event_is_predicted_from_those_before_it() -> None:
    model = TwoTower(TwoTower.Config(max_history=2, batch_size=2), 3, 4, seed=1)
    model.prepare(log([[1, 2, 3, 2], [4], [3, 1]]))
    assert seen(model) == [([0, 1], 2), ([0, 3], 1), ([1, 2], 3)]
    model = TwoTower(TwoTower.Config(max_history=2, batch_size=2, learn_repeats=True), 3, 4, seed=1)
    model.prepare(log([[1, 2, 3, 2], [4], [3, 1]]))
    assert seen(model) == [([0, 1], 2), ([0, 3], 1), ([1, 2], 3), ([2, 3], 2)]


@pytest.mark.parametrize("negatives", ["in_batch", "drawn"])
def test_candidates_hold_the_targets_and_the_negatives(negatives: str) -> None:
    model = TwoTower(TwoTower.Config(negatives=negatives, num_negatives=5, batch_size=8), 2, 4, seed=1)
    model.prepare(log([[1, 2, 3], [4, 3]]))
    (batch,) = model.batches(torch.Generator().manual_seed(0))
    candidates, targets = batch["candidate"].tolist(), batch["candidate"][batch["target"]].tolist()
    assert sorted(targets) == [2, 3, 3] and candidates == sorted(set(candidates))
    others = batch["candidate"][batch["negative"]].tolist()
    assert set(candidates) == {*targets, *others}
    if negatives == "in_batch":
        assert others == targets
        torch.testing.assert_close(batch["log_q"].exp(), torch.tensor([1 / 5, 2 / 5]))
    else:
        assert len(others) == 5
        share = np.array([1, 1, 2**0.75, 1])
        torch.testing.assert_close(
            batch["log_q"].exp().double(), torch.from_numpy((share / share.sum())[np.array(candidates) - 1])
        )


def test_in_batch_loss_divides_each_negative_by_its_frequency() -> None:
    """Targets 2, 3, 3 of q = 1/5, 2/5, 2/5: a negative weighs exp(score) / (3 q), a target exp(score)."""
    model = TwoTower(TwoTower.Config(embedding_dim=4, temperature=0.5, dropout=0.0), 2, 4, seed=1)
    model.prepare(log([[1, 2, 3], [4, 3]]))
    (batch,) = model.batches(torch.Generator().manual_seed(0))
    users_BD = model.module(batch["history"]).detach().double().numpy()
    items_ND = model.module.item_tower(model.module.items.weight).detach().double().numpy()
    share = {2: 1 / 5, 3: 2 / 5}
    targets, costs = batch["candidate"][batch["target"]].tolist(), []
    for user, target in zip(users_BD, targets, strict=True):
        size = {item: np.exp(user @ items_ND[item] / 0.5) for item in (2, 3)}
        others = sum(size[item] / (3 * share[item]) for item in targets if item != target)
        costs.append(-np.log(size[target] / (size[target] + others)))
    assert model.loss(batch).item() == pytest.approx(np.mean(costs), rel=1e-5)


def test_the_user_tower_reads_the_mean_by_learned_weights_of_places() -> None:
    model = TwoTower(TwoTower.Config(embedding_dim=4, max_history=3), 2, 5, seed=1)
    model.module.eval()
    with torch.no_grad():
        model.module.log_place_weight.copy_(torch.tensor([3.0, 1.0, 7.0]).log())
        items_ND = model.module.items.weight
        expected = model.module.user_tower((3 * items_ND[2] + 1 * items_ND[5]) / 4)
        for padded in ([5, 2], [0, 5, 2]):
            torch.testing.assert_close(model.module(torch.tensor([padded]))[0], expected)
        assert not torch.allclose(model.module(torch.tensor([[2, 5]]))[0], expected)


def test_scores_are_cosines_over_the_temperature() -> None:
    model = TwoTower(TwoTower.Config(embedding_dim=4, temperature=0.25), 2, 5, seed=1)
    parts = model.parts()
    assert parts.encoder is not None and parts.item_vectors is not None and not parts.item_vectors[0].any()
    np.testing.assert_allclose(np.linalg.norm(parts.item_vectors[1:], axis=1), 4, rtol=1e-5)
    users_BD = parts.encoder(torch.tensor([[1, 2], [0, 3]])).detach()
    np.testing.assert_allclose(np.linalg.norm(users_BD, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("negatives", ["in_batch", "drawn"])
def test_learns_what_follows_the_last_item(negatives: str) -> None:
    """Items go round in a circle of 12; who has just had i gets i + 1, whatever came before."""
    train = log([[1 + (start + step) % 12 for step in range(6)] for start in range(12)])
    config = TwoTower.Config(
        embedding_dim=16,
        negatives=negatives,
        num_negatives=12,
        epochs=40,
        batch_size=30,
        learning_rate=0.02,
        dropout=0.0,
    )
    model = TwoTower(config, 12, 12, seed=1)
    fit_model(model, train, None)
    parts = model.parts()
    assert parts.encoder is not None and parts.item_vectors is not None
    histories = torch.tensor([[1 + (item - 2) % 12, 1 + (item - 1) % 12, item] for item in range(1, 13)])
    scores_BN = parts.encoder(histories).detach().numpy() @ parts.item_vectors.T
    np.put_along_axis(scores_BN, np.column_stack([histories.numpy(), np.zeros(12, int)]), -np.inf, 1)
    assert scores_BN.argmax(1).tolist() == [1 + item % 12 for item in range(1, 13)]
