"""Losses over a catalogue: cross-entropy, whole or sampled, and what compares a positive with its negatives.

In: M outputs of a network and the item each should have named. Out: one differentiable mean loss. Knows nothing about
histories, batches or models.

Shapes: M positions, D width, N items, S sampled negatives, B outputs that several positions share.
"""

from typing import Any

import torch
from torch.nn import functional as F


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Makes the gradients while the scores of a chunk are at hand, so that none has to be kept or computed again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: torch.Tensor,
        vectors_ND: torch.Tensor,
        target_M: torch.Tensor,
        dtype: torch.dtype,
        chunk_rows: int,
        smoothing: float,
    ) -> torch.Tensor:
        vectors = vectors_ND.to(dtype)
        grad_hidden = torch.empty_like(hidden_MD)
        grad_vectors = torch.zeros_like(vectors_ND, dtype=torch.float32)
        total = torch.zeros((), dtype=torch.float32, device=hidden_MD.device)
        mean_vector = vectors_ND.float().mean(0)
        for start in range(0, len(hidden_MD), chunk_rows):
            rows = slice(start, start + chunk_rows)
            hidden, target = hidden_MD[rows].to(dtype), target_M[rows, None]
            scores = hidden @ vectors.T
            grad = torch.softmax(scores, dim=-1)
            # The greatest share is at least 1 / N, so its logarithm is safe where the target's own may not be.
            log_sum = scores.amax(1).float() - grad.amax(1).float().log()
            total += (log_sum - (1 - smoothing) * scores.gather(1, target)[:, 0].float()).sum()
            if smoothing:
                total -= smoothing * (hidden.float().sum(0) @ mean_vector)
                grad -= smoothing / len(vectors)
            grad.scatter_add_(1, target, torch.full_like(target, smoothing - 1, dtype=dtype))
            grad_hidden[rows] = grad @ vectors
            grad_vectors += grad.T @ hidden
        ctx.save_for_backward(grad_hidden, grad_vectors)
        return total / max(len(hidden_MD), 1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_vectors = ctx.saved_tensors
        scale = grad_outputs[0] / max(len(grad_hidden), 1)
        return grad_hidden * scale, grad_vectors * scale, None, None, None, None


def full_cross_entropy(
    hidden_MD: torch.Tensor,
    vectors_ND: torch.Tensor,
    target_M: torch.Tensor,
    dtype: torch.dtype = torch.float32,
    chunk_rows: int = 512,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Mean of -log softmax(hidden . vectors)[target] over all N items; 0 for no positions. With `smoothing` that share
    of each target is spread over all items (label smoothing, Szegedy et al., 2016).

    `target_M` int64 in 0..N-1. Products and shares are made in `dtype`, sums in float32; memory is
    `chunk_rows` x N scores.
    """
    return _ChunkedCrossEntropy.apply(hidden_MD, vectors_ND, target_M, dtype, chunk_rows, smoothing)


def sampled_cross_entropy(
    hidden_MD: torch.Tensor,
    vectors_ND: torch.Tensor,
    target_M: torch.Tensor,
    negative_S: torch.Tensor,
    log_q_N: torch.Tensor,
    weight_M: torch.Tensor | None = None,
) -> torch.Tensor:
    """`full_cross_entropy` estimated from S items drawn with replacement from q, shared by all positions.

    Each negative stands for 1 / (S q) items (the logQ correction); the target is always in the sum and therefore
    stands for itself, and a drawn item that is a position's own target is left out there. With `weight_M` the mean is
    weighted.
    """
    weight = log_q_N[negative_S] + torch.log(torch.tensor(float(len(negative_S)), device=log_q_N.device))
    negative_MS = (hidden_MD @ vectors_ND[negative_S].T).float() - weight
    negative_MS = negative_MS.masked_fill(negative_S == target_M[:, None], float("-inf"))
    positive_M1 = (hidden_MD * vectors_ND[target_M]).sum(-1, keepdim=True).float()
    scores = torch.cat([positive_M1, negative_MS], dim=1)
    return _mean(F.cross_entropy(scores, torch.zeros_like(target_M), reduction="none"), weight_M)


def grouped_cross_entropy(
    hidden_BD: torch.Tensor,
    vectors_ND: torch.Tensor,
    row_M: torch.Tensor,
    target_M: torch.Tensor,
    weight_M: torch.Tensor | None = None,
) -> torch.Tensor:
    """`full_cross_entropy` of hidden_BD[row_M], where many positions share an output: the B x N scores are made once.

    All of them are held, unlike there. With `weight_M` the mean is weighted.
    """
    log_sum_B = torch.logsumexp(hidden_BD @ vectors_ND.T, dim=1)
    positive_M = (hidden_BD[row_M] * vectors_ND[target_M]).sum(1)
    return _mean(log_sum_B[row_M] - positive_M, weight_M)


def bpr_loss(positive_M: torch.Tensor, negative_MS: torch.Tensor, weight_M: torch.Tensor | None = None) -> torch.Tensor:
    """Bayesian personalised ranking (Rendle et al., UAI 2009): mean of -log sigmoid(positive - negative) over the S
    negatives and the positions. A negative of -inf costs nothing. With `weight_M` the mean is weighted."""
    return _mean(F.softplus(negative_MS - positive_M[:, None]).mean(1), weight_M)


def gbce_loss(
    positive_M: torch.Tensor,
    negative_MS: torch.Tensor,
    num_items: int,
    calibration: float,
    weight_M: torch.Tensor | None = None,
) -> torch.Tensor:
    """Generalised binary cross-entropy (Petrov and Macdonald: "gSASRec", RecSys 2023): the probability of a positive
    is raised to the power beta, which makes up for the few items that are drawn as negatives.

    beta = a (t (1 - 1 / a) + 1 / a) with a = S / (num_items - 1), the share that is drawn, at most 1; `calibration` t
    is 0 for binary cross-entropy (beta 1) and 1 for beta = a. Mean over the positions of the mean over S + 1 items; a
    negative of -inf costs nothing. With `weight_M` the mean is weighted.
    """
    num_negatives = negative_MS.shape[1]
    drawn = min(num_negatives / max(num_items - 1, 1), 1.0)
    beta = drawn * (calibration * (1 - 1 / drawn) + 1 / drawn)
    total_M = beta * F.softplus(-positive_M) + F.softplus(negative_MS).sum(1)
    return _mean(total_M / (num_negatives + 1), weight_M)


def _mean(loss_M: torch.Tensor, weight_M: torch.Tensor | None) -> torch.Tensor:
    """Positions that weigh nothing at all cost nothing."""
    return loss_M.mean() if weight_M is None else (weight_M * loss_M).sum() / weight_M.sum().clamp(min=1e-12)
