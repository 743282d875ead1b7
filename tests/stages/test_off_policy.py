"""`recops off-policy` on a real store: lists, chances and outcomes are told as the service tells them, and the numbers
are those that the candidate earns when it is shown."""

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recops.bundle import bundle_id
from recops.errors import CallError
from recops.protocols import ServingParts
from recops.release.export import export_bundle
from recops.release.releases import Parts, promote
from recops.serving.local import as_served, bundle_as_served
from recops.serving.requests import Recommend
from recops.serving.retrieval import recommend
from recops.serving.ruleset import NO_RULES, read_rules
from recops.serving.state import stored_of
from recops.stages.off_policy import DAY_US, off_policy
from recops.stages.project import Project, open_project
from recops.store import open_store
from tests.test_cli import recops

NUM_ITEMS, NUM_USERS, NUM_ROUNDS, K = 14, 60, 14, 3
EXAMINED = np.array([1.0, 0.6, 0.4])
IDS = [f"i{row:02d}" for row in range(NUM_ITEMS)]
USERS = [f"u{row:02d}" for row in range(NUM_USERS)]
START = 1_800_000_000_000_000  # µs
MINUTE_US = 60_000_000
NOW = START + 5 * DAY_US


def write_bundle(project: Project, table: np.ndarray, fitted_until: str | None = None) -> None:
    columns = ("title", "categories", "price", "available", "published_at")
    vectors = np.vstack([np.zeros(NUM_ITEMS), np.eye(NUM_ITEMS)]).astype(np.float32)
    facts = dict.fromkeys(("params", "metrics", "validation", "inputs"))
    export_bundle(
        ServingParts(item_vectors=vectors, user_table=np.vstack([np.zeros(NUM_ITEMS), table]).astype(np.float32)),
        project.bundle,
        items={"item_id": IDS, **{column: [None] * NUM_ITEMS for column in columns}},
        users=USERS,
        fallback=np.arange(NUM_ITEMS + 1, dtype=np.float32),
        profile={},
        facts={
            **{"model": "matrix_factorization", "remove_seen": True, "data_watermark": None, **facts},
            "fitted_until": fitted_until,
        },
        opset=20,
        max_links=1,
    )


