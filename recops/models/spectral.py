"""Graph filter: passes what varies slowly over the graph of items that share users, in closed form.

Shen et al.: "How powerful is graph convolution for recommendation?" (CIKM 2021; GF-CF) and Kim et al.: "Graph spectral
filtering with Chebyshev interpolation for recommendation" (SIGIR 2025; ChebyCF). With R~ = Du^-1/2 R Di^-1/2 and
S = R~'R~, the scores of a history x (0/1 over the items) are x Di^-b f(S) Di^b. In: `Interactions`. Out: f(S) as item
vectors (its largest eigenvalues) and `links` (the rest, in which f is close to a straight line, so that a multiple of S
stands for it, cut to its strongest). Knows nothing about the order of a history. With `content` an item that was never
trained on gets the item vector that its content lets one expect (`_content_map.py`); nothing changes for the others.

A pair seen several times in training counts once, with its largest event weight. In a history each event counts, so an
item that stands there twice counts twice: in evaluation as in serving.

Shapes: N items (row 0 is padding), U users, D kept eigenvectors, B batch, L history length.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.polynomial import Chebyshev
from pydantic import Field
from scipy import sparse
from torch import nn
from torch.nn import functional as F

from recops.data.content import ItemContent
from recops.data.interactions import Interactions
from recops.models._content import content_blocks
from recops.models._content_map import ContentFit, ContentMapConfig, Weighed, new_vectors
from recops.models._links import no_links, pack_links, user_item_matrix
from recops.nearest import strongest
from recops.protocols import ServingParts

BLOCK_CELLS = 8_000_000  # most entries of one block of S: about 100 MB while it is cut
_SPARE = 50  # vectors of the subspace iteration beyond those asked for
_ITERATIONS = 6


class _SumOfRows(nn.Module):
    """The sum of the rows of a history's items: float32 [B, D] from int64 [B, L]. The row of padding is zero."""

    rows: torch.Tensor

    def __init__(self, rows_ND: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("rows", torch.from_numpy(rows_ND))

    def forward(self, item_idx: torch.Tensor) -> torch.Tensor:
        return F.embedding(item_idx, self.rows).sum(1)


class Spectral:
    """f(s) over the eigenvalues s of S, between 0 and 1: plateau(s) + ideal_weight where s is among the `num_ideal`
    largest; plateau(s) = 1/2 + sign(2s - 1) |2s - 1|^flatness / 2. `flatness` 1 is GF-CF's f(s) = s + ideal_weight.

    Without any event every score is 0.
    """

    takes = "history"

    class Config(ContentMapConfig):
        num_factors: int = Field(256, ge=1, description="eigenvectors kept as item vectors; fewer where there are")
        num_ideal: int = Field(256, ge=0, description="of these, the eigenvectors that get ideal_weight on top")
        ideal_weight: float = Field(0.3, ge=0, description="alpha of the papers")
        flatness: float = Field(1.5, gt=0, description="of the plateau; above 1 it is flat in the middle")
        order: int | None = Field(
            None, ge=1, le=64, description="degree of the Chebyshev polynomial that stands for the plateau; null: exact"
        )
        degree_exponent: float = Field(0.4, ge=0, le=1, description="b: 0 is no, 1 full favour for popular items")
        max_links: int = Field(300, ge=0, description="largest weights kept for each history item; 0: no links")
        max_history: int = Field(500, ge=1, description="last events of a user that count")

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        self.config = config
        self._seed = seed
        self.history_axes = np.zeros((num_items + 1, 1), np.float32)
        self.response = np.zeros((2, 1))  # f of the kept eigenvalues: less what the links say of it, and whole
        self.item_vectors = np.zeros((num_items + 1, 1), np.float32)
        self.links = no_links(num_items)
        self._blocks: list[np.ndarray] = []

    def attach_content(self, content: ItemContent | None) -> None:
        self._blocks = content_blocks(content, self.config.content)

    def fit(self, train: Interactions) -> None:
        if len(train) == 0:
            return
        config = self.config
        seen_UN = user_item_matrix(train)
        degree_N = seen_UN.sum(axis=0)
        graph_UN = (_power(seen_UN.sum(axis=1), -0.5)[:, None] * seen_UN * _power(degree_N, -0.5)[None]).tocsr()
        strength_D, axes_ND = _largest(graph_UN, config.num_factors, self._seed)
        response_D = _plateau(strength_D, config.flatness, config.order)
        slope = 0.0
        if config.max_links:
            # The straight line through 0 that meets f where the kept eigenvalues end.
            last = np.array([max(strength_D[-1], 1e-3)])
            slope = max(0.0, _plateau(last, config.flatness, config.order)[0] / last[0])
        self.response = np.stack([response_D - slope * strength_D, response_D])
        self.response[:, : config.num_ideal] += config.ideal_weight
        to_graph_N, from_graph_N = (_power(degree_N, sign * config.degree_exponent) for sign in (-1, 1))
        self.history_axes = to_graph_N[:, None] * axes_ND
        self.item_vectors = (from_graph_N[:, None] * axes_ND).astype(np.float32)
        if slope:
            self.links = pack_links(self._rows(graph_UN, slope * to_graph_N, from_graph_N))

    def _rows(
        self, graph_UN: sparse.csr_array, to_graph_N: np.ndarray, from_graph_N: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(items, weights) of each row of the links, row 0 (padding, empty) first. No item votes for itself."""
        by_item_NU = graph_UN.T.tocsr()
        num_rows = by_item_NU.shape[0]
        block_size = max(1, BLOCK_CELLS // num_rows)
        for start in range(0, num_rows, block_size):
            products = (by_item_NU[start : start + block_size] @ graph_UN).tocsr()
            products.sort_indices()
            for row in range(products.shape[0]):
                cut = slice(products.indptr[row], products.indptr[row + 1])
                others = products.indices[cut]
                weights = products.data[cut] * (to_graph_N[start + row] * from_graph_N[others])
                weights[others == start + row] = 0
                keep = strongest(weights, self.config.max_links)
                yield others[keep], weights[keep]

    def parts(self) -> ServingParts:
        found = ServingParts(
            encoder=_SumOfRows((self.history_axes * self.response[0]).astype(np.float32)).eval(),
            item_vectors=self.item_vectors,
            links=self.links if self.config.max_links else None,
            max_history=self.config.max_history,
        )
        return self._with_new_items(found) if self._blocks else found

    def _with_new_items(self, parts: ServingParts) -> ServingParts:
        """Items that were never trained on can be found, and speak in a history. No link leads to them, so they meet
        the whole f, of which the vectors of the others leave out what their links say."""
        num_rows = len(self.item_vectors)
        fit = ContentFit([block[1:num_rows] for block in self._blocks], self.config, self._seed)
        projection = Weighed(fit(self.item_vectors[1:]), self.config.new_item_weight)
        new_MC = torch.from_numpy(np.concatenate([block[num_rows:] for block in self._blocks], axis=1))
        axes_ND = np.concatenate([self.history_axes, new_vectors(fit(self.history_axes[1:]), new_MC).numpy()])
        beside_links, whole = self.response
        share = np.divide(beside_links, whole, out=np.zeros_like(whole), where=whole > 0)
        trained = (self.item_vectors * share).astype(np.float32)
        return replace(
            parts,
            encoder=_SumOfRows((axes_ND * whole).astype(np.float32)).eval(),
            item_vectors=np.concatenate([trained, new_vectors(projection, new_MC).numpy()]),
            links=parts.links and (np.pad(parts.links[0], (0, len(new_MC)), "edge"), *parts.links[1:]),
            projection=projection,
            content=tuple(self.config.content),
        )

    def state(self) -> dict[str, np.ndarray]:
        links = dict(zip(("indptr", "indices", "weights"), self.links, strict=True))
        return {
            "history_axes": self.history_axes,
            "item_vectors": self.item_vectors,
            "response": self.response,
            **links,
        }

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.history_axes, self.item_vectors = state["history_axes"], state["item_vectors"]
        self.response = state["response"]
        self.links = (state["indptr"], state["indices"], state["weights"])


def _power(values: np.ndarray, exponent: float) -> np.ndarray:
    """values^exponent, and 0 where there is nothing to divide by."""
    return np.where(values > 0, np.maximum(values, 1e-12) ** exponent, 0).astype(np.float32)


def _largest(graph_UN: sparse.csr_array, num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The `num` largest eigenvalues of S, falling, and their eigenvectors as columns: [D], [N, D]. Zero ones are left
    out, so D may be less.

    By subspace iteration from a random start (Halko, Martinsson, Tropp, 2011): the last of many eigenvectors are near
    the right ones only, which costs no accuracy, and takes a fifth of the time that all of them to the last digit take.
    """
    rank = min(graph_UN.shape) - 1  # a row and a column are padding
    width = min(num + _SPARE, rank)
    axes_NP = np.random.default_rng(seed).standard_normal((graph_UN.shape[1], width)).astype(np.float32)
    for _ in range(_ITERATIONS):
        axes_NP = graph_UN.T @ (graph_UN @ _orthonormal(axes_NP))
    axes_NP = _orthonormal(axes_NP)
    passed_UP = graph_UN @ axes_NP
    strength_P, turn_PP = np.linalg.eigh((passed_UP.T @ passed_UP).astype(np.float64))
    kept = np.argsort(-strength_P, kind="stable")[:num]
    kept = kept[strength_P[kept] > 1e-6]
    return strength_P[kept], axes_NP @ turn_PP[:, kept].astype(np.float32)


def _orthonormal(columns_NP: np.ndarray) -> np.ndarray:
    """A basis of what the columns span, by their Gram matrix; directions that they hardly have are left out."""
    strength_P, turn_PP = np.linalg.eigh((columns_NP.T @ columns_NP).astype(np.float64))
    kept = strength_P > 1e-6 * strength_P[-1]
    return columns_NP @ (turn_PP[:, kept] / np.sqrt(strength_P[kept])).astype(np.float32)


def _plateau(strength_D: np.ndarray, flatness: float, order: int | None) -> np.ndarray:
    """The plateau at eigenvalues of S, or its Chebyshev interpolation of degree `order` over 0..1, less its value at 0:
    that is a multiple of the identity, with which an item votes for nothing but itself."""

    def exact(centred: np.ndarray) -> np.ndarray:
        return 0.5 + np.sign(centred) * np.abs(centred) ** flatness / 2

    centred_D = 2 * np.clip(strength_D, 0, 1) - 1
    if order is None:
        return exact(centred_D)
    polynomial = Chebyshev.interpolate(exact, order)
    return polynomial(centred_D) - polynomial(-1.0)
