"""What a run found, as rows for tables: the same for the terminal and for Prefect artifacts."""

import json
from typing import Any

from recops.data.validation import RuleResult, Verdict, verdict_table
from recops.stages.pipeline import refusal
from recops.stages.project import Project


def validation_table(project: Project) -> list[dict[str, Any]]:
    """Rules that stopped the thread, warned or were skipped; one row saying so when there are none."""
    report = json.loads((project.reports / "validation.json").read_text(encoding="utf-8"))
    rows = [
        {"outcome": outcome, "table": r["table"], "rule": r["rule"], "observed": str(r["observed"]), "why": r["why"]}
        for outcome in ("stopped", "warned", "skipped")
        for r in report[outcome]
    ]
    return rows or [{"outcome": "passed", "table": "all", "rule": "all", "observed": "", "why": ""}]


def failed_rules(project: Project) -> list[tuple[str, str, str, str, str, str]]:
    """Rules that failed in the stage that just refused the data, see `verdict_table`; empty for any other refusal."""
    reports = {"validate": project.reports, "split": project.reports / "split"}
    reason = refusal(project)
    if reason is None or reason["stage"] not in reports:
        return []
    path = reports[reason["stage"]] / "validation.json"
    if not path.exists():
        return []
    report = json.loads(path.read_text(encoding="utf-8"))
    stopped, warned = ([RuleResult(**rule) for rule in report[outcome]] for outcome in ("stopped", "warned"))
    return verdict_table(Verdict(stopped=stopped, warned=warned))


def metrics_table(project: Project) -> list[dict[str, Any]]:
    """One row a model, one column a metric: value and 95 % interval."""
    metrics = json.loads((project.reports / "metrics.json").read_text(encoding="utf-8"))
    return [
        {"model": model, **{name: figure(entry) for name, entry in figures["metrics"].items()}}
        for model, figures in metrics["models"].items()
    ]


def figure(entry: dict[str, Any]) -> str:
    """`.1234 [.1200, .1268]`, without an interval where there is none, or a dash where the figure is undefined."""
    if entry["value"] is None:
        return "-"
    interval = f" [{entry['low']:.4f}, {entry['high']:.4f}]" if entry.get("low") is not None else ""
    return f"{entry['value']:.4f}{interval}"