class Shop:
    """A project whose service answered, and what the candidate, shown in its place, would have earned."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "params.yaml").write_text("serve: {rules: rules.yaml}\n")
        (folder / "rules.yaml").write_text("exploration: {epsilon: 0.6, candidates: 8}\n")
        self.project = project = open_project(folder)
        rng = np.random.default_rng(5)
        self.worth = rng.beta(1, 3, (NUM_USERS, NUM_ITEMS))  # how likely each user chooses what is looked at
        with closing(open_store(project.store_url)) as store:
            write_bundle(project, self.worth + rng.normal(0, 0.04, self.worth.shape))
            with_history = [(user, [IDS[-1]], [START - MINUTE_US]) for user in USERS[::2]]
            self.release = promote(
                project.bundle,
                project.releases,
                store,
                Parts(with_history, refused=[(USERS[1], [IDS[-2]], None)]),
                expected=None,
                now="2026-01-01T00:00:00+00:00",
            )
            self.candidate = self.worth + rng.normal(0, 0.01, self.worth.shape)
            write_bundle(project, self.candidate)
            served, _ = as_served(project.releases, self.release, store, None)
            candidate, _ = bundle_as_served(project.bundle, bundle_id(project.bundle), store, None)
            rules, earned = read_rules(project.rules_file), []
            for one_round in range(NUM_ROUNDS):
                at = START + one_round * 10 * MINUTE_US
                answers, events = [], []
                for row, user in enumerate(USERS):
                    request, request_id = Recommend.model_construct(user_id=user, k=K), f"q-{one_round}-{row}"
                    (stored,) = stored_of(store, served, [user])
                    found = recommend(served, request, stored, rules, request_id)
                    answers.append(self.answer(request_id, at, user, found))
                    shown = [IDS.index(item["item_id"]) for item in found["items"]]
                    is_chosen = rng.random(K) < EXAMINED * self.worth[row, shown]
                    events += [self.event(answers[-1], IDS[item]) for item in np.array(shown)[is_chosen]]
                    # The same user at the same time, by the candidate.
                    other = [IDS.index(i["item_id"]) for i in recommend(candidate, request, stored, NO_RULES)["items"]]
                    earned.append(EXAMINED @ self.worth[row, other])
                store.log_answers(answers)
                store.put_events(events)
        self.truth = float(np.mean(earned))

    def answer(self, request_id: str, at: int, user: str | None, found: dict[str, Any], **other: Any) -> dict[str, Any]:
        propensities = found["propensities"] or [1.0] * len(found["items"])
        items = [
            {"item_id": item["item_id"], "rank": item["rank"], "score": item["score"], "propensity": propensity}
            for item, propensity in zip(found["items"], propensities, strict=True)
        ]
        facts = {"release": self.release, "variant": "default", "source": found["source"], **other}
        return {"request_id": request_id, "time": at, "user_id": user, "items": items, **facts}

    def event(self, answer: dict[str, Any], item_id: str, after: int = MINUTE_US) -> dict[str, Any]:
        return {
            "event_id": f"{answer['request_id']} {item_id}",
            **{"user_id": answer["user_id"], "item_id": item_id, "event": "click"},
            **{"request_id": answer["request_id"], "timestamp": answer["time"] + after},
        }


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop") / "shop")


@pytest.fixture(scope="module")
def found(shop: Shop) -> dict[str, Any]:
    return off_policy(shop.project, now=NOW)


def test_the_candidate_earns_what_it_is_said_to(shop: Shop, found: dict[str, Any]) -> None:
    assert (found["num_lists"], found["num_users"], found["left_out"]) == (NUM_USERS * NUM_ROUNDS, NUM_USERS, {})
    for name in ("ips", "snips", "dr"):
        value = found["values"][name]
        assert value["low"] <= shop.truth <= value["high"], name
        assert found["gains"][name]["value"] == pytest.approx(value["value"] - found["logged"]["value"])
    assert found["values"]["dr"]["low"] > found["logged"]["value"]  # it is better, and that is seen
    assert found["candidate"] == bundle_id(shop.project.bundle) and found["clip"] is None
    assert 0 <= found["uncovered"] < 0.1 and found["mean_weight"] == pytest.approx(1, abs=0.1)
    for one, truth in zip(found["examination"], EXAMINED, strict=True):
        assert one["relative"]["low"] <= truth <= one["relative"]["high"]


def test_histories_are_as_they_were_then(found: dict[str, Any]) -> None:
    """What was clicked later was not yet seen: with today's histories hardly a list would be the same."""
    assert found["made_again"] == 1


def test_the_served_release_without_chance(shop: Shop) -> None:
    """Each weight is 0, or one over the probability of what stands where it does without chance: .4 and a little, of
    drawing what one lost oneself."""
    found = off_policy(shop.project, shop.release[:8], now=NOW, clip=1.5)
    assert found["candidate"] == shop.release and found["uncovered"] == 0
    assert (found["clip"], found["max_weight"]) == (1.5, 1.5) and found["num_clipped"] > 500
    assert found["effective"] > 500


def test_only_what_followed_in_time_counts(shop: Shop, found: dict[str, Any]) -> None:
    params = shop.project.params_file
    text = params.read_text()
    params.write_text(f"{text}feedback: {{window: 43s}}\n")  # 43 s; clicks came after a minute
    try:
        late = off_policy(shop.project, now=NOW)
    finally:
        params.write_text(text)
    assert (late["logged"]["value"], late["num_lists"]) == (0, found["num_lists"])
    assert found["logged"]["value"] > 0.3 and late["examination"] == []


@pytest.fixture
def copy(shop: Shop, tmp_path: Path) -> Shop:
    """One to be changed."""
    shutil.copytree(shop.project.root, tmp_path / "shop", symlinks=True)
    other = Shop.__new__(Shop)
    other.__dict__.update(shop.__dict__, project=Project(tmp_path / "shop"))
    return other


