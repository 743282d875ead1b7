"""Reader of what the stage `encode` writes (stand-in until the encoders are there)."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Content:
    item_ids: list[str]
    vectors: dict[str, np.ndarray]


def read_content(folder: Path) -> Content:
    item_ids = json.loads((folder / "items.json").read_text(encoding="utf-8"))
    return Content(item_ids, {p.stem: np.load(p, mmap_mode="r") for p in sorted(folder.glob("*.npy"))})
