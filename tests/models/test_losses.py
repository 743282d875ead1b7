"""The losses against the plain formulas of torch and numbers worked by hand, gradients included."""

import math

import pytest
import torch
from torch.nn import functional as F

from recops.models._losses import (
    bpr_loss,
    full_cross_entropy,
    gbce_loss,
    grouped_cross_entropy,
    sampled_cross_entropy,
)


def positions(num_positions: int, num_items: int, dim: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num_positions)
    hidden_MD = torch.randn(num_positions, dim, generator=generator, requires_grad=True)
    vectors_ND = torch.randn(num_items, dim, generator=generator, requires_grad=True)
    return hidden_MD, vectors_ND, torch.randint(num_items, (num_positions,), generator=generator)


@pytest.mark.parametrize("num_positions", [1, 5, 8, 37])
def test_chunks_add_up_to_the_cross_entropy_of_all_scores(num_positions: int) -> None:
    hidden_MD, vectors_ND, target_M = positions(num_positions, num_items=23)
    expected = F.cross_entropy(hidden_MD @ vectors_ND.T, target_M)
    expected_gradients = torch.autograd.grad(3 * expected, (hidden_MD, vectors_ND))
    loss = full_cross_entropy(hidden_MD, vectors_ND, target_M, chunk_rows=8)
    gradients = torch.autograd.grad(3 * loss, (hidden_MD, vectors_ND))
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, atol=1e-5, rtol=0)


def test_a_target_far_below_the_best_item_has_a_finite_loss() -> None:
    loss = full_cross_entropy(torch.tensor([[1.0]]), torch.tensor([[0.0], [500.0]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(500)


def test_no_positions_cost_nothing() -> None:
    hidden_MD, vectors_ND = torch.zeros(0, 4, requires_grad=True), torch.ones(3, 4, requires_grad=True)
    loss = full_cross_entropy(hidden_MD, vectors_ND, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert vectors_ND.grad is not None and not vectors_ND.grad.any()


def test_bf16_stays_near_float32() -> None:
    hidden_MD, vectors_ND, target_M = positions(64, num_items=100)
    exact = full_cross_entropy(hidden_MD, vectors_ND, target_M)
    assert full_cross_entropy(hidden_MD, vectors_ND, target_M, torch.bfloat16).item() == pytest.approx(
        exact.item(), rel=0.02
    )


def test_a_sample_of_every_item_once_by_equal_chance_is_the_full_loss() -> None:
    """With q = 1 / N and each item drawn once, each negative stands for exactly one item."""
    hidden_MD, vectors_ND, target_M = positions(6, num_items=9)
    log_q_N = torch.full((9,), 1 / 9).log()
    loss = sampled_cross_entropy(hidden_MD, vectors_ND, target_M, torch.arange(9), log_q_N)
    torch.testing.assert_close(loss, F.cross_entropy(hidden_MD @ vectors_ND.T, target_M))


def test_the_sampled_loss_does_not_lean_to_how_often_items_are_drawn() -> None:
    """Large samples from an uneven q come near the full loss; without the correction they do not."""
    hidden_MD, vectors_ND, target_M = positions(6, num_items=9)
    q_N = torch.arange(1, 10) / 45
    negative_S = torch.multinomial(q_N, 20_000, replacement=True, generator=torch.Generator().manual_seed(1))
    expected = F.cross_entropy(hidden_MD @ vectors_ND.T, target_M).item()
    corrected = sampled_cross_entropy(hidden_MD, vectors_ND, target_M, negative_S, q_N.log()).item()
    uncorrected = sampled_cross_entropy(
        hidden_MD, vectors_ND, target_M, negative_S, torch.full((9,), 1 / 9).log()
    ).item()
    assert corrected == pytest.approx(expected, abs=0.02)
    assert abs(uncorrected - expected) > 0.05


def test_weights_make_the_sampled_loss_a_weighted_mean() -> None:
    hidden_MD, vectors_ND, target_M = positions(2, num_items=9)
    rest = (vectors_ND, torch.tensor([1, 5]), torch.log(torch.full((9,), 1 / 9)))
    first, second = (sampled_cross_entropy(hidden_MD[[m]], rest[0], target_M[[m]], *rest[1:]) for m in (0, 1))
    both = sampled_cross_entropy(hidden_MD, rest[0], target_M, *rest[1:], torch.tensor([3.0, 1.0]))
    torch.testing.assert_close(both, (3 * first + second) / 4)


def test_positions_that_share_an_output_cost_what_they_cost_alone() -> None:
    hidden_BD, vectors_ND, _ = positions(3, num_items=7)
    row_M, target_M = torch.tensor([0, 0, 2, 2, 2]), torch.tensor([1, 6, 0, 1, 4])
    loss = grouped_cross_entropy(hidden_BD, vectors_ND, row_M, target_M)
    torch.testing.assert_close(loss, F.cross_entropy(hidden_BD[row_M] @ vectors_ND.T, target_M))
    weight_M = torch.tensor([0.0, 0.0, 0.0, 2.0, 0.0])
    loss = grouped_cross_entropy(hidden_BD, vectors_ND, row_M, target_M, weight_M)
    torch.testing.assert_close(loss, F.cross_entropy(hidden_BD[[2]] @ vectors_ND.T, target_M[[3]]))


def test_bpr_of_known_scores() -> None:
    """-log sigmoid(1 - 0) = log(1 + 1/e) = .3133 and -log sigmoid(1 - 1) = log 2 = .6931."""
    positive_M = torch.tensor([1.0, 0.0])
    negative_MS = torch.tensor([[0.0, 1.0], [0.0, -math.inf]])
    assert bpr_loss(positive_M[:1], negative_MS[:1]).item() == pytest.approx((0.313262 + 0.693147) / 2, abs=1e-6)
    assert bpr_loss(positive_M, negative_MS, torch.tensor([0.0, 5.0])).item() == pytest.approx(math.log(2) / 2)
    assert bpr_loss(positive_M, negative_MS, torch.zeros(2)).item() == 0


def test_gbce_of_known_scores() -> None:
    """2 of 10 drawn: a = .2, beta = .2 (.5 (1 - 5) + 5) = .6; sigmoid(0) = 1/2 and 1 - sigmoid(log 3) = 1/4."""
    positive_M, negative_MS = torch.zeros(1), torch.tensor([[0.0, math.log(3)]])
    loss = gbce_loss(positive_M, negative_MS, num_items=11, calibration=0.5)
    assert loss.item() == pytest.approx((0.6 + 1 + 2) * math.log(2) / 3)


@pytest.mark.parametrize(("calibration", "beta"), [(0.0, 1.0), (1.0, 0.2)])
def test_gbce_at_the_ends_of_its_calibration(calibration: float, beta: float) -> None:
    loss = gbce_loss(torch.tensor([2.0]), torch.full((1, 2), -math.inf), num_items=11, calibration=calibration)
    assert loss.item() == pytest.approx(beta * math.log(1 + math.exp(-2)) / 3)


def test_a_negative_that_is_left_out_has_no_gradient() -> None:
    scores_MS = torch.zeros(1, 2, requires_grad=True)
    masked_MS = scores_MS.masked_fill(torch.tensor([[True, False]]), -math.inf)
    (bpr_loss(torch.ones(1), masked_MS) + gbce_loss(torch.ones(1), masked_MS, 11, 0.5)).backward()
    assert scores_MS.grad is not None and scores_MS.grad[0, 0] == 0 and scores_MS.grad[0, 1] > 0
