"""Rule `disliked`: what a user turned down is not shown to that user again."""

from typing import ClassVar

import numpy as np

from recops.serving.occasion import Occasion


class Disliked:
    step: ClassVar[str] = "filter"
    where: ClassVar[tuple[str, ...]] = ()
    is_lasting: ClassVar[bool] = False
    Value = bool

    def hidden(self, value: bool, occasion: Occasion) -> np.ndarray | None:
        if not occasion.refused:
            return None
        return occasion.release.bundle.rows(list(occasion.refused))
