"""Projects in folders of their own on a made-up log, and commands run in them as a user runs them."""

import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def made_up_log(num_events: int = 3000, num_users: int = 150, num_items: int = 120, seed: int = 0) -> list[list[str]]:
    """Rows of user, item and ISO time, oldest first; eight of ten items are of the user's taste."""
    source = random.Random(seed)
    time = datetime(2024, 1, 1, tzinfo=UTC)
    rows = []
    for _ in range(num_events):
        time += timedelta(seconds=source.randrange(30, 900))
        user, size = source.randrange(num_users), num_items // 6
        item = user % 6 * size + source.randrange(size) if source.random() < 0.8 else source.randrange(num_items)
        rows.append([f"u{user:03d}", f"i{item:03d}", time.isoformat()])
    return rows


@dataclass(frozen=True)
class Shop:
    """A project folder; every command runs in a process of its own, with one thread."""

    folder: Path

    def call(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command of this environment, `recops` or `dvc`, inside the folder."""
        return subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "true", **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def done(self, *command: str, **environment: str) -> str:
        """The output of a command that must succeed."""
        result = self.call(*command, **environment)
        assert result.returncode == 0, f"{command}: {result.stdout}\n{result.stderr}"
        return result.stdout

    def set(self, **changes: str) -> None:
        """Replaces whole lines of params.yaml, such as `model="sasrec"` the first line `  model: …`."""
        path = self.folder / "params.yaml"
        lines = path.read_text(encoding="utf-8").splitlines()
        for key, value in changes.items():
            places = [n for n, line in enumerate(lines) if line.strip().startswith(f"{key}:")]
            assert places, f"{key} stands in no line"
            lines[places[0]] = f"{lines[places[0]].partition(key)[0]}{key}: {value}"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def new_shop(folder: Path, events: Path, items: Path | None = None) -> Shop:
    """A project by `recops init`, set to a model that is fitted at once."""
    shop = Shop(folder)
    more = [] if items is None else ["--items", items]
    subprocess.run([BIN / "recops", "init", folder, "--events", events, *more], check=True, capture_output=True)
    shop.set(model="item_knn", baselines="[most_popular]", threads="1", bootstrap_samples="100", parity_users="100")
    return shop


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up log as a CSV file."""
    path = tmp_path_factory.mktemp("log") / "events.csv"
    path.write_text("\n".join(",".join(row) for row in [["user", "item", "time"], *made_up_log()]) + "\n")
    return path


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Shop:
    """A project after its first `recops run`. Not to be changed: use `shop` for that."""
    shop = new_shop(tmp_path_factory.mktemp("released") / "shop", log)
    shop.done("recops", "run")
    return shop


@pytest.fixture
def shop(released: Shop, tmp_path: Path) -> Shop:
    """A copy of the released project."""
    shutil.copytree(released.folder, tmp_path / "shop", symlinks=True)
    return Shop(tmp_path / "shop")
