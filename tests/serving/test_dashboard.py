"""The dashboard and the rules in deploy/ ask only for figures that the service gives, so that a new name breaks this.

PromQL is read as far as names go: which metrics are asked for, by which labels, and which label values are expected.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from recops.serving import counters

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "recops.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))
SCRAPE = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8"))

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
EXPRESSIONS = [
    *((f"{panel['title']} {target['refId']}", target["expr"]) for panel in PANELS for target in panel["targets"]),
    *((one["name"], one["expr"]) for one in DASHBOARD["annotations"]["list"]),
    *((rule["alert"], rule["expr"]) for rule in RULES),
]
OF_PROMETHEUS = {"up"}  # and the labels that it gives to whatever it scrapes
TARGET = {"job", "instance"}
FUNCTIONS = {"rate", "increase", "changes", "histogram_quantile", "time"}
AGGREGATIONS = {"sum", "max", "min", "avg", "count"}
GROUPINGS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<text>"(?:[^"\\]|\\.)*")|(?P<window>\[[^\]]*\])|(?P<name>[a-zA-Z_:][\w:]*)|(?P<number>[\d.]+)"""
    r"""|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/=<>(){},])"""
)


@dataclass
class Asked:
    """What an expression asks for: the labels that it matches or groups by, and values by metric and label."""

    metrics: set[str] = field(default_factory=set)
    matched: set[tuple[str, str]] = field(default_factory=set)
    grouped: set[str] = field(default_factory=set)
    values: set[tuple[str, str, str, str]] = field(default_factory=set)  # metric, label, sign, value


def tokens(expression: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(expression):
        found = TOKEN.match(expression, place)
        assert found, f"not read: {expression[place:]}"
        place = found.end()
        if found.lastgroup != "space":
            yield str(found.lastgroup), found[0]


def asked_by(expression: str) -> Asked:
    """Raises AssertionError for what is no PromQL as far as this reads it."""
    read, asked = [*tokens(expression), ("end", "")], Asked()
    depth, place, metric = 0, 0, ""
    while read[place][0] != "end":
        kind, text = read[place]
        place += 1
        if text in GROUPINGS:
            if read[place][1] == "(":
                stop = read.index(("sign", ")"), place)
                asked.grouped |= {name for kind, name in read[place:stop] if kind == "name"}
                place = stop + 1
        elif kind == "name":
            if text in FUNCTIONS:
                assert read[place][1] == "(", f"{text} is a function"
            elif text in AGGREGATIONS:
                assert read[place][1] in ("(", "by", "without"), f"{text} is an aggregation"
            else:
                metric = text
                asked.metrics.add(text)
        elif text == "{":
            assert read[place - 2] == ("name", metric), "matchers belong to a metric"
            while read[place - 1][1] != "}":
                (_, label), (_, sign), (kind, value) = read[place : place + 3]
                assert sign in ("=", "!=", "=~", "!~") and kind == "text", f"no matcher: {label}{sign}{value}"
                asked.matched.add((metric, label))
                asked.values.add((metric, label, sign, json.loads(value)))
                assert read[place + 3][1] in (",", "}")
                place += 4
        depth += {"(": 1, ")": -1}.get(text, 0)
        assert depth >= 0, "a bracket closes nothing"
    assert depth == 0, "a bracket is not closed"
    return asked


@pytest.fixture(scope="module")
def given(served) -> dict[str, list[dict[str, str]]]:
    """The labels of every sample, by metric, of a service to which all that is asked about has happened."""
    served.state.release.record.update(promoted_at="2026-01-01T00:00:00+00:00")
    served.state.release.bundle.manifest["fitted_until"] = "2025-12-31T00:00:00"
    result = {"feature": "hour", "test": "ks", "statistic": 0.5, "threshold": 0.25, "drifted": True}
    report = {"verdict": "drift", "num_events": 700, "results": [result], "release": served.state.release.id}
    served.state.store.put_report("drift", {**report, "checked_at": "2026-01-02T00:00:00+00:00"})
    served.post("/recommend", user_id="u1")
    limit, served.app.limit = served.app.limit, 0
    assert served.client.post("/recommend", json={}).status_code == 429
    served.app.limit = limit
    counters.ARM_ERRORS.labels("main", "b")
    found: dict[str, list[dict[str, str]]] = {}
    for sample in served.samples():
        found.setdefault(sample.name, []).append(sample.labels)
    return found


@pytest.mark.parametrize(("name", "expression"), EXPRESSIONS, ids=[name for name, _ in EXPRESSIONS])
def test_an_expression_asks_for_what_there_is(given, name, expression):
    asked = asked_by(expression)
    assert asked.metrics
    assert asked.metrics <= given.keys() | OF_PROMETHEUS, "no such metric"
    labels = {metric: {"job", "instance"}.union(*given.get(metric, ())) for metric in asked.metrics}
    for metric, label in asked.matched:
        assert label in labels[metric], f"{metric} has no label {label}"
    for label in asked.grouped:
        assert all(label in labels[metric] for metric in asked.metrics), f"not all have a label {label}"
    for metric, label, sign, value in asked.values:
        if sign == "=" and label not in TARGET:
            assert value in {labels[label] for labels in given[metric]}, f"{metric}: {label} is never {value}"
        if sign.endswith("~"):
            re.compile(value)


def test_every_figure_of_the_service_is_shown_or_watched(given):
    asked = set().union(*(asked_by(expression).metrics for _, expression in EXPRESSIONS))
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    unseen = {re.sub("_(bucket|sum|count)$", "", name) for name in given} - families
    assert unseen == {"recops_item_change"}  # a number that means something only beside the store's


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("rate(recops_gone_total[5m])", "no such metric"),
        ('recops_requests_total{code="200"}', "no label code"),
        ('recops_answers_total{outcome="droped"}', "is never droped"),
        ("sum by (lg) (recops_log_waiting)", "a label lg"),
        ("sum(recops_log_waiting", "not closed"),
        ("sum(recops_log_waiting))", "closes nothing"),
        ("recops_log_waiting ! 3", "not read"),
        ("rate recops_log_waiting", "is a function"),
    ],
)
def test_what_is_wrong_would_be_seen(given, expression, wrong):
    with pytest.raises(AssertionError, match=wrong):
        test_an_expression_asks_for_what_there_is(given, "wrong", expression)


