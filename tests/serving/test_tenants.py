"""Several tenants in one service: each sees its own releases, events, users and challengers, and no id of another."""

import json
import time
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from recops.bundle import Pointer, release_folder, write_pointer
from recops.errors import CallError
from recops.serving import counters
from recops.serving.app import build_app, operations
from recops.serving.keys import add_key
from recops.serving.settings import read_settings
from recops.serving.state import State
from recops.store import open_store

TENANTS = ("main", "shop")
FOREIGN = {"main": "shop-", "shop": "main-"}  # begins every id of the other one
EVENT = {"event": "click", "timestamp": "2020-01-01T00:00:00Z"}


class Service:
    """Tenants `main` and `shop`; ids of items and users begin with the tenant's name."""

    def __init__(self, root: Path, make_bundle, connect, **environment: str) -> None:
        self.keys, environment = {}, {"RECOPS_KEYS_FILE": str(root / "keys.json"), **environment}
        own = {}
        for tenant in TENANTS:
            folder = root / tenant / "releases"
            release = make_bundle(root / "new", prefix=f"{tenant}-", model=f"{tenant}-model")
            release_folder(folder, release).parent.mkdir(parents=True)
            (root / "new").rename(release_folder(folder, release))
            write_pointer(folder, Pointer(release), expected=None)
            own[tenant] = {"releases": str(folder), "store": f"sqlite:///{root / tenant / 'store.sqlite'}"}
            with closing(open_store(own[tenant]["store"])) as store:
                store.put_histories(release, [(f"{tenant}-u1", [f"{tenant}-a"], None), ("both", [f"{tenant}-b"], None)])
            self.keys[tenant] = add_key(root / "keys.json", f"key-of-{tenant}", "admin", tenant)
            self.keys[f"{tenant} read"] = add_key(root / "keys.json", f"reader-of-{tenant}", "read", tenant)
        main = own.pop("main")
        environment |= {"RECOPS_RELEASES": main["releases"], "RECOPS_STORE": main["store"], "RECOPS_POLL_S": "60"}
        self.state = State(read_settings({**environment, "RECOPS_TENANTS": json.dumps(own)}))
        self.state.start()
        deadline = time.monotonic() + 20
        while self.state.not_ready is not None:
            assert time.monotonic() < deadline, self.state.not_ready
            time.sleep(0.01)
        self.client = connect(build_app(self.state))

    def call(self, tenant: str, method: str, path: str, status: int = 200, **body):
        headers = {"authorization": f"Bearer {self.keys[tenant]}"}
        answer = self.client.request(method, path, headers=headers, **({"json": body} if method == "POST" else {}))
        assert answer.status_code == status, answer.text
        return answer


@pytest.fixture
def service(tmp_path, make_bundle, connect):
    found = Service(tmp_path, make_bundle, connect)
    yield found
    found.state.close()


def fits(path: str, tenant: str) -> dict:
    """A body that each operation takes."""
    one = {"user_id": f"{tenant}-u1", "history": [f"{FOREIGN[tenant]}a"], "k": 10}
    return {
        "/recommend": {**one, "explain": True},
        "/recommend/batch": {"requests": [one, {"user_id": "both"}]},
        "/score": {"user_id": "both", "item_ids": [f"{tenant}-a"]},
        "/similar": {"item_id": f"{tenant}-a"},
        "/ask": {"question": "anything of x", "user_id": "both"},
        "/items": {"items": [{"item_id": f"{tenant}-new", "title": f"of {tenant}"}]},
        "/events": {"events": [{**EVENT, "user_id": "both", "item_id": f"{tenant}-c"}]},
        "/admin/traffic": {"arms": []},
    }[path]


def test_no_call_of_one_shows_an_id_of_the_other(service):
    """Every operation there is, twice, with what each has told in between."""
    for _ in range(2):
        for tenant in TENANTS:
            for operation in operations():
                path, method = operation.path.replace("{user_id}", "both"), operation.method
                if method == "DELETE" or operation.path in ("/docs", "/openapi.json", "/docs.json"):
                    continue
                body = fits(path, tenant) if method == "POST" else {}
                # Figures of all tenants are for the admin of the first one alone, which is another test's.
                key = f"{tenant} read" if path == "/metrics" else tenant
                text = service.call(key, method, path, **body).text
                own = text.replace(f'"{FOREIGN[tenant]}a"', "")  # what the call itself named
                assert FOREIGN[tenant] not in own, (path, text)
                if path == "/recommend":
                    assert f"{tenant}-b" in text
        for state in service.state.tenants.values():
            state.poll()


def test_what_one_is_told_and_erases_leaves_the_other_as_it_was(service):
    told = {"events": [{**EVENT, "user_id": "both", "item_id": "main-c", "event_id": "e1"}]}
    assert service.call("main", "POST", "/events", **told).json()["stored"] == 1
    mine, other = (service.call(tenant, "GET", "/users/both").json()["events"] for tenant in TENANTS)
    assert ([event["item_id"] for event in mine], other) == (["main-c"], [])
    told["events"][0]["item_id"] = "shop-c"  # the same event id is another event
    assert service.call("shop", "POST", "/events", **told).json()["stored"] == 1
    service.call("shop", "DELETE", "/users/both")
    assert service.call("shop", "GET", "/users/both").json()["events"] == []
    assert len(service.call("main", "GET", "/users/both").json()["events"]) == 1
    assert service.call("main", "POST", "/recommend", user_id="both").json()["source"] == "model"
    arm = {"name": "x", "release": service.state.release.id, "mode": "ab", "share": 1.0}
    service.call("shop", "POST", "/admin/traffic", status=400, arms=[arm])  # a release of main is none of shop's