def test_what_tells_nothing_is_left_out_and_counted(copy: Shop, found: dict[str, Any]) -> None:
    with closing(open_store(copy.project.store_url)) as store:
        like = store.answer("q-0-0")
        assert like is not None
        plain = [{**item, "propensity": 1.0} for item in like["items"]]
        old = [{key: value for key, value in item.items() if key != "propensity"} for item in like["items"]]
        changes: list[dict[str, Any]] = [
            {"user_id": None},
            {"variant": "shade"},
            {"variant": "gone"},
            {"variant": "b"},
            {"items": plain},
            {"items": old},
            {"items": []},
            {"release": "0" * 64},
            {"time": NOW - DAY_US},  # its window is not over
            {"time": NOW - 31 * DAY_US},
        ]
        store.log_answers([{**like, "request_id": f"new {n}", **change} for n, change in enumerate(changes)])
        arms = [{"name": name, "release": copy.release, "mode": mode, "share": 0.5} for name, mode in ARMS]
        store.put_report("traffic", {"arms": arms})
    again = off_policy(copy.project, now=NOW)
    assert again["left_out"] == {
        "named no user": 1,
        "of a variant that nobody is shown now": 2,
        "made without exploration": 3,
        "of a release that is not kept": 1,
    }
    assert again["num_lists"] == found["num_lists"] + 1  # that of the arm b


ARMS = (("shade", "shadow"), ("b", "ab"))


def test_what_the_candidate_may_have_learnt_from_is_left_out(copy: Shop) -> None:
    until = "2027-01-15T08:10:00.000000+00:00"  # START is 08:00; the next round of answers
    write_bundle(copy.project, copy.candidate, until)
    found = off_policy(copy.project, now=NOW)
    assert found["left_out"] == {"from before the candidate's newest event": 2 * NUM_USERS}
    write_bundle(copy.project, copy.candidate, "2028-01-01T00:00:00.000000+00:00")
    with pytest.raises(CallError, match=f"{NUM_ROUNDS * NUM_USERS} from before the candidate's newest event$"):
        off_policy(copy.project, now=NOW)


def test_what_the_log_cannot_tell_is_refused(copy: Shop) -> None:
    with pytest.raises(CallError, match=r"no answer of the last 1 days .*: none was logged; set `exploration`"):
        off_policy(copy.project, days=1, now=NOW)
    upside_down = 1 - copy.worth
    write_bundle(copy.project, upside_down)
    with pytest.raises(CallError, match=r"of what the candidate shows could not have been shown .* more `candidates`"):
        off_policy(copy.project, now=NOW)
    (copy.project.root / "rules.yaml").write_text("")  # nothing is known of what could have been shown
    with pytest.raises(CallError, match="agree too seldom"):
        off_policy(copy.project, now=NOW)
    with pytest.raises(CallError, match="no release 'nowhere'"):
        off_policy(copy.project, "nowhere", now=NOW)
    with closing(open_store(copy.project.store_url)) as store:
        for user in USERS:
            store.erase_user(user, NOW)
        plain = {"items": [{"item_id": "i00", "score": 1.0, "title": None, "rank": 1}], "source": "model"}
        store.log_answers([copy.answer("plain", NOW - 2 * DAY_US, "u", {**plain, "propensities": None})])
    with pytest.raises(CallError, match=r": 1 made without exploration; set `exploration` in the rules file"):
        off_policy(copy.project, now=NOW)


def test_the_command_shows_it(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The machine's clock is put to five days after the first answers."""
    monkeypatch.setattr("recops.cli.datetime", _Clock)
    code, out, err = recops(monkeypatch, capsys, "off-policy", "-C", str(shop.project.root))
    assert (code, err) == (0, "")
    for words in ("logged policy", "candidate, IPS", "candidate, SNIPS", "candidate, DR", "effective sample", "clip"):
        assert words in out
    assert "could not have been shown" in out and "Looked at, against rank 1" in out
    code, out, _ = recops(monkeypatch, capsys, "off-policy", "-C", str(shop.project.root), "--json", "--days", "30")
    assert (code, json.loads(out)["num_lists"]) == (0, NUM_USERS * NUM_ROUNDS)
    code, _, err = recops(monkeypatch, capsys, "off-policy", "-C", str(shop.project.root), "--days", "0.5")
    assert code == 2 and err.startswith("error: no answer of the last 0.5 days")


class _Clock:
    @staticmethod
    def now(zone: object) -> "_Clock":
        return _Clock()

    def timestamp(self) -> float:
        return NOW / 1_000_000
