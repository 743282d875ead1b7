"""Rule `diversity`: each next item is the best by its score and by how unlike it is to those above it (maximal marginal
relevance; Carbonell & Goldstein: "The use of MMR, diversity-based reranking for reordering documents and producing
summaries", SIGIR 1998).

Value of a candidate = (1 - d) x what it was - d x its highest likeness to an item of the list. Likeness is the cosine
of item vectors, of a release without any the Jaccard overlap of categories. d = 0 changes nothing.
"""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from recops.serving.occasion import Occasion


class Diversity:
    step: ClassVar[str] = "order"
    where: ClassVar[tuple[str, ...]] = ("request", "file")
    Value = Annotated[
        float,
        Field(ge=0, le=1, description="0: by score alone; 1: as unlike as can be. Else what the service is set to."),
    ]

    def preference(self, value: float, rows: np.ndarray, occasion: Occasion) -> "Marginal":
        if occasion.release.item_vectors is not None:
            return ByVectors(value, rows, occasion)
        return ByCategories(value, rows, occasion)


class Marginal:
    """`likest` float64 [C]: the highest likeness of each candidate to an item of the list."""

    weighs, closed = True, None

    def __init__(self, strength: float, rows: np.ndarray, occasion: Occasion) -> None:
        self._strength, self._rows, self._release = strength, rows, occasion.release
        self._likest: np.ndarray | None = None

    def weighed(self, values: np.ndarray) -> np.ndarray:
        return values if self._likest is None else (1 - self._strength) * values - self._strength * self._likest

    def take(self, row: int) -> None:
        likeness = self._likeness(row)
        self._likest = likeness if self._likest is None else np.maximum(self._likest, likeness)

    def _likeness(self, row: int) -> np.ndarray:
        raise NotImplementedError


class ByVectors(Marginal):
    def __init__(self, strength: float, rows: np.ndarray, occasion: Occasion) -> None:
        super().__init__(strength, rows, occasion)
        self._units_CD = self._units(rows)

    def _units(self, rows: np.ndarray) -> np.ndarray:
        assert self._release.item_vectors is not None
        vectors = self._release.item_vectors[rows].astype(np.float64)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(norms > 0, norms, 1)

    def _likeness(self, row: int) -> np.ndarray:
        return self._units_CD @ self._units(np.array([row]))[0]


class ByCategories(Marginal):
    def __init__(self, strength: float, rows: np.ndarray, occasion: Occasion) -> None:
        super().__init__(strength, rows, occasion)
        own = [set(occasion.release.bundle.items["categories"][row - 1] or ()) for row in rows.tolist()]
        self._place = {name: place for place, name in enumerate(dict.fromkeys(name for names in own for name in names))}
        self._has_CG = np.zeros((len(rows), len(self._place) + 1))
        for has, names in zip(self._has_CG, own, strict=True):
            has[[self._place[name] for name in names]] = 1
        self._num_C = self._has_CG.sum(1)

    def _likeness(self, row: int) -> np.ndarray:
        names = set(self._release.bundle.items["categories"][row - 1] or ())
        shared = self._has_CG[:, [self._place[name] for name in names if name in self._place]].sum(1)
        return shared / np.maximum(self._num_C + len(names) - shared, 1)