def test_each_may_use_its_part_of_a_worker_and_no_more(service):
    guard = service.client.transport.app
    assert guard.limit == 64
    guard.in_flight["shop"] = 32
    refused = service.call("shop", "GET", "/release", status=429)
    assert "of this tenant" in refused.json()["message"] and refused.headers["retry-after"] == "1"
    service.call("main", "GET", "/release")
    assert guard.in_flight == {"shop": 32, "main": 0}


def test_a_tenant_without_a_release_keeps_nobody_waiting(service):
    empty = State(read_settings({"RECOPS_RELEASES": str(service.state.settings.releases.parent / "none")}))
    empty.poll()
    service.state.tenants["later"] = empty
    assert service.client.get("/readyz").status_code == 200
    empty.reason = "the promoted release could not be loaded; the service's log says why"
    assert service.client.get("/readyz").status_code == 503


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected"),
        ('{"b": 1}', "expected"),
        ('{"main": {"releases": "r"}}', "main: no name for another tenant"),
        ('{"a b": {"releases": "r"}}', "no name for another tenant"),
        ('{"b": {}}', "b: releases: expected a folder"),
        ('{"b": {"releases": "r", "stor": "x"}}', "b: unknown key stor"),
        ('{"b": {"releases": "r", "store": "s"}, "c": {"releases": "q", "store": "s"}}', "the same store"),
        (
            '{"b": {"releases": "r", "store": "sqlite:///s"}, "c": {"releases": "q", "store": "sqlite:///./s"}}',
            "same store",
        ),
        ('{"b": {"releases": "r"}, "c": {"releases": "r"}}', "the same releases"),
        ('{"b": {"releases": "r"}, "c": {"releases": "q/../r/"}}', "the same releases"),
        ('{"b": {"releases": "r", "store": 1}}', "b: store: expected text, found int"),
        ('{"b": {"releases": "r", "rules": {}}}', "b: rules: expected text, found dict"),
        ('{"b": {"releases": "r", "feedback_window_s": "1d"}}', "b: feedback_window_s: expected a number.*'1d'"),
        ('{"b": {"releases": "r", "rules": "none.yaml"}}', "none.yaml: no such file of rules"),
    ],
)
def test_wrong_settings_are_named(text, message):
    with pytest.raises(CallError, match=message):
        read_settings({"RECOPS_TENANTS": text})


def test_figures_are_of_the_caller_s_tenant_and_all_are_the_admin_s_of_the_first_one(service):
    for tenant in TENANTS:
        counters.ARM_ERRORS.labels(tenant, f"{tenant}-challenger").inc()
        state = service.state.tenants[tenant]
        told = {"release": state.release.id, "verdict": f"{tenant}-verdict", "num_events": 7, "results": []}
        state.store.put_report("drift", told)
    for key, seen in (("main read", ["main"]), ("shop read", ["shop"]), ("shop", ["shop"]), ("main", ["main", "shop"])):
        text = service.call(key, "GET", "/metrics").text
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample.labels)
        info = [(one["tenant"], one["model"], one["release"]) for one in found["recops_release_info"]]
        assert info == [(tenant, f"{tenant}-model", service.state.tenants[tenant].release.id) for tenant in seen]
        verdicts = [(one["tenant"], one["verdict"]) for one in found["recops_drift_verdict"]]
        assert verdicts == [(tenant, f"{tenant}-verdict") for tenant in seen]
        errors = {(one["tenant"], one["variant"]) for one in found["recops_challenger_errors_total"]}
        assert errors >= {(tenant, f"{tenant}-challenger") for tenant in seen}
        assert {tenant for tenant, _ in errors} == set(seen)  # other tests of this process count in main, too
        for tenant in {*TENANTS} - {*seen}:
            assert f"{tenant}-" not in text and f'"{tenant}"' not in text


def test_a_log_line_names_the_release_that_answered(service, caplog):
    object.__setattr__(service.state.settings, "access_log", True)
    with caplog.at_level("INFO", logger="recops.access"):
        for tenant in TENANTS:
            service.call(tenant, "GET", "/metrics")
            service.call(tenant, "POST", "/recommend", user_id="both")
    answered = [record.fields.get("release") for record in caplog.records if record.name == "recops.access"]
    releases = [service.state.tenants[tenant].release.id for tenant in TENANTS]
    assert answered == [None, releases[0], None, releases[1]]


@pytest.mark.parametrize("release", ["/etc", "../../../main/releases/main/{}", "..", ".", "a/b", ""])
def test_a_challenger_is_no_path(service, release):
    """It would be opened, and say whether it is there."""
    main = service.state.release.id
    arm = {"name": "x", "release": release.format(main), "mode": "shadow"}
    answer = service.call("shop", "POST", "/admin/traffic", status=400, arms=[arm])
    assert answer.json()["field"] == "arms[0].release"
    assert "kept here" not in answer.json()["message"]
