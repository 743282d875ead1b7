"""Cross-entropy over a catalogue, whole or sampled, without ever holding all scores at once.

In: M outputs of a network and the item each should have named. Out: one differentiable mean loss. Knows nothing about
histories, batches or models.

Shapes: M positions, D width, N items, S sampled negatives.
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
) -> torch.Tensor:
    """`full_cross_entropy` estimated from S items drawn with replacement from q, shared by all positions.

    Each negative stands for 1 / (S q) items (the logQ correction); the target is always in the sum and therefore
    stands for itself, and a drawn item that is a position's own target is left out there.
    """
    weight = log_q_N[negative_S] + torch.log(torch.tensor(float(len(negative_S)), device=log_q_N.device))
    negative_MS = (hidden_MD @ vectors_ND[negative_S].T).float() - weight
    negative_MS = negative_MS.masked_fill(negative_S == target_M[:, None], float("-inf"))
    positive_M1 = (hidden_MD * vectors_ND[target_M]).sum(-1, keepdim=True).float()
    scores = torch.cat([positive_M1, negative_MS], dim=1)
    return F.cross_entropy(scores, torch.zeros_like(target_M))
