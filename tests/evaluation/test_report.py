"""The report is one page that holds what it is given, needs nothing from outside, and is the same each time."""

import csv
import html.parser
import re
from pathlib import Path

import numpy as np
import pytest

from recops.evaluation.protocol import evaluate, ranked_lists
from recops.evaluation.report import write_plots, write_report

RULE = {
    "table": "events",
    "rule": "burst",
    "column": None,
    "action": "warn",
    "observed": 0.5,
    "expected": "at most .1",
    "why": "<script>alert(1)</script>",
    "note": "",
    "examples": [],
}
VALIDATION = {"ok": True, "stopped": [], "warned": [RULE], "skipped": [], "passed": [RULE]}
COUNTS = {"tables": {"events": {"rows_read": 9, "kept": 8, "rejected": 1, "rejected_by_reason": {"no user_id": 1}}}}
PART = {"rows": 3, "positives": 3, "users": 2, "items": 2, "from": None, "to": None}
SPLIT = {"rows": 9, "parts": {"train": PART, "valid": PART, "test": PART}, "unused": {"of an ignored kind": 0}}
LINEAGE = {"source": "files", "train": {"models": {"sasrec": {"num_blocks": 2}}}, "split": SPLIT}


@pytest.fixture(scope="module")
def metrics() -> dict:
    def figures(lists: list[list[int]]) -> dict:
        ranked = ranked_lists(lists, [[1], [2]], item_counts=[0, 3, 1, 2], histories=[np.array([3])] * 2)
        return {"valid": {"ndcg@2": 0.25}, **evaluate(ranked, [1, 2], samples=100, seed=1).figures}

    models = {"most_popular": figures([[1, 3], [1, 3]]), "sasrec": figures([[1, 2], [3, 2]])}
    return {"chosen": "sasrec", "metric": "ndcg@2", "split": "leave_last_out", "models": models}


@pytest.fixture(scope="module")
def curves() -> dict:
    epochs = [{"epoch": 1, "loss": 2.5, "metric": 0.125}, {"epoch": 2, "loss": 2.0, "metric": 0.25}]
    return {
        "sasrec": {"epochs": epochs, "best_epoch": 2, "best_metric": 0.25},
        "most_popular": {"epochs": [], "best_epoch": None, "best_metric": None},
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, metrics: dict, curves: dict) -> Path:
    return write_report(tmp_path_factory.mktemp("run") / "reports", metrics, curves, VALIDATION, LINEAGE, COUNTS)


def test_the_page_holds_the_figures_and_nothing_from_outside(page: Path):
    text = page.read_text(encoding="utf-8")
    assert page.name == "index.html"
    # (1 + .6309) / 2 of sasrec beside (1 + 0) / 2 of most_popular.
    assert "0.8155" in text and "0.5000" in text
    for word in ("sasrec", "most_popular", "users:cold", "items:tail", "no user_id 1", "at most .1", "num_blocks"):
        assert word in text
    assert text.count("<svg") == 3
    assert "<script" not in text and "&lt;script&gt;" in text
    links = [u for u in re.findall(r"""(?:src|href)=["']?([^"' >]+)""", text) if not u.startswith("#")]
    assert links == []
    assert "url(http" not in text and "@import" not in text


def test_tags_are_closed(page: Path):
    open_tags: list[str] = []

    class Checker(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list) -> None:
            if tag not in ("meta", "br"):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Checker().feed(page.read_text(encoding="utf-8"))
    assert open_tags == []


def test_the_same_values_give_the_same_bytes(tmp_path: Path, page: Path, metrics: dict, curves: dict):
    again = write_report(tmp_path, metrics, curves, VALIDATION, LINEAGE, COUNTS)
    assert again.read_bytes() == page.read_bytes()


def test_a_run_without_epochs_verdict_or_items_still_has_a_page(tmp_path: Path, metrics: dict):
    curves = {name: {"epochs": [], "best_epoch": None, "best_metric": None} for name in metrics["models"]}
    text = write_report(tmp_path, {**metrics, "split": "random"}, curves, {}, {}, {}).read_text(encoding="utf-8")
    assert "No model here is trained in epochs" in text
    assert "No verdict was given" in text and "refused or not judged" in text
    assert "say nothing about the future" in text


def test_plots_are_tables(tmp_path: Path, metrics: dict, curves: dict):
    write_plots(tmp_path / "plots", metrics, curves)
    with (tmp_path / "plots" / "learning_curves.csv").open(encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["model", "epoch", "loss", "metric"],
            ["sasrec", "1", "2.5", "0.125"],
            ["sasrec", "2", "2.0", "0.25"],
        ]
    with (tmp_path / "plots" / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    row = next(r for r in rows if (r["model"], r["metric"], r["k"]) == ("sasrec", "hit_rate", "1"))
    assert (row["value"], row["low"], row["high"]) == ("0.5", "0.0", "1.0")
    undefined = next(r for r in rows if r["metric"] == "diversity")
    assert undefined["value"] == ""
