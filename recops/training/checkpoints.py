"""One file that holds all a training run needs to go on: tensors, and what is said about them as JSON.

In and out: `Checkpoint`. The file is safetensors with the JSON in its header, replaced in one step, so that a kill at
any moment leaves the old one or the new one whole. Knows nothing about models or schedules.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

_NAME = "checkpoint.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """`about` is plain JSON and holds `fingerprint`: what the run must have in common with the one that reads it."""

    tensors: dict[str, torch.Tensor]
    about: dict[str, Any]

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors named `prefix.*`, without the prefix; empty when there are none."""
        start = f"{prefix}."
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replaces the checkpoint in `folder` (made when missing)."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{_NAME}.tmp"
    tensors = {name: value.detach().cpu().clone() for name, value in checkpoint.tensors.items()}
    save_file(tensors, unfinished, metadata={"about": json.dumps(checkpoint.about)})
    _flush(unfinished)
    unfinished.replace(folder / _NAME)
    _flush(folder)


def read_checkpoint(folder: Path, fingerprint: str) -> Checkpoint | None:
    """The checkpoint in `folder`; None when there is none, it belongs to another run, or it cannot be read."""
    try:
        with safe_open(folder / _NAME, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            if about["fingerprint"] != fingerprint:
                return None
            return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, about)  # noqa: SIM118
    except (FileNotFoundError, SafetensorError, KeyError, TypeError, json.JSONDecodeError):
        return None


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
