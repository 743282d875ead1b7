"""For what a list is made: the release, whose list it is, and when. What rules are told; knows no rule."""

from dataclasses import dataclass, field
from time import time_ns

import numpy as np

from recops.serving.release import Release


def now_us() -> int:
    """Microseconds since 1970 UTC."""
    return time_ns() // 1000


@dataclass(slots=True)  # frozen it would take longer to make, for every list
class Occasion:
    """`history`: int64 rows, oldest first; `refused`: item ids that the user turned down. Both empty where the list is
    nobody's, as of /similar. `moment`: microseconds since 1970 UTC."""

    release: Release
    history: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    refused: tuple[str, ...] = ()
    moment: int = field(default_factory=now_us)

    def having(self, rows: np.ndarray) -> np.ndarray:
        """bool [N+1]: True at `rows`."""
        mask = np.zeros(self.release.bundle.num_items + 1, bool)
        mask[rows] = True
        return mask
