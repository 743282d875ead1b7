"""The encoder of the factorisations: finds the vector of any user from the history, inside the ONNX graph.

Hu, Koren, Volinsky: "Collaborative filtering for implicit feedback datasets" (ICDM 2008): with the item vectors fixed,
a user's vector is a ridge regression. In: item vectors and what the model draws scores to. Out: a torch module. Private
to this folder, so it is no model of the socket. Knows nothing about the order or the weights of a history's events.

Shapes: B batch, L history length, D width, N items (row 0 is padding).
"""

import torch
from torch import nn
from torch.nn import functional as F


class FoldIn(nn.Module):
    """The user vector u of a history S that minimises

    sum over S of (target_i - u.v_i)^2 + a * sum over all items of (bias_i + u.v_i)^2 + ridge * (|S| + a N)^e * |u|^2

    by conjugate gradients with a fixed number of steps, which export as plain products. They run in coordinates in
    which the part that is the same for every user is the identity, so that few steps do (8 leave an error of 1e-6 at
    width 64). Padding has a zero vector and adds nothing; an item that stands twice in S counts twice. An empty history
    gives the vector of "nothing seen". Without biases (None) u is all that comes out, [B, D]; with biases a last column
    of ones meets the item bias, [B, D+1].
    """

    basis: torch.Tensor
    vectors: torch.Tensor
    targets: torch.Tensor
    offset: torch.Tensor
    ridge: torch.Tensor
    identity: torch.Tensor

    def __init__(
        self,
        vectors_ND: torch.Tensor,
        target_N: torch.Tensor,
        bias_N: torch.Tensor | None,
        unobserved_weight: float,
        ridge: float,
        num_steps: int,
        exponent: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.exponent = exponent
        self.has_bias = bias_N is not None
        wide_ND = vectors_ND.double()
        gram_DD = unobserved_weight * wide_ND.T @ wide_ND
        strength_D, axes_DD = torch.linalg.eigh(gram_DD)
        self.unobserved = unobserved_weight * (len(vectors_ND) - 1)
        shared_D = strength_D.clamp(min=0) + ridge * self.unobserved**exponent
        # Without any ridge, directions that no item has keep a finite scale.
        basis_DD = axes_DD * shared_D.clamp(min=1e-6 * float(shared_D.max()) + 1e-12).rsqrt()
        offset_D = torch.zeros(len(strength_D))
        if bias_N is not None:
            offset_D = (-unobserved_weight * bias_N.double() @ wide_ND @ basis_DD).float()
        self.register_buffer("basis", basis_DD.float())
        self.register_buffer("vectors", (wide_ND @ basis_DD).float())
        self.register_buffer("targets", target_N[:, None].float())
        self.register_buffer("offset", offset_D)
        self.register_buffer("ridge", (ridge * basis_DD.T @ basis_DD).float())
        self.register_buffer("identity", torch.eye(len(strength_D)))

    def forward(self, item_idx: torch.Tensor) -> torch.Tensor:
        """User vectors float32 of histories int64 [B, L]."""
        vectors_BLD = F.embedding(item_idx, self.vectors)
        num_seen_B1 = (item_idx != 0).sum(1, keepdim=True).to(vectors_BLD.dtype)
        own_B1 = num_seen_B1
        if self.exponent != 1.0:
            own_B1 = (num_seen_B1 + self.unobserved) ** self.exponent - self.unobserved**self.exponent
        system_BDD = vectors_BLD.transpose(1, 2) @ vectors_BLD + self.identity + own_B1[:, :, None] * self.ridge
        residual = (F.embedding(item_idx, self.targets) * vectors_BLD).sum(1) + self.offset
        user = torch.zeros_like(residual)
        direction, size_B1 = residual, (residual**2).sum(1, keepdim=True)
        for _ in range(self.num_steps):
            product = (system_BDD @ direction[:, :, None])[:, :, 0]
            step_B1 = size_B1 / (direction * product).sum(1, keepdim=True).clamp(min=1e-30)
            user = user + step_B1 * direction
            residual = residual - step_B1 * product
            next_size_B1 = (residual**2).sum(1, keepdim=True)
            direction = residual + next_size_B1 / size_B1.clamp(min=1e-30) * direction
            size_B1 = next_size_B1
        user = user @ self.basis.T
        return torch.cat([user, torch.ones_like(num_seen_B1)], dim=1) if self.has_bias else user
