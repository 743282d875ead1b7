"""What a run found, as rows for tables: the same for the terminal and for Prefect artifacts."""

import json
from typing import Any

from recops.data.validation import RuleResult, Verdict, verdict_table
from recops.params import RATING_METRICS
from recops.stages.pipeline import refusal
from recops.stages.project import Project

Table = tuple[str, list[str], list[list[Any]]]  # title, columns, rows
SHOWN, LEAST_SHOWN = 10, 5e-5  # items of a history; what they lose, at four digits


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


def results_table(metrics: dict[str, Any]) -> Table:
    """Test figures of every model, the chosen one first, then by the validation figure."""
    valid = {name: figures["valid"][metrics["metric"]] for name, figures in metrics["models"].items()}
    sign = 1 if metrics["lower_is_better"] else -1
    names = sorted(valid, key=lambda name: (name != metrics["chosen"], sign * valid[name]))
    _, _, k = metrics["metric"].partition("@")
    keys = [f"{name}@{k}" for name in ("ndcg", "hit_rate", "coverage", "novelty")] if k else list(RATING_METRICS)
    about = "whole catalogue" if k else "predicted ratings, lower is better"
    rows = [
        [
            f"{name} *" if name == metrics["chosen"] else name,
            f"{valid[name]:.4f}",
            *(figure(metrics["models"][name]["metrics"][key]) for key in keys),
        ]
        for name in names
    ]
    return f"Test metrics ({metrics['split']}, {about}, 95 % intervals)", ["model", "valid", *keys], rows


def account_tables(account: dict[str, Any]) -> list[Table]:
    """What `recops explain` shows of `serving.explaining.explain`."""
    removed = ", ".join(account["removed_by"])
    place = f"{account['rank']} of {account['num_shown']}" if account["rank"] else f"not shown: {removed}"
    facts = [
        ["rank", place],
        ["rank before rules", account["rank_before_rules"]],
        ["score", f"{account['score']:.4f}"],
        ["source", account["source"]],
        ["release", account["release"][:12]],
        *([["content share", f"{account['content_share']:.0%}"]] if account["content_share"] is not None else []),
        *(["moved", sentence(move(one))] for one in account["moved"]),
        *(["why", sentence(reason)] for reason in account["reasons"]),
    ]
    parts = [
        [
            p["model"],
            *(_or_dash(p[key], ".4f") for key in ("raw", "calibrated", "weight", "adds", "by_content")),
            _or_dash(p["content_share"], ".0%"),
        ]
        for p in account["parts"]
    ]
    if account["reranker"] is not None:
        parts.append(["reranker", "-", "-", "-", f"{account['reranker']:.4f}", "-", "-"])
    history = [
        [h["item_id"], h["title"] or "", f"{h['loses']:.4f}", f"{h['share']:.0%}"]
        for h in account["history"][:SHOWN]
        if abs(h["loses"]) >= LEAST_SHOWN
    ]
    left_out = f"{len(account['history'])} left out in turn of {account['history_length']} events"
    nearest = [[n["item_id"], n["title"] or "", f"{n['score']:.4f}"] for n in account["nearest"]]
    return [
        (f"{account['item_id']} {account['title'] or ''}".rstrip(), ["what", "found"], facts),
        ("Parts of the score", ["model", "raw", "calibrated", "weight", "adds", "by content", "content share"], parts),
        (f"History ({left_out}; the strongest)", ["item_id", "title", "score loses", "share"], history),
        (f"Nearest items by {account['nearest_by']}", ["item_id", "title", "score"], nearest),
    ]


