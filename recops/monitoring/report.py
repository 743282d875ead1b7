"""The drift report: one HTML file that holds its pictures, for a person who has to decide what to do.

In: a verdict, the release's profile and the window's. Out: an HTML page, the same bytes for the same input; it loads
nothing from elsewhere. Judges nothing itself.
"""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recops.bundle import write_atomically
from recops.monitoring.drift import DriftVerdict, Pairs
from recops.monitoring.embedding import along_difference
from recops.monitoring.features import numeric_profile
from recops.monitoring.profile import nearest_window
from recops.monitoring.report_sections import data_section, outcome_section
from recops.protocols import DriftResult

MEANING = {
    "events_per_hour": "Events an hour, as a multiple of what the reference expects of that hour",
    "new_user_share": "Share of events by users the release could not know",
    "new_item_share": "Share of events on items the release could not know",
    "event_kind": "Kinds of event",
    "item_popularity": "Events by popularity of the item: 01 the few that held a tenth of all events, 10 the long tail",
    "category": "Categories of the items",
    "history_length": "Earlier events of the user at each event",
    "value": "Value of the event (rating, quantity)",
    "top_score": "Score of the best item recommended to the window's users",
    "list_score": "Mean score of the 10 best items recommended to the window's users",
    "user_vectors": "Vectors of users active, as the release makes them, seen along the line between the two means",
    "answer_score": "Best score of each answer that the model gave",
    "answer_category": "Categories of the items answered",
    "answer_popularity": "Popularity of the items answered, in the same tenths",
    "answer_coverage": "Share of the catalogue that 100 answers show",
    "fallback_share": "Share of answers that the model did not give: cold starts and fallbacks",
    "hit_rate": "Share of answers with an item that the user went on to choose",
    "ndcg": "NDCG@10 of answers by what their users went on to choose",
    "top_k_coverage": "Share of the catalogue that 100 lists of 10 show",
}
TEST_NAMES = {
    "psi": "PSI",
    "ks": "KS distance",
    "chi_square": "Cramér's V",
    "share": "Cramér's V (2 × 2)",
    "mmd": "MMD, as a correlation ratio",
    "fall": "relative fall",
}
HEADLINES = {"none": "No drift", "drift": "Drift", "too_few_events": "Too few events to judge"}
REFERENCE_COLOR, CURRENT_COLOR = "#9aa5b1", "#c2410c"
MAX_BARS = 12
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2933;background:#f5f7fa;margin:0}
main{max-width:1080px;margin:0 auto;padding:28px 20px 60px}
h1{margin:0 0 4px;font-size:27px}h2{font-size:19px;margin:32px 0 10px}h3{font-size:15px;margin:0}
.card{background:#fff;border:1px solid #e4e7eb;border-radius:10px;padding:16px 18px}
.lead{border-left:7px solid #3f9142}
.lead.drift{border-left-color:#c2410c}.lead.too_few_events{border-left-color:#b7791f}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(330px,1fr));gap:14px;align-items:start}
.grid svg{width:100%;height:auto;display:block}.grid p{margin:2px 0 6px;color:#616e7c;font-size:13px}
table{border-collapse:collapse;width:100%;background:#fff;font-size:14px}
th,td{padding:6px 10px;border-bottom:1px solid #e4e7eb;text-align:left}td.n,th.n{text-align:right;
font-variant-numeric:tabular-nums}tr.drifted td{background:#fff4ed}.muted{color:#616e7c}
.tag{display:inline-block;border-radius:9px;padding:0 9px;font-size:12px;background:#e3f5e1;color:#26562b}
.tag.drifted{background:#fde3d3;color:#8a2c0d}
"""


def write_drift_report(
    out: Path,
    verdict: DriftVerdict,
    reference: Mapping[str, Any],
    current: Mapping[str, Any],
    pairs: Pairs | None = None,
    outcome: Mapping[str, Any] | None = None,
    data: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Writes the page to the file `out`, its folder made where missing, and returns `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, drift_page(verdict, reference, current, pairs, outcome, data))
    return out


def drift_page(
    verdict: DriftVerdict,
    reference: Mapping[str, Any],
    current: Mapping[str, Any],
    pairs: Pairs | None = None,
    outcome: Mapping[str, Any] | None = None,
    data: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page as text. `reference` is the release's profile, `current` the window's, `pairs` as `drift.compare`,
    `outcome` as `prequential`, `data` the points of the history."""
    window = nearest_window(reference, current["hours"])
    made = {name: pair for name, pair in (pairs or {}).items() if not isinstance(pair, str)}
    ours = (window["features"] if window else {}) | {name: pair[0] for name, pair in made.items()}
    theirs = current["features"] | {name: pair[1] for name, pair in made.items()}
    # What drifted comes first, by how far it is over its threshold.
    worst = {name: 0.0 for name in sorted(ours.keys() & theirs.keys())}
    for result in verdict.results:
        excess = result.statistic / result.threshold + (1e6 if result.drifted else 0.0)
        worst[result.feature] = max(worst[result.feature], excess)
    order = sorted(worst, key=lambda name: (-worst[name], name))
    rows = [r for name in order for r in verdict.results if r.feature == name]
    cards = [feature_card(name, ours[name], theirs[name], name in verdict.features) for name in order]
    parts = [
        f"<h1>{HEADLINES[verdict.verdict]}</h1>",
        f'<div class="card lead {verdict.verdict}">{lead(verdict)}</div>',
    ]
    if rows:
        parts += ["<h2>Every feature and test</h2>", results_table(rows), f'<p class="muted">{HOW_TO_READ}</p>']
    if cards:
        parts += [
            f'<h2>Reference and window</h2><p class="muted">Shares in per cent; {swatch(REFERENCE_COLOR)} reference, '
            f"{swatch(CURRENT_COLOR)} this window.</p>",
            f'<div class="grid">{"".join(cards)}</div>',
        ]
    parts += [*outcome_section(outcome), *data_section(data)]
    if verdict.skipped:
        items = "".join(f"<li>{html.escape(n)}: {html.escape(why)}</li>" for n, why in sorted(verdict.skipped.items()))
        parts.append(f"<h2>Not judged</h2><ul>{items}</ul>")
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>recops drift: {HEADLINES[verdict.verdict]}</title>'
        f"<style>{STYLE}</style></head><body><main>\n{body}\n</main></body></html>\n"
    )


HOW_TO_READ = (
    "A test counts as drift when its statistic reaches the threshold (drift.psi, drift.effect, drift.fall in "
    "params.yaml) and its p-value, adjusted for the number of tests (Benjamini-Hochberg), is at most "
    "drift.p_value. Size is asked first: with many events every difference is significant, and most do not matter."
)


def lead(verdict: DriftVerdict) -> str:
    """The result in plain words."""
    span = (
        f"{verdict.num_events:,} events from {moment(verdict.since)} (included) to {moment(verdict.until)} (excluded)."
    )
    reason = html.escape(verdict.reason)
    if verdict.features:
        reason += ": " + ", ".join(f"<b>{html.escape(name)}</b>" for name in verdict.features)
    against = ""
    if verdict.reference_hours is not None and verdict.verdict != "too_few_events":
        against = (
            f" Compared with windows of {duration(verdict.reference_hours)} at the end of the log the release was "
            "trained from."
        )
    return f"{reason}.<br>{span}{against}"


def moment(iso: str | None) -> str:
    """An ISO time in UTC as people write it."""
    return (iso or "the start").replace("T", " ").replace("+00:00", " UTC")


def duration(hours: float) -> str:
    """Hours in words: days from 24 on."""
    number, unit = (hours / 24, "day") if hours >= 24 else (hours, "hour")
    return f"{number:.3g} {unit}{'' if number == 1 else 's'}"


def swatch(color: str) -> str:
    """A small square of a colour."""
    return f'<span style="display:inline-block;width:11px;height:11px;background:{color};border-radius:2px"></span>'


def results_table(results: list[DriftResult]) -> str:
    """One row a feature and test."""
    head = (
        '<tr><th>feature</th><th>test</th><th class="n">statistic</th><th class="n">threshold</th>'
        '<th class="n">p-value, adjusted</th><th>verdict</th></tr>'
    )
    lines = []
    for r in results:
        p_value = "–" if r.p_value is None else "&lt; 0.0001" if r.p_value < 1e-4 else f"{r.p_value:.4f}"
        tag = '<span class="tag drifted">drift</span>' if r.drifted else '<span class="tag">no drift</span>'
        note = f' <span class="muted">{html.escape(r.note)}</span>' if r.note else ""
        lines.append(
            f"<tr{' class=drifted' if r.drifted else ''}><td>{html.escape(r.feature)}</td>"
            f'<td>{TEST_NAMES.get(r.test, html.escape(r.test))}</td><td class="n">{r.statistic:.3f}</td>'
            f'<td class="n">{r.threshold:g}</td><td class="n">{p_value}</td><td>{tag}{note}</td></tr>'
        )
    return f"<table>{head}{''.join(lines)}</table>"


def feature_card(name: str, reference: Mapping[str, Any], current: Mapping[str, Any], drifted: bool) -> str:
    """Name, meaning and picture of one feature."""
    tag = ' <span class="tag drifted">drift</span>' if drifted else ""
    return (
        f'<div class="card"><h3>{html.escape(name)}{tag}</h3><p>{html.escape(MEANING.get(name, ""))}</p>'
        f"{bars_svg(*bar_shares(reference, current), salt=name)}</div>"
    )


def bar_shares(reference: Mapping[str, Any], current: Mapping[str, Any]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Labels and shares (0 to 1) of both sides: at most 12 bars, and one more for what is left or null."""
    if reference["kind"] == "vectors":
        before, now = along_difference(reference, current)
        reference = numeric_profile(before)
        current = numeric_profile(now, reference)
    if reference["kind"] == "mean":
        return ["mean"], np.array([reference["mean"]]), np.array([current["mean"]])
    if reference["kind"] == "share":
        labels = ["share"]
        pairs = [(reference["count"], current["count"])]
    elif reference["kind"] == "categorical":
        names = list(reference["counts"])
        shown = names[:MAX_BARS]
        if all(name.isdigit() for name in shown):
            shown = sorted(shown)
        labels = list(shown)
        pairs = [(reference["counts"][n], current["counts"].get(n, 0)) for n in shown]
        rest = [side["n"] - sum(side["counts"].get(n, 0) for n in shown) for side in (reference, current)]
        if any(rest):
            labels.append("other")
            pairs.append((rest[0], rest[1]))
    else:
        labels, pairs = numeric_bars(reference, current)
    shares = np.array(pairs, float).reshape(-1, 2) / [max(reference["n"], 1), max(current["n"], 1)]
    return labels, shares[:, 0], shares[:, 1]


def numeric_bars(reference: Mapping[str, Any], current: Mapping[str, Any]) -> tuple[list[str], list[tuple[int, int]]]:
    """Bars of neighbouring fine bins, cut where the reference passes each tenth; few values get a bar each."""
    edges = reference["edges"]
    ours, theirs = np.asarray(reference["counts"]), np.asarray(current["counts"])
    exact = len(edges) <= MAX_BARS
    # Bins lie below and at each edge in turn; bars end at an edge.
    ends = [2 * i + 1 for i in range(len(edges))]
    if not exact:
        reached = np.cumsum(ours)[1::2] / max(ours.sum(), 1)
        passed = np.searchsorted(reached, np.arange(1, 11) / 10 - 1e-9)
        ends = [2 * i + 1 for i in sorted(set(passed.tolist())) if i < len(edges)]
    labels, pairs, start = [], [], 0
    for end in ends:
        label = f"{edges[end // 2]:.3g}"
        only_this = exact and not theirs[start:end].any()
        labels.append(label if only_this else f"≤ {label}")
        pairs.append((int(ours[start : end + 1].sum()), int(theirs[start : end + 1].sum())))
        start = end + 1
    if ours[start:].any() or theirs[start:].any():
        labels.append(f"> {edges[-1]:.3g}" if edges else "all")
        pairs.append((int(ours[start:].sum()), int(theirs[start:].sum())))
    if reference["nulls"] or current["nulls"]:
        labels.append("null")
        pairs.append((reference["nulls"], current["nulls"]))
    return labels, pairs


def bars_svg(labels: list[str], reference: np.ndarray, current: np.ndarray, salt: str) -> str:
    """Horizontal bars, reference above window, as inline SVG; `salt` keeps its ids apart from other pictures'."""
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.family": "sans-serif",
        "font.size": 9,
    }
    with matplotlib.rc_context(settings):
        height = 0.55 + 0.3 * max(len(labels), 1)
        figure = Figure(figsize=(4.2, height), layout="constrained")
        axes = figure.add_subplot()
        place = np.arange(len(labels))
        axes.barh(place - 0.19, reference * 100, 0.36, color=REFERENCE_COLOR)
        axes.barh(place + 0.19, current * 100, 0.36, color=CURRENT_COLOR)
        axes.set_yticks(place, [label if len(label) <= 18 else label[:17] + "…" for label in labels])
        axes.invert_yaxis()
        axes.set_xlim(0, max(1.0, float(np.max([reference, current], initial=0.0)) * 108))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g} %")
        axes.tick_params(length=0)
        for side in ("top", "right", "bottom"):
            axes.spines[side].set_visible(False)
        axes.grid(axis="x", color="#e4e7eb", linewidth=0.6)
        axes.set_axisbelow(True)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]
