"""A small shop's project, made by `init` from a log whose users have a taste, and quick to train."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from recops.stages import pipeline
from recops.stages.init import init
from recops.stages.project import Project, open_project

START = datetime(2024, 1, 1, tzinfo=UTC)
HEADER = "user,item,when,kind\n"
QUICK = {
    "train": {"model": "item_knn", "baselines": ["most_popular"], "threads": 1},
    "evaluate": {"k": [10], "bootstrap_samples": 100},
    "gate": {"min_users": 50, "margin": 1.0, "guard_margin": 1.0},
    "drift": {"window_days": 14, "min_events": 100},
    "retrain": {"cooldown_minutes": 0},
}


def views(first_day: int, num_days: int, users: range, items: range, seed: int, num_views: int = 20) -> list[str]:
    """Lines of a log: each user looks at `num_views` items, four of five of the user's own third."""
    rng = random.Random(seed)
    rows = []
    for user in users:
        own = [item for item in items if item % 3 == user % 3]
        for item in {rng.choice(own if rng.random() < 0.8 else items) for _ in range(num_views)}:
            at = START + timedelta(days=first_day, seconds=rng.randrange(num_days * 86_400))
            rows.append((at, f"u{user},i{item},{at.isoformat()},view\n"))
    return [line for _, line in sorted(rows)]


def ordinary_log() -> str:
    """Two months of views."""
    return HEADER + "".join(views(0, 60, range(150), range(60), seed=1))


def drifted_log() -> str:
    """The same, then two weeks in which other users look at other items, far more of them an hour."""
    return ordinary_log() + "".join(views(60, 14, range(150, 400), range(40, 120), seed=2))


def refused_log() -> str:
    """A log in which every second line has lost its user."""
    lines = ordinary_log().splitlines(keepends=True)
    return HEADER + "".join(line[line.index(",") :] if n % 2 else line for n, line in enumerate(lines[1:]))


def make_project(folder: Path) -> Project:
    """A project in folder/shop of folder/log.csv."""
    log = folder / "log.csv"
    log.write_text(ordinary_log())
    init(folder / "shop", log, None, None)
    params = folder / "shop" / "params.yaml"
    params.write_text(yaml.safe_dump({**yaml.safe_load(params.read_text()), **QUICK}))
    project = open_project(folder / "shop")
    pipeline.prepare(project)
    return project


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("flows"))


@pytest.fixture(scope="module")
def write_log(shop: Project) -> Callable[[str], object]:
    """Replaces the shop's log by that of the name: ordinary, drifted, refused."""
    texts = {"ordinary": ordinary_log, "drifted": drifted_log, "refused": refused_log}
    return lambda name: (shop.root.parent / "log.csv").write_text(texts[name]())
