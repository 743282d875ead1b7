"""Parts of the drift report that are no drift test: what followed answers, and the data over time.

In: the report of `prequential` and the points of the history. Out: pieces of HTML, none where there is nothing to say.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from recops.monitoring.data_history import changed_columns

SHOWN = 30  # points, the newest
SHOWN_RULES = 40


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column is text, the others numbers; every cell is escaped."""
    first, *rest = (html.escape(name) for name in head)
    lines = [f"<tr><th>{first}</th>{''.join(f'<th class=n>{name}</th>' for name in rest)}</tr>"]
    for name, *cells in rows:
        numbers = "".join(f"<td class=n>{html.escape(cell)}</td>" for cell in cells)
        lines.append(f"<tr><td>{html.escape(name)}</td>{numbers}</tr>")
    return f"<table>{''.join(lines)}</table>"


def interval(entry: Mapping[str, Any], name: str) -> str:
    found = entry[name]
    return "–" if found is None else f"{found['value']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"


def outcome_section(outcome: Mapping[str, Any] | None) -> list[str]:
    """Hit rate and NDCG of what followed, by segment and by day, with the delay of the labels."""
    if outcome is None or not outcome["answers"]:
        return []
    delay = outcome["delay_s"]
    lead = (
        f"{outcome['answers']:,} answers were followed by a choice: half of the first ones within "
        f"{delay['median'] / 3600:.1f} hours, nine in ten within {delay['p90'] / 3600:.1f}. {outcome['pending']:,} "
        f"answers may still be followed, {outcome['no_outcome']:,} were not. 95 % intervals over users."
    )
    named = {"all": outcome, **outcome["segments"]}
    rows = [[name, f"{e['answers']:,}", interval(e, "hit_rate"), interval(e, "ndcg")] for name, e in named.items()]
    days = [[e["day"], f"{e['answers']:,}", interval(e, "hit_rate"), interval(e, "ndcg")] for e in outcome["days"]]
    columns = ["answers", "hit rate", "NDCG@10"]
    return [
        f'<h2>What followed the answers</h2><p class="muted">{lead}</p>',
        table(["segment", *columns], rows),
        "<h3>By day of the answer</h3>",
        table(["day", *columns], days[-SHOWN:]),
    ]


def data_section(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """The last validations, and rules whose observation is not always the same: least, greatest and last."""
    if not points:
        return []
    rows = []
    for before, point in zip([None, *points[:-1]], points, strict=True):
        changed = [] if before is None else changed_columns(before, point)
        rows.append(
            [
                point["at"].replace("T", " ").replace("+00:00", " UTC"),
                f"{point['rows'].get('events', 0):,}",
                "–" if point["hours_old"] is None else f"{point['hours_old']:,.1f}",
                ", ".join(point["stopped"]) or "–",
                ", ".join(point["warned"]) or "–",
                "; ".join(changed) or "–",
            ]
        )
    head = ["validated", "events", "newest, hours old", "stopped", "warned", "columns changed"]
    observed: dict[str, list[float]] = {}
    for point in points:
        for name, value in point["rules"].items():
            observed.setdefault(name, []).append(value)
    moved = [
        [name, f"{min(values):.6g}", f"{max(values):.6g}", f"{values[-1]:.6g}"]
        for name, values in sorted(observed.items())
        if min(values) != max(values)
    ]
    parts = ["<h2>The data over time</h2>", table(head, rows[-SHOWN:])]
    if moved:
        parts += ["<h3>Rules that did not always observe the same</h3>"]
        parts += [table(["rule", "least", "greatest", "last"], moved[:SHOWN_RULES])]
    return parts
