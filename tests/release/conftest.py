"""Small bundles without networks, which are made in a moment."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recops.protocols import ServingParts
from recops.release.export import export_bundle
from tests.release.small_bundles import facts, items


@pytest.fixture
def popular(tmp_path: Path) -> Callable[..., Path]:
    """Makes a bundle that recommends by the given scores of items a, b, c …"""

    def make(*scores: float, **more) -> Path:
        folder = tmp_path / f"bundle-{'-'.join(map(str, scores))}"
        item_scores = np.array([0, *scores], np.float32)
        export_bundle(
            ServingParts(item_scores=item_scores, needs_history=False),
            folder,
            items=items(*"abcdefgh"[: len(scores)]),
            fallback=item_scores,
            profile={},
            facts=facts(**more),
            opset=20,
            max_links=10,
        )
        return folder

    return make