def off_policy_tables(found: dict[str, Any]) -> list[Table]:
    """What `recops off-policy` shows of `stages.off_policy.off_policy`; the last where ranks could be compared."""
    policies = [("logged policy", found["logged"], None)]
    policies += [(f"candidate, {name.upper()}", value, found["gains"][name]) for name, value in found["values"].items()]
    uncovered = "not known" if found["uncovered"] is None else f"{found['uncovered']:.1%}"
    facts = [
        ["answers", f"{found['num_lists']} of {found['num_users']} users"],
        ["effective sample", f"{found['effective']:.0f} answers"],
        ["clip", "none" if found["clip"] is None else f"{found['clip']:g}, {found['num_clipped']} weights cut down"],
        ["largest weight", f"{found['max_weight']:.1f}"],
        ["mean weight", f"{found['mean_weight']:.3f} (1 is expected)"],
        ["could not have been shown", uncovered],
        ["made again as logged", f"{found['made_again']:.1%}"],
        *(["left out", f"{count} {reason}"] for reason, count in found["left_out"].items()),
    ]
    columns = ["policy", "chosen items an answer", "more than logged"]
    rows = [[name, figure(value), "" if gain is None else figure(gain)] for name, value, gain in policies]
    ranks = [[one["rank"], figure(one["relative"]), f"{one['effective']:.0f}"] for one in found["examination"]]
    tables: list[Table] = [
        (f"Release {found['candidate'][:12]} off policy (95 % intervals)", columns, rows),
        ("What it rests on", ["what", "found"], facts),
    ]
    return tables + [("Looked at, against rank 1", ["rank", "share", "effective sample"], ranks)] * bool(ranks)


def move(moved: dict[str, Any]) -> dict[str, str]:
    """What a rule did to an item's rank, as a reason."""
    return {"text": f"Rule {moved['rule']}: from rank {moved['from']} to {moved['to']}"}


def sentence(reason: dict[str, Any]) -> str:
    """The text of a reason, with its share where it has one."""
    return f"{reason['text']} ({reason['share']:.0%})" if "share" in reason else str(reason["text"])


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def figure(entry: dict[str, Any]) -> str:
    """`.1234 [.1200, .1268]`, without an interval where there is none, or a dash where the figure is undefined."""
    if entry["value"] is None:
        return "-"
    interval = f" [{entry['low']:.4f}, {entry['high']:.4f}]" if entry.get("low") is not None else ""
    return f"{entry['value']:.4f}{interval}"


def drift_tables(found: dict[str, Any]) -> list[Table]:
    """The verdict, feature by feature; what was not judged; what followed answers; the last validations."""
    rows = [
        [r["feature"], r["test"], f"{r['statistic']:.4f}", f"{r['threshold']:g}", "yes" if r["drifted"] else "no"]
        for r in found["results"]
    ]
    head = f"Verdict: {found['verdict']} ({found['num_events']} events)"
    tables: list[Table] = [(head, ["feature", "test", "statistic", "threshold", "drifted"], rows)]
    if found["skipped"]:
        tables.append(("Not judged", ["feature", "why"], [list(pair) for pair in sorted(found["skipped"].items())]))
    if found["outcome"]["answers"]:
        tables.append(outcome_table(found["outcome"]))
    if found["data"]:
        columns = ["at", "events", "newest event", "hours old", "stopped", "warned"]
        rows = [
            [
                point["at"],
                str(point["rows"].get("events", "")),
                point["newest"] or "",
                "" if point["hours_old"] is None else f"{point['hours_old']:.1f}",
                ", ".join(point["stopped"]),
                ", ".join(point["warned"]),
            ]
            for point in found["data"][-SHOWN:]
        ]
        tables.append(("Data, the last validations", columns, rows))
    return tables


def outcome_table(outcome: dict[str, Any]) -> Table:
    """Online hit rate and NDCG of the window's answers, all and by segment, and how late the labels came."""
    rows = []
    for name, entry in {"all": outcome, **outcome["segments"]}.items():
        cells = [
            ""
            if entry[key] is None
            else f"{entry[key]['value']:.4f} [{entry[key]['low']:.4f}, {entry[key]['high']:.4f}]"
            for key in ("hit_rate", "ndcg")
        ]
        rows.append([name, str(entry["answers"]), *cells])
    half, most = (words_of(outcome["delay_s"][name]) for name in ("median", "p90"))
    title = (
        f"What followed answers: half of the first choices came within {half}, nine in ten within {most}; "
        f"{outcome['pending']} answers may still be followed, "
        f"{outcome['no_outcome']} were not"
    )
    return title, ["segment", "answers", "hit rate", "NDCG@10"], rows


def words_of(seconds: float) -> str:
    """A time in the unit that fits.

    >>> words_of(90), words_of(10_000), words_of(200_000)
    ('1.5 min', '2.8 h', '2.3 d')
    """
    size, unit = next((pair for pair in ((86_400, "d"), (3600, "h"), (60, "min")) if seconds >= pair[0]), (1, "s"))
    return f"{seconds / size:.1f} {unit}"
