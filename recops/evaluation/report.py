"""The report of a run: one HTML page that needs nothing but a browser, and its figures as CSV for `dvc plots`.

In: metrics, learning curves, the validation verdict, lineage and counts, all as JSON values. Out: index.html, the same
bytes for the same values. Judges nothing itself.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from recops.bundle import write_atomically
from recops.evaluation.charts import colours, learning_curves, lengths, metric_bars, title
from recops.evaluation.segments import COLD_EVENTS
from recops.params import RATING_METRICS

ACCURACY = ("ndcg", "recall", "hit_rate", "mrr", "map")
# Which way is better is a matter of taste for most of these, so none is marked as best.
BEYOND = ("coverage", "gini", "novelty", "diversity", "popularity_bias", "calibration")
EXPLAINED = {
    "coverage": "share of the catalogue that anybody is shown",
    "gini": "0: all items shown alike, 1: one item takes every place",
    "novelty": "mean self-information of what is shown, in bits",
    "diversity": "mean Jaccard distance of categories within a list",
    "popularity_bias": "how much more popular than the user's own history; 0 is equal",
    "calibration": "KL divergence from the user's mix of categories; 0 is the same mix",
}
CSS = """
:root { color-scheme: light; --ink: #0f172a; --soft: #64748b; --line: #e2e8f0; --accent: #1d4ed8; }
* { box-sizing: border-box; }
body { margin: 0; background: #f1f5f9; color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 28px 16px 56px; }
h1 { font-size: 25px; margin: 0 0 2px; } h2 { font-size: 17px; margin: 0 0 10px; }
h3 { font-size: 14px; margin: 18px 0 6px; }
section, header { background: #fff; border: 1px solid var(--line); border-radius: 10px; }
section, header { padding: 20px 24px; margin: 0 0 16px; }
p { margin: 4px 0 10px; } .soft { color: var(--soft); font-size: 13px; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 14px; }
.card { flex: 1 1 170px; border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.card b { display: block; font-size: 22px; line-height: 1.25; } .card span { color: var(--soft); font-size: 13px; }
.ok { color: #15803d; } .bad { color: #b91c1c; } .note { color: #b45309; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: #334155; white-space: nowrap; }
td:first-child { white-space: nowrap; } th:first-child, td:first-child { text-align: left; }
td small { display: block; color: var(--soft); font-size: 12px; font-weight: 400; white-space: nowrap; }
table.text td, table.text th { text-align: left; } table.text td:last-child { min-width: 260px; }
table.text td { overflow-wrap: break-word; }
tr.chosen td { background: #eff6ff; } tr:last-child td { border-bottom: 0; }
td.best { font-weight: 700; color: var(--accent); }
i.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 8px; }
svg { width: 100%; min-width: 640px; height: auto; display: block; } code { font-size: 13px; }
"""


def write_report(
    out: Path,
    metrics: Mapping[str, Any],
    curves: Mapping[str, Any],
    validation: Mapping[str, Any],
    lineage: Mapping[str, Any],
    counts: Mapping[str, Any],
) -> Path:
    """Writes `out`/index.html, replacing an older one as a whole, and returns its path.

    `metrics`: {chosen, metric, split, models: {name: {valid, metrics, segments, users}}}, as `Evaluation.figures` has
    them; `curves`: {name: {epochs, best_epoch, best_metric}}; `validation`: the verdict's JSON; `lineage`: any nested
    values (`split` of them as split.json has it); `counts`: counts.json of ingest. Models without epochs, an empty
    verdict and undefined figures are said in words.
    """
    names = list(metrics["models"])
    bars = "" if _of_ratings(metrics) else _scroll(metric_bars(metrics, ("ndcg", "recall", "mrr")))
    body = [
        _header(metrics, validation),
        _section("The model beside its baselines", _accuracy(metrics) + bars),
        _section(
            "Learning curves", _scroll(learning_curves(metrics, curves)) or "<p>No model here is trained in epochs.</p>"
        ),
        ""
        if _of_ratings(metrics)
        else _section(
            "Popularity, coverage and variety",
            _beyond(metrics) + _scroll(metric_bars(metrics, ("popularity_bias", "coverage", "novelty"))),
        ),
        _section("By segment", _segments(metrics, names)),
        _section("Data validation", _validation(validation)),
        _section("Data and split", _counts(counts) + _split(lineage.get("split", {}))),
        _section("Lineage", _lineage({key: value for key, value in lineage.items() if key != "split"})),
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>recops: {escape(metrics['chosen'])}</title><style>{CSS}</style></head>\n"
        f"<body><main>\n{''.join(body)}</main></body></html>\n"
    )
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "index.html", page)
    return out / "index.html"


def write_plots(out: Path, metrics: Mapping[str, Any], curves: Mapping[str, Any]) -> None:
    """Two files in `out` for `dvc plots`: `learning_curves.csv` with columns model, epoch, loss and metric, and
    `metrics.csv` with columns model, metric, k, value, low and high.

    A figure that is undefined is an empty cell; models without epochs have no row in the first.
    """
    out.mkdir(parents=True, exist_ok=True)
    epochs = [
        [name, row["epoch"], row.get("loss"), row.get("metric")]
        for name, curve in curves.items()
        for row in curve["epochs"]
    ]
    figures = [
        [model, *key.partition("@")[::2], entry["value"], entry.get("low"), entry.get("high")]
        for model, parts in metrics["models"].items()
        for key, entry in parts["metrics"].items()
    ]
    _write_csv(out / "learning_curves.csv", ["model", "epoch", "loss", "metric"], epochs)
    _write_csv(out / "metrics.csv", ["model", "metric", "k", "value", "low", "high"], figures)


def _write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_atomically(path, text.getvalue())


def _of_ratings(metrics: Mapping[str, Any]) -> bool:
    """Whether values of events were predicted, rather than lists made."""
    return metrics["metric"] in RATING_METRICS


def _best(metrics: Mapping[str, Any], values: Iterable[float | None]) -> float | None:
    """The best of the values that are defined."""
    pick = min if metrics.get("lower_is_better") else max
    return pick((value for value in values if value is not None), default=None)


def _header(metrics: Mapping[str, Any], validation: Mapping[str, Any]) -> str:
    chosen, metric = metrics["chosen"], metrics["metric"]
    models = metrics["models"]
    entry = models[chosen]["metrics"].get(metric, {})
    others = {name: _value(models[name], metric) for name in models if name != chosen}
    best = _best(metrics, others.values())
    best_name = next((name for name, value in others.items() if value == best), "")
    users = models[chosen]["users"]
    not_judged = "; ".join(f"{count:,} {reason}" for reason, count in users["not_judged"].items())
    verdict, tone = ("fit to train on", "ok") if validation.get("ok") else ("refused or not judged", "bad")
    cards = [
        (_number(entry.get("value")), f"{metric} of {chosen}, 95 % interval {_interval(entry)}", ""),
        (
            "none" if best is None else _number(best),
            "no other model" if best is None else f"best of the others: {best_name}",
            "",
        ),
        (f"{users['judged']:,}", f"users judged on {users['targets']:,} targets", ""),
        (verdict, f"validation; rules that warn: {len(validation.get('warned', []))}", tone),
    ]
    random_note = (
        '<p class="note">Split <code>random</code>: the log is unordered, so training data may be later than what it '
        "is judged on. These figures say nothing about the future.</p>"
        if metrics["split"] == "random"
        else ""
    )
    judged, unknown = "the whole catalogue is ranked for each user", "count as misses"
    if _of_ratings(metrics):
        judged = "each rating of the part is predicted, and lower is better"
        unknown = "are predicted by the user's mean"
    return (
        f"<header><h1>recops: {escape(chosen)}</h1><p>Chosen on validation among {len(models)} models. Split "
        f"<code>{escape(metrics['split'])}</code>; {judged}; intervals are "
        f"bootstrapped over users.</p>{random_note}<div class='cards'>"
        + "".join(
            f"<div class='card'><b class='{tone}'>{escape(big)}</b><span>{escape(small)}</span></div>"
            for big, small, tone in cards
        )
        + f"</div><p class='soft'>{users['unknown_targets']:,} targets are items that the model does not know: they "
        f"{unknown}.{' Not judged: ' + escape(not_judged) + '.' if not_judged else ''}</p></header>\n"
    )


def _accuracy(metrics: Mapping[str, Any]) -> str:
    k = metrics["metric"].partition("@")[2]
    keys = list(RATING_METRICS) if _of_ratings(metrics) else [f"{name}@{k}" for name in ACCURACY]
    best = {key: _best(metrics, (_value(m, key) for m in metrics["models"].values())) for key in keys}
    rows = []
    for name, dot, figures in _models(metrics):
        valid = figures["valid"].get(metrics["metric"])
        cells = [_cell(figures["metrics"].get(key, {}), best[key]) for key in keys]
        rows.append((name, f"<td>{dot}</td><td>{_number(valid)}</td>{''.join(cells)}"))
    named = [f"{title(key.partition('@')[0])}{'@' if k else ''}{k}" for key in keys]
    header = ["model", f"valid {metrics['metric']}", *named]
    return (
        _table(header, rows, metrics["chosen"])
        + f"<p class='soft'>Test part. Small: 95 % interval. Bold: the {_extreme(metrics)}.</p>"
    )


def _extreme(metrics: Mapping[str, Any]) -> str:
    return "lowest" if metrics.get("lower_is_better") else "highest"


def _beyond(metrics: Mapping[str, Any]) -> str:
    k = metrics["metric"].partition("@")[2]
    keys = [f"{name}@{k}" for name in BEYOND if lengths(metrics, name)]
    rows = [
        (name, f"<td>{dot}</td>" + "".join(_cell(figures["metrics"].get(key, {}), None) for key in keys))
        for name, dot, figures in _models(metrics)
    ]
    header = ["model", *(f"{title(key.partition('@')[0])}@{k}" for key in keys)]
    words = "; ".join(f"<b>{title(name)}</b>: {EXPLAINED[name]}" for name in BEYOND)
    return _table(header, rows, metrics["chosen"]) + f"<p class='soft'>{words}.</p>"


def _segments(metrics: Mapping[str, Any], names: Sequence[str]) -> str:
    metric = metrics["metric"]
    segments = metrics["models"][metrics["chosen"]]["segments"]
    rows = []
    for segment, figures in segments.items():
        entries = [
            metrics["models"][name]["segments"].get(segment, {}).get("metrics", {}).get(metric, {}) for name in names
        ]
        best = _best(metrics, (e.get("value") for e in entries))
        rows.append(
            ("", f"<td>{escape(segment)}</td><td>{figures['users']:,}</td>" + "".join(_cell(e, best) for e in entries))
        )
    return (
        _table([metric, "users", *names], rows)
        + f"<p class='soft'>Users by the length of their history: cold up to {COLD_EVENTS} events, heavy the most "
        "active tenth, warm between. Items by their train events: head the most popular with half of all events, new "
        "without any, tail between; a user is judged on the targets of that kind alone.</p>"
    )


def _validation(validation: Mapping[str, Any]) -> str:
    if not validation:
        return "<p>No verdict was given.</p>"
    numbers = {name: len(validation.get(name, [])) for name in ("passed", "warned", "stopped", "skipped")}
    text = "<p>" + ", ".join(f"{count} {name}" for name, count in numbers.items()) + ".</p>"
    rules = [*validation.get("stopped", []), *validation.get("warned", [])]
    rows = [
        (
            "",
            f"<td class='{'bad' if rule['action'] == 'stop' else 'note'}'>{escape(str(rule['action']))}</td>"
            + "".join(f"<td>{escape(str(rule[key]))}</td>" for key in ("table", "rule", "observed", "expected", "why")),
        )
        for rule in rules
    ]
    return text + (_table(["action", "table", "rule", "found", "expected", "why"], rows, kind="text") if rows else "")


def _counts(counts: Mapping[str, Any]) -> str:
    rows = []
    for table, figures in counts.get("tables", {}).items():
        reasons = "; ".join(f"{reason} {count:,}" for reason, count in figures.get("rejected_by_reason", {}).items())
        numbers = "".join(f"<td>{figures[key]:,}</td>" for key in ("rows_read", "kept", "rejected"))
        rows.append(("", f"<td>{escape(table)}</td>{numbers}<td>{escape(reasons) or 'none'}</td>"))
    return _table(["table", "rows read", "kept", "rejected", "reasons"], rows) if rows else ""


def _split(split: Mapping[str, Any]) -> str:
    if not split:
        return ""
    rows = [
        (
            "",
            f"<td>{escape(part)}</td>"
            + "".join(f"<td>{figures[key]:,}</td>" for key in ("rows", "positives", "users", "items"))
            + "".join(f"<td>{escape(_moment(figures[key]))}</td>" for key in ("from", "to")),
        )
        for part, figures in split["parts"].items()
    ]
    unused = "; ".join(f"{reason} {count:,}" for reason, count in split["unused"].items() if count) or "none"
    return (
        "<h3>Split</h3>"
        + _table(["part", "rows", "positives", "users", "items", "from", "to"], rows)
        + f"<p class='soft'>{split['rows']:,} events in all. In no part: {escape(unused)}.</p>"
    )


def _lineage(lineage: Mapping[str, Any]) -> str:
    rows = [("", f"<td>{escape(key)}</td><td><code>{escape(value)}</code></td>") for key, value in _flat(lineage)]
    return _table(["what", "value"], rows, kind="text")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _models(metrics: Mapping[str, Any]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    palette = colours(metrics)
    for name, figures in metrics["models"].items():
        yield name, f"<i class='dot' style='background:{palette[name]}'></i>{escape(name)}", figures


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{heading}</h2>\n{content}</section>\n"


def _table(header: Sequence[str], rows: Iterable[tuple[str, str]], chosen: str = "", kind: str = "") -> str:
    """`rows`: what the row is about and its cells as HTML; the row about `chosen` stands out."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = "".join(
        f"<tr{' class=chosen' if about and about == chosen else ''}>{cells}</tr>\n" for about, cells in rows
    )
    table = f"<table class='{kind}'><thead><tr>{head}</tr></thead><tbody>\n{lines}</tbody></table>"
    return _scroll(table)


def _scroll(content: str | None) -> str:
    """Wide content scrolls by itself on a narrow screen; nothing stays nothing."""
    return f"<div class='scroll'>{content}</div>" if content else ""


def _cell(entry: Mapping[str, Any], best: float | None) -> str:
    value = entry.get("value")
    mark = " class='best'" if value and value == best else ""
    small = f"<small>{_interval(entry)}</small>" if entry.get("low") is not None else ""
    return f"<td{mark}>{_number(value)}{small}</td>"


def _interval(entry: Mapping[str, Any]) -> str:
    return f"{_number(entry['low'])} to {_number(entry['high'])}" if entry.get("low") is not None else "unknown"


def _value(figures: Mapping[str, Any], key: str) -> float | None:
    return figures["metrics"].get(key, {}).get("value")


def _number(value: float | None) -> str:
    """Four decimals below 1, fewer above: figures of one size are compared, not digits."""
    if value is None:
        return "undefined"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def _moment(iso: str | None) -> str:
    return "no time" if iso is None else iso[:16].replace("T", " ")
