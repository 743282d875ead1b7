"""Finds candidates among many item vectors without looking at each: the one door to faiss (extra `ann`).

In: item vectors, or the file of an index. Out: rows whose product with a user's vector is likely among the largest;
the caller computes the products themselves. Knows nothing about releases, rules or who asks. A query takes one thread.

Kinds, each with the paper: `ivf`, lists around centroids, of which the nearest `nprobe` are looked at, vectors as 8 bit
numbers (Jégou, Douze, Schmid: "Product quantization for nearest neighbor search", 2011); `scan`, all vectors as
4 bit codes, one a dimension, by table look-ups in registers (André, Kermarrec, Le Scouarnec: "Quicker ADC", 2019);
`hnsw`, a graph of neighbours (Malkov, Yashunin, 2018).

Shapes: N items (row 0 is padding and in no index), D width, Q users, K list length.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from recops.topk import top_k

KINDS = ("ivf", "scan", "hnsw")
EXTRA = "pip install 'recops[ann]'"
RECALL_AT = 50
_TRAINED_ON = 64  # vectors for each centroid, at most
_LARGEST_SHARE = 4  # of the lists: looking at more than a quarter gains nothing over a scan
_LINKS, _BREADTH = 32, 80  # of the graph: neighbours of an item, and how many are kept in view while it is built
_SCORES_AT_ONCE = 16_000_000


def is_available() -> bool:
    """Whether faiss is installed."""
    return find_spec("faiss") is not None


@dataclass(frozen=True)
class Effort:
    """How hard one search tries: `depth` is nprobe, or efSearch; `over` candidates are fetched for each place."""

    depth: int = 0
    over: int = 4


class Index:
    """An index of rows 1..num_items, and how hard it tries."""

    def __init__(self, kind: str, built: Any, effort: Effort) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self.kind, self.effort, self._built = kind, effort, built
        self.num_items: int = built.ntotal
        if kind == "ivf":
            built.nprobe = effort.depth
        elif kind == "hnsw":
            built.hnsw.efSearch = effort.depth

    def candidates(self, user_D: np.ndarray, k: int, spare: int = 0) -> np.ndarray:
        """int64 rows, in no order: enough for the best `k` when up to `spare` of them are taken away."""
        wanted = min(self.effort.over * k + spare, self.num_items)
        found = self._built.search(np.ascontiguousarray(user_D[None], np.float32), wanted)[1][0]
        return found[found >= 0] + 1

    def trying(self, effort: Effort) -> "Index":
        """The same index, which from then on tries so hard."""
        return Index(self.kind, self._built, effort)

    def write(self, path: Path) -> None:
        import faiss

        faiss.write_index(self._built, str(path))

    def settings(self) -> dict[str, Any]:
        """What the manifest says of it, and `read_index` needs."""
        return {"kind": self.kind, **asdict(self.effort)}


def read_index(path: Path, settings: dict[str, Any]) -> Index:
    """The index in a file; `settings` are those that `settings()` gave. Raises RuntimeError for a file of another kind,
    and ImportError where faiss is not installed."""
    import faiss

    effort = Effort(settings["depth"], settings["over"])
    return Index(settings["kind"], faiss.read_index(str(path)), effort)


def build_index(kind: str, vectors: np.ndarray, seed: int = 0) -> Index:
    """An index of float32 [N+1, D] whose effort is still to be set. The same vectors and seed give the same bytes."""
    import faiss

    faiss.omp_set_num_threads(1)
    items_ND = np.ascontiguousarray(vectors[1:], np.float32)
    num, dim = items_ND.shape
    if kind == "ivf":
        num_lists = lists_of(num)
        built = faiss.index_factory(dim, f"IVF{num_lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        sample = np.random.default_rng(seed).permutation(num)[: _TRAINED_ON * num_lists]
        built.train(items_ND[np.sort(sample)])
    elif kind == "scan":
        built = faiss.index_factory(dim, f"PQ{dim}x4fs", faiss.METRIC_INNER_PRODUCT)
        built.train(items_ND[np.sort(np.random.default_rng(seed).permutation(num)[:65_536])])
    else:
        built = faiss.IndexHNSWFlat(dim, _LINKS, faiss.METRIC_INNER_PRODUCT)
        built.hnsw.efConstruction = _BREADTH
    built.add(items_ND)
    return Index(kind, built, next(efforts(kind, num)))


def lists_of(num_items: int) -> int:
    """About the root of the number of items, a power of two: as much work to choose lists as to look into one.

    >>> lists_of(1_000_000), lists_of(100)
    (1024, 8)
    """
    return 2 ** round(math.log2(max(math.sqrt(num_items), 1)))


def efforts(kind: str, num_items: int) -> Iterator[Effort]:
    """What is tried, cheapest first."""
    if kind == "ivf":
        depth = 1
        while depth <= max(1, lists_of(num_items) // _LARGEST_SHARE):
            yield Effort(depth)
            depth *= 2
    elif kind == "scan":
        yield from (Effort(over=over) for over in (4, 10, 20))
    else:
        yield from (Effort(depth) for depth in (64, 128, 256, 512))


def share_read(index: Index, dim: int) -> float:
    """What a query reads of an index, as a share of the bytes of an exact scan: centroids, codes, and the vectors of
    the candidates for RECALL_AT places. Of a graph, which is walked, it is not known beforehand: NaN."""
    num = index.num_items
    scan = 4 * dim * num
    refined = 4 * dim * index.effort.over * RECALL_AT
    if index.kind == "ivf":
        num_lists = lists_of(num)
        return (4 * dim * num_lists + dim * num * index.effort.depth / num_lists + refined) / scan
    return (dim * num / 2 + refined) / scan if index.kind == "scan" else math.nan


def exact(vectors: np.ndarray, users_QD: np.ndarray, k: int = RECALL_AT) -> np.ndarray:
    """int64 [Q, K]: rows of the best `k` products of each user, best first."""
    found = np.zeros((len(users_QD), min(k, len(vectors) - 1)), np.int64)
    size = max(1, _SCORES_AT_ONCE // len(vectors))
    for start in range(0, len(users_QD), size):
        scores_QN = users_QD[start : start + size] @ vectors.T
        scores_QN[:, 0] = -np.inf
        found[start : start + size] = top_k(scores_QN, found.shape[1])[0]
    return found


def shares_found(index: Index, vectors: np.ndarray, users_QD: np.ndarray, exact_QK: np.ndarray) -> np.ndarray:
    """float64 [Q]: the share of each user's exact list that is found, candidates ordered by their exact products."""
    shares = np.zeros(len(users_QD))
    for place, (user_D, best_K) in enumerate(zip(users_QD, exact_QK, strict=True)):
        rows = np.sort(index.candidates(user_D, len(best_K)))
        places = top_k((vectors[rows] @ user_D)[None], min(len(best_K), len(rows)))[0][0]
        shares[place] = len(np.intersect1d(rows[places], best_K)) / max(len(best_K), 1)
    return shares
