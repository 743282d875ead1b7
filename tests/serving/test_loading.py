"""A release answers a first call before it serves, by the model and by the rules of the service."""

import json
import logging

import pytest

from recops.bundle import release_folder
from recops.errors import BundleError
from recops.serving import counters
from recops.serving.loading import load_release, warm_up
from recops.serving.ruleset import RULES, read_rules
from recops.serving.settings import Settings
from recops.serving.state import State
from recops.serving.traffic import control
from recops.serving.traffic.arms import Arm
from recops.store import open_store
from tests.serving.small_releases import small_release


def loads(outcome: str) -> float:
    return counters.REGISTRY.get_sample_value("recops_release_loads_total", {"outcome": outcome}) or 0.0


@pytest.fixture
def rules(tmp_path):
    def read(**values):
        path = tmp_path / "rules.json"
        path.write_text(json.dumps(values))
        return read_rules(path)

    return read


@pytest.fixture
def asked(monkeypatch):
    """Makes methods of rules note when they are called, and fail for the releases that are named."""
    calls: list[str] = []
    failing: set[str] = set()

    def note(name: str, method: str) -> None:
        rule = RULES[name]
        done = getattr(rule, method)

        def noted(value, *arguments):
            calls.append(name)
            if any(getattr(one, "release", None) and one.release.id in failing for one in arguments):
                raise KeyError("seller")
            return done(value, *arguments)

        monkeypatch.setattr(rule, method, noted, raising=False)

    note.calls, note.failing = calls, failing
    return note


EVERY = {
    "available": ("hidden", True),
    "minimum_freshness": ("hidden", "36500d"),
    "boost": ("adjusted", [{"items": ["a"], "factor": 2}]),
    "bury": ("adjusted", [{"items": ["a"]}]),
    "cap": ("preference", [{"by": "categories", "most": 1}]),
    "calibrated": ("preference", 0.2),
    "diversity": ("preference", 0.2),
    "pin": ("places", [{"item_id": "a", "rank": 1}]),
    "exploration": ("explored", {"epsilon": 0.1}),
}


@pytest.mark.parametrize("name", EVERY)
def test_a_rule_of_any_step_is_asked_before_the_first_call(releases, rules, asked, name):
    method, value = EVERY[name]
    asked(name, method)
    load_release(release_folder(releases.folder, releases.first), rules=rules(**{name: value}))
    assert asked.calls


def test_what_lasts_is_worked_out_before_the_first_call(releases, rules, asked, connect):
    from recops.serving.app import build_app

    worker = State(Settings(releases=releases.folder, rules=rules(available=True)))
    asked("available", "hidden")
    worker.poll()
    assert len(asked.calls) == 1
    answer = connect(build_app(worker)).post("/recommend", json={"user_id": "nobody"})
    assert [item["item_id"] for item in answer.json()["items"]] == ["a", "c", "e", "f"]
    assert len(asked.calls) == 1


def test_a_release_that_the_rules_fail_on_does_not_serve(releases, rules, asked, caplog):
    worker = State(Settings(releases=releases.folder, rules=rules(available=True)))
    asked("available", "hidden")
    asked.failing.add(releases.second)
    worker.poll()
    failed = loads("failed")
    releases.point(releases.second, releases.first)
    for _ in range(3):
        worker.poll()
    assert worker.release.id == releases.first
    assert loads("failed") == failed + 1
    folder = release_folder(releases.folder, releases.second)
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert (
        f"release refused: {folder}: the warm-up call fails under the rules of the service: KeyError('seller')" in told
    )
    assert "Traceback" in caplog.text  # which says what rule it was


def test_a_challenger_that_the_rules_fail_on_leaves_its_users_to_the_served_release(releases, rules, asked, tmp_path):
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    store = open_store(url)
    control.put(store, Arm(name="canary", release=releases.second, mode="canary", share=1.0), "test")
    store.close()
    worker = State(Settings(releases=releases.folder, store=url, rules=rules(available=True)))
    asked("available", "hidden")
    asked.failing.add(releases.second)
    worker.start()
    worker.poll()
    assert worker.answering("anybody") == (worker.release, "default")
    assert worker.release.id == releases.first
    worker.close()


def test_a_warm_up_that_fails_is_an_error_of_the_bundle():
    release = small_release([{"item_id": "a"}, {"item_id": "b"}], scores=[1.0, 2.0])
    warm_up(release)
    release.titles = []
    with pytest.raises(BundleError, match="nowhere: the warm-up call fails: IndexError"):
        warm_up(release)


LACKING = {
    "exclude": ["a", *(f"gone-{n}" for n in range(5))],
    "boost": [{"items": ["b", "gone-1", "boosted"], "factor": 2}, {"categories": ["x"], "factor": 2}],
    "bury": [{"items": ["buried"]}],
    "pin": [{"item_id": "pinned", "rank": 1}],
}


def test_items_that_rules_name_and_a_release_lacks_are_logged_once_for_each(releases, rules, caplog):
    worker = State(Settings(releases=releases.folder, rules=rules(**LACKING)))
    for _ in range(3):
        worker.poll()
    releases.point(releases.second, releases.first)
    worker.poll()
    told = [record for record in caplog.records if "lacks" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.WARNING] * 2
    for record, release in zip(told, (releases.first, releases.second), strict=True):
        named = "'gone-0', 'gone-1', 'gone-2', 'gone-3', 'gone-4'"
        assert record.getMessage() == f"release {release} lacks 8 items that the rules name: {named}, …"
    assert worker.release.id == releases.second


def test_an_item_that_was_told_of_is_not_lacking(serve, rules, caplog):
    served = serve({"rules": rules(exclude=["told", "gone"])}, content=True)
    assert "lacks 2 items that the rules name: 'told', 'gone'" in caplog.text
    served.post("/items", items=[{"item_id": "told", "categories": ["x"]}])
    state = served.state
    assert state.settings.rules.lacking(state.release) == ["gone"]
    assert "told" not in served.ids(user_id="nobody")


def test_a_file_that_names_nothing_unknown_says_nothing(releases, rules, caplog):
    State(Settings(releases=releases.folder, rules=rules(exclude=["a"], available=True))).poll()
    assert "lacks" not in caplog.text
