"""Makes the pages that Great Expectations writes readable without a network, under one index of ours.

In: the folder of a built site and the results to list. Out: the same folder; its pages load nothing from elsewhere
(as built they take their style, scripts and tables from content networks, and the index is blank without them).
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recops.data.validation import RuleResult

STYLE = """<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 1.5rem }
td, th { border: 1px solid #ddd; padding: .3rem .6rem; text-align: left; vertical-align: top }
.stop, .alert-danger { color: #b00020 } .warn { color: #9a6700 } .pass { color: #1a7f37 } .skip { color: #666 }
.navbar img, footer, .cooltip, .toc, #ge-cta-footer, button { display: none } code { white-space: pre-wrap }
</style>"""
OUTSIDE = re.compile(
    r"""<script[^>]*\ssrc=["'](?:https?:)?//[^>]*>\s*</script>|<link[^>]*href=["'](?:https?:)?//[^>]*>""", re.S
)


def make_readable(docs: Path, verdict: Mapping[str, Sequence["RuleResult"]]) -> None:
    """Rewrites the pages under `docs` and writes its index.html: every rule by outcome (stop, warn, skip, pass)."""
    for page in sorted(docs.rglob("*.html")):
        text = OUTSIDE.sub("", page.read_text(encoding="utf-8"))
        page.write_text(text.replace("</head>", f"{STYLE}</head>", 1), encoding="utf-8")
    folders = (docs / "validations", docs / "expectations")
    pages = sorted(page.relative_to(docs) for folder in folders for page in folder.rglob("*.html"))
    links = [f'<li><a href="{html.escape(str(page))}">{_name(page)}</a></li>' for page in pages]
    rows = [_row(outcome, rule) for outcome, rules in verdict.items() for rule in rules]
    head = "".join(
        f"<th>{name}</th>" for name in ("outcome", "table", "rule", "found", "expected", "why, and examples")
    )
    failed = len(verdict["stop"])
    title = f"Refused: {failed} rule{'s' * (failed != 1)} stopped the thread" if failed else "Fit to train on"
    (docs / "index.html").write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Validation</title>{STYLE}</head><body>'
        f"<h1>{title}</h1><table><tr>{head}</tr>{''.join(rows)}</table><h2>Pages</h2><ul>{''.join(links)}</ul></body></html>\n",
        encoding="utf-8",
    )


def _name(page: Path) -> str:
    kind = "result" if page.parts[0] == "validations" else "expectations"
    table = page.parts[1] if kind == "result" else page.stem
    return html.escape(f"{table}: {kind}")


def _row(outcome: str, rule: "RuleResult") -> str:
    examples = "".join(f"<br><code>{html.escape(json.dumps(e, ensure_ascii=False))}</code>" for e in rule.examples)
    note = f"<br>{html.escape(rule.note)}" if rule.note else ""
    found = "" if rule.observed is None else str(rule.observed)
    cells = [rule.table, rule.rule, found, rule.expected]
    plain = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
    return f'<tr><td class="{outcome}">{outcome}</td>{plain}<td>{html.escape(rule.why)}{note}{examples}</td></tr>'
