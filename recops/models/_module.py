"""What models trained by gradient share: their state is that of their module. Private to this folder, so it is no model
of the socket."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


class ModuleState:
    """`state` and `load_state` of the protocol, for a model that keeps all it has learned in `module`."""

    module: Any  # torch.nn.Module, of a kind that each model knows

    def state(self) -> dict[str, np.ndarray]:
        return {name: value.detach().cpu().numpy().copy() for name, value in self.module.state_dict().items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
