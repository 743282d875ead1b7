"""Rule `seen`: what stands in the history is not shown again, where the release says so (`recommend.remove_seen`)."""

from typing import ClassVar

import numpy as np

from recops.serving.occasion import Occasion


class Seen:
    step: ClassVar[str] = "filter"
    where: ClassVar[tuple[str, ...]] = ()
    is_lasting: ClassVar[bool] = False
    Value = bool

    def hidden(self, value: bool, occasion: Occasion) -> np.ndarray | None:
        if not occasion.release.remove_seen or not len(occasion.history):
            return None
        return occasion.history
