"""From what the encoders say of an item to its vector, fitted once all are learned: costs trained ones nothing.

The model is trained by ids alone. Then the mean of a Gaussian process, that is kernel ridge regression, is fitted to
the vectors of the items trained on, and gives any other item the vector that its content lets one expect: learned
vectors as the targets of a content model, as in Gantner et al.: "Learning attribute-to-feature mappings for cold-start
recommendations" (ICDM 2010). In: encoder vectors and learned vectors of the items trained on. Out: a torch module,
which is exported as `content.onnx`. Private to this folder, so it is no model of the socket.

Shapes: T items trained on, of which P are landmarks, C columns of all encoders, D width, M some items.
"""

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from scipy import linalg
from torch import nn

from recops.params import Group

_MAX_LANDMARKS = (
    4096  # items that a new one is compared with: the fit takes seconds, the file 25 MB of MiniLM's vectors
)
_MAX_FITTED = 16_384  # items that the map is fitted to: 270 MB of kernel
_AT_ONCE = 2048  # items compared with the landmarks
_JITTER = 1e-6  # makes the matrix of landmarks one that can be inverted where two items have the same content


class ContentMapConfig(Group):
    """Settings of a model that gives new items a vector by their content, after it was trained."""

    content: list[str] = Field(
        [], description="encoders whose vectors say what items are; with any, items never trained on are scored too"
    )
    content_sharpness: float = Field(
        1.0, gt=0, description="near 0 the map is linear; the larger, the more only items of like content speak"
    )
    content_ridge: float = Field(0.03, gt=0, description="how little one item's vector is trusted alone")
    new_item_weight: float = Field(
        1.0, gt=0, description="factor of the scores of items never trained on: above 1 they are shown more often"
    )


class ContentMap(nn.Module):
    """Encoder vectors float32 [M, C], one encoder after the other, to [M, D]:

    mean + k(content) . weights, where k to each landmark is the mean over the encoders of exp(sharpness (cos - 1)).
    Cosines are of vectors less their mean over the items trained on; of an item of which an encoder says nothing
    (zeros) they are 0.
    """

    mean: torch.Tensor
    landmarks: torch.Tensor
    weights: torch.Tensor
    offset: torch.Tensor

    def __init__(
        self, block_dims: Sequence[int], sharpness: float, mean: np.ndarray, landmarks: np.ndarray, offset: np.ndarray
    ) -> None:
        super().__init__()
        self.block_dims, self.sharpness = list(block_dims), sharpness
        for name, array in (("mean", mean), ("landmarks", landmarks), ("offset", offset)):
            self.register_buffer(name, torch.from_numpy(np.asarray(array, np.float32)))
        self.register_buffer("weights", torch.zeros(len(landmarks), len(offset)))

    def kernel(self, content: torch.Tensor) -> torch.Tensor:
        """float [M, P]."""
        total = torch.zeros(len(content), len(self.landmarks), dtype=content.dtype, device=content.device)
        start = 0
        for dim in self.block_dims:
            # Slices, and not `split`, of which the exporter makes a sequence.
            columns = slice(start, start := start + dim)
            block, mean, landmarks = content[:, columns], self.mean[columns], self.landmarks[:, columns]
            cosines = _units(block, mean.to(block.dtype)) @ landmarks.to(block.dtype).T
            total = total + torch.exp(self.sharpness * (cosines - 1))
        return total / len(self.block_dims)

    def forward(self, content: torch.Tensor) -> torch.Tensor:
        return self.offset + self.kernel(content) @ self.weights


class ContentFit:
    """Fits maps of the same items to any vectors: what does not depend on these is computed once.

    `blocks` are the vectors [T, D] of each encoder. Items of which none says anything are left out; without any other
    a map gives the mean of nothing, which is zeros. Of more than 4,096 items the landmarks are drawn (Nyström), and of
    more than 16,384 those that the map is fitted to.
    """

    def __init__(self, blocks: Sequence[np.ndarray], config: ContentMapConfig, seed: int) -> None:
        dims = [block.shape[1] for block in blocks]
        known = np.flatnonzero(np.logical_or.reduce([block.any(1) for block in blocks]))
        drawn = np.random.default_rng(seed).permutation(known)
        self._fitted = np.sort(drawn[:_MAX_FITTED])
        is_landmark = np.isin(self._fitted, drawn[:_MAX_LANDMARKS])
        parts = [torch.from_numpy(block[self._fitted].astype(np.float64)) for block in blocks]
        means = [_mean_of_known(part) for part in parts]
        landmarks = torch.cat(
            [_units(part, mean)[is_landmark] for part, mean in zip(parts, means, strict=True)], dim=-1
        )
        self._arguments = (dims, config.content_sharpness, torch.cat(means).numpy(), landmarks.numpy())
        found, content_MC = ContentMap(*self._arguments, np.zeros(1)), torch.cat(parts, dim=-1)
        kernel_PP = found.kernel(content_MC[is_landmark]).numpy()
        kernel_PP[np.diag_indices_from(kernel_PP)] += _JITTER
        if is_landmark.all():
            self._kernel_MP = None
            system_PP = kernel_PP + config.content_ridge * np.eye(len(kernel_PP))
        else:
            self._kernel_MP = np.empty((len(content_MC), len(landmarks)), np.float32)
            system_PP = config.content_ridge * kernel_PP
            for start in range(0, len(content_MC), _AT_ONCE):
                rows = found.kernel(content_MC[start : start + _AT_ONCE]).numpy()
                system_PP += rows.T @ rows
                self._kernel_MP[start : start + _AT_ONCE] = rows
        self._factor = linalg.cho_factor(system_PP) if len(landmarks) else None

    def __call__(self, vectors_TD: np.ndarray) -> ContentMap:
        """The map to `vectors` [T, D]."""
        wanted_MD = vectors_TD[self._fitted].astype(np.float64)
        offset_D = wanted_MD.mean(0) if len(wanted_MD) else np.zeros(vectors_TD.shape[1])
        found = ContentMap(*self._arguments, offset_D)
        if self._factor is not None:
            wanted_MD = wanted_MD - offset_D
            right_PD = wanted_MD if self._kernel_MP is None else self._kernel_MP.T @ wanted_MD.astype(np.float32)
            found.weights = torch.from_numpy(linalg.cho_solve(self._factor, right_PD).astype(np.float32))
        return found.eval()


@torch.no_grad()
def new_vectors(projection: nn.Module, content_MC: torch.Tensor) -> torch.Tensor:
    """[M, D] of any number of items, some at a time, since each is compared with all landmarks."""
    return torch.cat([projection(some.float()) for some in content_MC.split(_AT_ONCE)])


class Weighed(nn.Module):
    """Item vectors of content as `inner` makes them, times `new_item_weight`."""

    def __init__(self, inner: nn.Module, weight: float) -> None:
        super().__init__()
        self.inner, self.weight = inner, weight

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(inputs) * self.weight


def _mean_of_known(block_TD: torch.Tensor) -> torch.Tensor:
    known = block_TD[block_TD.any(1)]
    return known.mean(0) if len(known) else block_TD.new_zeros(block_TD.shape[1])


def _units(block_MD: torch.Tensor, mean_D: torch.Tensor) -> torch.Tensor:
    """Of length 1 without the mean, zeros where nothing is said."""
    is_said = (block_MD != 0).any(-1, keepdim=True)
    centred = torch.where(is_said, block_MD - mean_D, torch.zeros_like(block_MD))
    return centred / torch.linalg.vector_norm(centred, dim=-1, keepdim=True).clamp(min=1e-9)