def test_panels_are_whole():
    everything = DASHBOARD["panels"]
    ids = [panel["id"] for panel in everything]
    assert len(set(ids)) == len(ids)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS) > 20
    taken: dict[tuple[int, int], str] = {}
    for panel in everything:
        at = panel["gridPos"]
        assert at["x"] >= 0 and at["x"] + at["w"] <= 24, panel["title"]
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies over {taken[cell]}"
            taken[cell] = panel["title"]
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        refs = [target["refId"] for target in panel["targets"]]
        assert refs and len(set(refs)) == len(refs), panel["title"]


def test_variables_are_declared_and_every_panel_keeps_to_its_job(given):
    variables = DASHBOARD["templating"]["list"]
    assert {one["name"] for one in variables} == {"datasource", "job"}
    (metric,) = re.findall(r"label_values\((\w+), job\)", variables[1]["query"]["query"])
    assert metric in given
    for panel in PANELS:
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"]))
            assert used <= {"job", "__rate_interval"}, panel["title"]
            asked = asked_by(target["expr"])
            assert {metric for metric, label in asked.matched if label == "job"} == asked.metrics, panel["title"]


def test_alerts_say_whom_they_wake_and_why():
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "warn")
        assert rule["annotations"]["summary"]
        assert re.fullmatch(r"\d+[smhd]", rule.get("for", "1m"))
        for text in rule["annotations"].values():
            for label in re.findall(r"\$labels\.(\w+)", text):
                assert label in TARGET | {"log", "outcome", "tenant"}, f"{rule['alert']}: {label}"


def test_the_scrape_example_asks_the_service_and_reads_the_rules(served):
    (job,) = SCRAPE["scrape_configs"]
    assert served.client.get(job["metrics_path"]).status_code == 200
    assert [(DEPLOY / "prometheus" / file).is_file() for file in SCRAPE["rule_files"]] == [True]
    assert any(f'up{{job="{job["job_name"]}"}}' in rule["expr"] for rule in RULES)
