"""`recops replay`: real days through the real loop, under one policy after the other, and what each was worth.

In: a source and its days. Out: a folder with a project for each policy, `replay.json` and `replay.svg`. All policies
start from one release, fitted on what came before the first day, and are asked about the same users on the same days.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from recops.bundle import canonical_json, write_atomically
from recops.errors import CallError, RefusedError
from recops.params import Params, checked
from recops.stages.init import TEMPLATES, examples
from recops.stages.project import Project, open_project
from recops.stages.replay_faults import Fault
from recops.stages.replay_log import ReplayLog, read_log, source_of
from recops.stages.replay_policy import POLICIES, Played, Quiet, promote_bundle, train_and_judge

# For days on end a model that is fitted at once; `--model` names another.
CLOSED: dict[str, dict[str, Any]] = {
    "globo": {
        "source": {"options": {"clicks": "**/clicks_hour_*.csv"}},
        "split": {"valid_fraction": 0.1, "test_fraction": 0.1, "window_days": 1.0},
        "train": {"model": "slist", "baselines": ["recent_popular"]},
    },
    "kuairand": {"train": {"model": "slist", "baselines": ["recent_popular", "ease"]}},
    "online_retail": {"train": {"model": "recency_ease", "baselines": ["recent_popular"]}},
    "movielens": {"split": {"name": "global_time"}, "train": {"model": "slist", "baselines": ["recent_popular"]}},
    "movielens_small": {"split": {"name": "global_time"}, "train": {"model": "slist", "baselines": ["recent_popular"]}},
}
QUICK = {"evaluate": {"max_users": 2000, "bootstrap_samples": 200}, "export": {"parity_users": 100}}
LEFT_OUT = ("serve", "ask", "tune")  # of a project's own settings: a replay has stores of its own, and serves nobody


@dataclass(frozen=True)
class Plan:
    """What is replayed: days `first` to `last` of the log, counted from 1; `users` asked a day."""

    settings: dict[str, Any]
    first: int
    last: int
    users: int = 5000
    seed: int = 42
    faults: tuple[Fault, ...] = ()


def settings_for(source: str | None, data: Path | None, project: Path, model: str | None) -> dict[str, Any]:
    """params.yaml of a replay: of an example for a source that has one, with a model that is fitted at once; of the
    project in `project` where no source is named. Raises CallError where there is neither."""
    if source is None:
        own = open_project(project)
        settings = yaml.safe_load(own.params_file.read_text(encoding="utf-8"))
        settings = {group: values for group, values in settings.items() if group not in LEFT_OUT and values}
        settings["source"]["path"] = str(own.root / (own.params.source.path or ""))
    else:
        if source not in CLOSED:
            raise CallError(f"--source: found {source!r}, expected {', '.join(CLOSED)}, or none for the project in -C")
        if data is None:
            raise CallError("--data: name the folder of the data set")
        found = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in examples().values())
        example = next((one for one in found if one["source"]["name"] == source), {"source": {"name": source}})
        settings = merged(merged(example, CLOSED[source]), QUICK)
        settings["source"]["path"] = str(data.resolve())
    if model is not None:
        settings = merged(settings, {"train": {"model": model}})
    checked(Params, settings, "")
    return settings


def merged(one: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`one` with what `over` says otherwise, group by group."""
    both = dict(one)
    for key, value in over.items():
        both[key] = merged(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return both


def read_days(text: str) -> tuple[int, int]:
    """`4-10`, or one day. Raises CallError for other text, and where nothing comes before the first day."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 2 <= first <= last:
        raise CallError(
            f"--days: found {text!r}, expected days such as 4-10; day 1 is the first of the log, for training"
        )
    return first, last


def replay(plan: Plan, policies: list[str], out: Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Plays every policy and writes replay.json and replay.svg to `out`; goes on where an earlier call was ended.

    Raises CallError for a policy that does not exist, a fault on a day after which nothing is asked, and where `out`
    holds another replay; RefusedError where no release comes of what lies before the first day.
    """
    from recops.stages.replay_report import summary, write_plot

    if unknown := [policy for policy in policies if policy not in POLICIES]:
        raise CallError(f"--policy: found {unknown[0]!r}, expected {', '.join(POLICIES)}")
    if late := [fault for fault in plan.faults if not plan.first <= fault.day < plan.last]:
        raise CallError(f"--fault: day {late[0].day} is not from {plan.first} to {plan.last - 1}, before the last day")
    if os.environ.get("RECOPS_STORE"):
        raise CallError("RECOPS_STORE: a replay has stores of its own; unset it")
    _take(plan, out)
    params = checked(Params, plan.settings, "")
    log = read_log(params.source, params.ingest, Path.cwd(), out / "log")
    _start(plan, log, out / "start", say)
    played = {}
    for policy in policies:
        folder = out / policy
        if not folder.exists():
            partial = out / f"{policy}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(out / "start", partial, symlinks=True)
            partial.rename(folder)
        one = Played(
            policy, open_project(folder), log, plan.first, plan.last, plan.users, plan.seed, tuple(plan.faults)
        )
        days = []
        for day in range(plan.first, plan.last + 1):
            days.append(one.play(day))
            say(f"{policy}: {told(days[-1])}")
        played[policy] = (one, days)
    found = summary(plan, played)
    write_atomically(out / "replay.json", canonical_json(found))
    write_plot(out / "replay.svg", found)
    return found


def told(day: dict[str, Any]) -> str:
    """A day in a line."""
    value, low, high = day["morning"]["metrics"]["ndcg@10"]
    line = f"day {day['day']} ({day['date']}), {day['morning']['users']} users"
    if value is not None:
        line += f", NDCG@10 {value:.4f} [{low:.4f}, {high:.4f}]"
    judged = day.get("night", {}).get("judged")
    return line if judged is None else f"{line}; night: {judged['verdict']}, {judged['cpu_s']:.0f} CPU s"


def _take(plan: Plan, out: Path) -> None:
    """Writes the plan down, so that another one does not go on with what this one has done."""
    out.mkdir(parents=True, exist_ok=True)
    path, text = out / "plan.json", canonical_json(asdict(plan))
    if not path.exists():
        write_atomically(path, text)
    elif json.loads(path.read_text(encoding="utf-8")) != json.loads(text):
        raise CallError(f"{path}: another replay lies here; name another folder by --out, or remove this one")


def _start(plan: Plan, log: ReplayLog, folder: Path, say: Callable[[str], None]) -> None:
    """The project that every policy starts with: a release of what came before the first day."""
    if folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    source = source_of(log, plan.first, partial / "source")
    settings = {**plan.settings, "source": source}
    (partial / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    shutil.copytree(TEMPLATES / "expectations", partial / "expectations")
    project: Project = open_project(partial)
    with Quiet(partial / "start.log"):
        judged = train_and_judge(project)
    if judged["verdict"] != "promote":
        raise RefusedError(f"before day {plan.first}: {judged['stage']} refused: {'; '.join(judged['reasons'])}")
    promote_bundle(project, None, log.morning(plan.first).isoformat())
    say(f"start: {judged['model']} on {log.morning(plan.first).date()} and before")
    partial.rename(folder)
