"""What every file of `rules/` must do, and the rules file; what each rule does stands in rules/."""

import json
from pathlib import Path

import numpy as np
import pytest

from recops import plugins
from recops.errors import CallError
from recops.protocols import STEPS
from recops.serving.occasion import Occasion
from recops.serving.requests import Filters, Recommend, Similar
from recops.serving.ruleset import NO_RULES, ORDER, RULES, Rules, read_rules

ROOT = Path(__file__).resolve().parents[2]
METHODS = {"filter": "hidden", "adjust": "adjusted", "order": "preference", "place": "places", "explore": "explored"}
EVERY_RULE = """
available: true
categories: [x, y]
attributes: {seller: [one, two], used: false}
price: {min: 1}
published_after: 2019-12-31T00:00:00Z
minimum_freshness: 1.5d
exclude: ["a"]
boost: [{categories: [x], factor: 2}]
bury: [{items: [b]}]
calibrated: 0.5
cap: [{by: categories, most: 2}, {by: attributes.seller, most: 1}]
diversity: 0.3
pin: [{item_id: c, rank: 2}]
exploration: {epsilon: 0.1}
order: [bury, diversity]
"""


@pytest.fixture
def write(tmp_path):
    def written(text: str, name: str = "rules.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return written


@pytest.mark.parametrize("name", plugins.names("serving.rules"))
def test_a_rule_has_the_method_of_its_step_and_the_fields_that_it_says(name):
    rule = RULES[name]
    assert type(rule).__module__ == f"recops.serving.rules.{name}"
    assert METHODS.keys() == set(STEPS)
    assert [method for method in METHODS.values() if hasattr(rule, method)] == [METHODS[rule.step]]
    assert set(rule.where) <= {"request", "filters", "file"}
    fields = {"request": Recommend, "filters": Filters}
    assert all((name in model.model_fields) == (where in rule.where) for where, model in fields.items())
    assert rule.step == "filter" or rule.where
    assert (name in Similar.model_fields) == (rule.step == "filter" and "request" in rule.where)


def test_nothing_asked_for_is_silent(served):
    release = served.state.release
    for body in ({"user_id": "u"}, {"user_id": "u", "filters": {}}, {"user_id": "u", "diversity": 0.0}):
        request = Recommend.model_validate(body)
        assert NO_RULES.hidden(request, Occasion(release)) == {}
        assert NO_RULES.moving(request) == ()


def test_every_rule_that_may_stand_in_a_file_is_read_from_one(write):
    rules = read_rules(write(EVERY_RULE))
    names = {name for name, _ in (*rules.filters, *rules.movers)}
    assert names == {name for name, rule in RULES.items() if "file" in rule.where}
    assert [name for name, _ in rules.movers] == [
        *("bury", "boost", "diversity", "calibrated", "cap", "pin", "exploration")
    ]
    assert dict(rules.filters)["minimum_freshness"] == 1.5 * 86_400 * 1_000_000
    assert dict(rules.filters)["published_after"] == 1_577_750_400_000_000


def test_the_order_is_by_step_and_name_where_nothing_is_said():
    assert ORDER == ("boost", "bury", "calibrated", "cap", "diversity", "pin", "exploration")


def test_json_and_files_that_say_nothing(write):
    assert read_rules(write(json.dumps({"available": True}), "rules.json")).filters == (("available", True),)
    assert read_rules(write("# nothing\n")) == read_rules(None) == Rules()
    assert read_rules(write("diversity: 0\nboost: []\n")).movers == ()
    assert read_rules(write("available: false\n")).filters == (("available", False),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("boost: [{categories: [x], factor: 0.5}]", r"boost\[0\]\.factor: .*greater than 1 \(found 0\.5\)"),
        ("boost: [{factor: 2}]", r"boost\[0\]: say which items: items, categories"),
        ("boost: [{category: x, factor: 2}]", r"boost\[0\]\.category: Extra inputs"),
        ("bury: [{items: [b], factor: 1}]", r"bury\[0\]\.factor: .*less than 1"),
        ("bury: [{items: [7]}]", r"bury\[0\]\.items\[0\]: .*string \(found 7\); in quotes it is text"),
        ("cap: [{by: seller, most: 1}]", r"cap\[0\]\.by: .*pattern"),
        ("cap: [{by: categories, most: 0}]", r"cap\[0\]\.most: "),
        ("cap: [{by: categories}]", r"cap\[0\]\.most: Field required$"),
        ("pin: [{item_id: a, rank: 1}, {item_id: a, rank: 2}]", "pin: item 'a' is pinned twice"),
        ("pin: [{item_id: a, rank: 1}, {item_id: b, rank: 1}]", "pin: rank 1 is pinned twice"),
        ("pin: [{item_id: a, rank: 0}]", r"pin\[0\]\.rank: "),
        ("diversity: 1.5", r"diversity: .*less than or equal to 1 \(found 1\.5\)"),
        ("diversity: yes", "diversity: .*number"),
        ("calibrated: -1", "calibrated: "),
        ("exploration: {}", "exploration: give either epsilon or thompson"),
        ("exploration: {epsilon: 0.1, thompson: 1}", "exploration: give either epsilon or thompson"),
        ("exploration: {epsilon: 0.1, draws: 500}", "exploration: draws is of thompson"),
        ("exploration: {epsilon: 0}", r"exploration\.epsilon: "),
        ("minimum_freshness: 30", r"minimum_freshness: expected a time such as 30d.* \(found 30\)"),
        ("minimum_freshness: 0d", "minimum_freshness: expected a time"),
        ("published_after: 2020-01-01", r"published_after: expected ISO 8601 text with a zone.*\(found '2020-01-01'\)"),
        ("price: {min: 2, max: 1}", "price: min is above max"),
        ("price: {min: .nan}", r"price\.min: .*finite"),
        ("attributes: {seller: }", r"attributes\.seller: expected a text"),
        ("available: maybe", "available: .*boolean"),
        ("availble: true", "availble: no such rule; there are .*available"),
        ("seen: true", "seen: no such rule"),
        ("available: true\navailable: false", "not readable: the key 'available' stands twice"),
        ("order: [bost]", r"order\[0\]: expected one of boost, .*found 'bost'"),
        ("order: [pin, pin]", r"order\[1\]: 'pin' stands twice"),
        ("order: [pin, boost]", r"order\[1\]: 'boost' cannot come after 'pin'"),
        ("- available", "expected rules by name, found list"),
        ("boost: [a", "not readable: "),
        ("{? [a] : 1}", "not readable: "),
    ],
)
def test_a_mistake_names_file_and_key(write, text, message):
    path = write(text)
    with pytest.raises(CallError, match=message) as caught:
        read_rules(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.exit_code == 2


def test_several_mistakes_are_all_told(write):
    with pytest.raises(CallError, match=r"rules.yaml: calibrated: .*; diversity: "):
        read_rules(write("diversity: 2\ncalibrated: 3\n"))


@pytest.mark.parametrize(
    ("text", "message"), [('{"a": 1, "a": 1}', "stands twice"), ("{", "not readable"), ("[]", "list")]
)
def test_mistakes_of_json(write, text, message):
    with pytest.raises(CallError, match=message):
        read_rules(write(text, "rules.json"))


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(CallError, match=r"none\.yaml: no such file of rules"):
        read_rules(tmp_path / "none.yaml")
    with pytest.raises(CallError, match="not readable"):
        read_rules(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CallError, match="not readable"):
        read_rules(tmp_path / "bytes.yaml")


def test_what_a_call_asks_for_stands_in_place_of_the_file(write):
    rules = read_rules(write("diversity: 0.3\nboost: [{items: [a], factor: 2}]\n"))
    asked = {value: rules.moving(Recommend.model_construct(user_id="u", diversity=value)) for value in (None, 0.0, 0.8)}
    assert asked[None] == rules.movers
    assert [name for name, _ in asked[0.0]] == ["boost"]
    assert dict(asked[0.8])["diversity"] == 0.8


def test_masks_that_depend_on_the_release_alone_are_made_once(write, served):
    rules = read_rules(write("available: true\nminimum_freshness: 1d\n"))
    request = Recommend.model_construct(user_id="u")
    occasion = Occasion(served.state.release, moment=1_577_836_800_000_000)  # the day that a appeared
    first, second = rules.hidden(request, occasion), rules.hidden(request, occasion)
    assert first["rules.available"] is second["rules.available"]
    assert np.flatnonzero(~first["rules.available"]).tolist() == [1, 3, 5, 6]
    assert np.flatnonzero(~first["rules.minimum_freshness"]).tolist() == [1, 2]
    later = Occasion(served.state.release, moment=occasion.moment + 86_400_000_001)
    assert np.flatnonzero(~rules.hidden(request, later)["rules.minimum_freshness"]).tolist() == [2]


def test_the_example_is_a_file_of_rules_and_stands_in_the_readme():
    example = ROOT / "examples" / "rules.yaml"
    rules = read_rules(example)
    assert len(rules.filters) == 3
    assert tuple(name for name, _ in rules.movers) == rules.order
    assert example.read_text(encoding="utf-8") in (ROOT / "README.md").read_text(encoding="utf-8")
