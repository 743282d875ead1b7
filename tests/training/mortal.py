"""A model whose second worker can be told to die, in a file of its own, so that workers can import it."""

import os
import signal
from pathlib import Path

import torch
from torch import distributed

from recops.models.sasrec import Sasrec
from recops.protocols import Recommender


class Mortal(Sasrec):
    """Kills its second worker at step `dies_at`, and again after each restart where `again`; else only once."""

    class Config(Sasrec.Config):
        mark: str = ""  # a file that says that it has died
        dies_at: int = 0
        again: bool = False

    steps = 0

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.steps += 1
        if self.steps == 1 and distributed.is_initialized():
            # Else a worker that starts again could read where the dead ones were.
            num_starts = distributed.distributed_c10d._get_default_store().add(f"starts of {distributed.get_rank()}", 1)
            assert num_starts == 1, "the workers that died are still in the store"
        if self.config.dies_at == self.steps and distributed.get_rank() == 1:
            mark = Path(self.config.mark)
            if self.config.again or not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(batch)


def size_of_items(model: Recommender) -> float:
    """A figure to stop by that differs from epoch to epoch."""
    return float(model.state()["items.weight"].sum())
