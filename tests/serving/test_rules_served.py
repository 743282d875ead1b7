"""Rules over HTTP and without a server: in every answer, in the log, in explanations. Numbers from conftest.py."""

import json
import time
from pathlib import Path

import pytest

from recops.bundle import Pointer, release_folder, write_pointer
from recops.serving.assistant.asking import ask
from recops.serving.explaining import explain
from recops.serving.local import ask_once, explain_once, recommend_once
from recops.serving.requests import Ask, Recommend
from recops.serving.retrieval import Stored
from recops.serving.ruleset import rules_of
from recops.store import open_store


def rules(**values):
    return rules_of(values, Path("rules.yaml"))


@pytest.fixture
def ruled(serve):
    """The service with these rules."""
    return lambda options=None, **values: serve({"rules": rules(**values)}, **(options or {}))


def test_filters_of_the_file_hold_in_every_answer(ruled):
    served = ruled(available=True, exclude=["f"])
    assert served.ids(user_id="u1") == ["c", "e"]
    assert served.ids(history=["a", "b"]) == ["c", "e"]
    assert served.ids(user_id="nobody") == ["a", "c", "e"]
    assert served.ids(user_id="nobody", filters={"available": False}) == []
    assert served.ids(user_id="nobody", exclude=["a"], filters={"price": {"max": 3}}) == ["c"]
    batch = served.post("/recommend/batch", requests=[{"user_id": "u1"}, {"user_id": "nobody", "k": 1}])["responses"]
    assert [[item["item_id"] for item in one["items"]] for one in batch] == [["c", "e"], ["a"]]
    near = served.post("/similar", item_id="a")
    assert (near["source"], [(i["item_id"], i["rank"], i["score"]) for i in near["items"]]) == (
        "links",
        [("c", 1, 0.5)],
    )
    assert served.post("/score", user_id="u1", item_ids=["f"])["scores"][0]["score"] == 0.0  # asked for by name


def test_similar_takes_filters_and_goes_on_to_what_is_near_otherwise(served):
    """b and c are linked to a, f shares its category."""

    def near(**body):
        answer = served.post("/similar", item_id="a", **body)
        return answer["source"], [item["item_id"] for item in answer["items"]]

    assert near(filters={"available": True}) == ("links", ["c"])
    assert near(exclude=["b", "gone"]) == ("links", ["c"])
    assert near(exclude=["b", "c"]) == ("categories", ["f"])
    assert near(filters={"price": {"min": 6}}) == ("categories", ["f"])
    assert near(filters={"categories": ["none"]}) == ("categories", [])
    answer = served.client.post("/similar", json={"item_id": "a", "diversity": 0.5})
    assert (answer.status_code, answer.json()["field"]) == (400, "diversity")


def test_similar_by_vectors_is_full(serve):
    served = serve(encoder=True)
    assert [i["item_id"] for i in served.post("/similar", item_id="a", filters={"categories": ["x"]})["items"]] == [
        "b",
        "f",
    ]


def test_a_call_may_ask_for_diversity(serve):
    """Vectors a (1, 0), b (0, 1), c (1, 1), d (2, 0), f (-1, 0); after b, who sums up to (0, 1): c 1, a, d, e, f 0. As
    unlike as can be: to c (likeness a, d .71, e 0, f -.71) f; then e, likeness 0, before d, .71, and a its equal."""
    served = serve(encoder=True)
    body = {"history": ["b"]}
    assert served.ids(**body) == served.ids(**body, diversity=0) == ["c", "a", "d", "e", "f"]
    assert served.ids(**body, diversity=1) == ["c", "f", "e", "a", "d"]
    scores = [item["score"] for item in served.post("/recommend", **body, diversity=1)["items"]]
    assert scores == [1, 0, 0, 0, 0]
    assert served.ids(**body, diversity=1, k=2) == ["c", "f"]


def test_the_scores_shown_are_those_of_the_model(ruled):
    """u1 had a: b .5, c .25; d, e, f 0."""
    served = ruled(boost=[{"items": ["c"], "factor": 10}], pin=[{"item_id": "f", "rank": 2}])
    answer = served.post("/recommend", user_id="u1")
    assert [(item["item_id"], item["score"]) for item in answer["items"]] == [
        *(("c", 0.25), ("f", 0.0), ("b", 0.5), ("d", 0.0), ("e", 0.0))
    ]


def test_explanations_say_which_rule_moved_an_item(ruled):
    served = ruled(boost=[{"items": ["c"], "factor": 10}], pin=[{"item_id": "f", "rank": 2}], exclude=["e"])
    items = served.post("/recommend", user_id="u1", explain=True)["items"]
    assert {item["item_id"]: item.get("moved") for item in items} == {
        "c": [{"rule": "boost", "from": 2, "to": 1}],
        "f": [{"rule": "pin", "from": 4, "to": 2}],
        "b": [{"rule": "boost", "from": 1, "to": 2}, {"rule": "pin", "from": 2, "to": 3}],
        "d": [{"rule": "pin", "from": 3, "to": 4}],
    }
    assert all("reasons" in item for item in items)
    assert "moved" not in served.post("/recommend", user_id="u1")["items"][0]
    release, given = served.state.release, served.state.settings.rules
    request, stored = Recommend.model_construct(user_id="u1"), Stored(["a"])
    account = explain(release, request, stored, "b", given)
    assert (account["rank"], account["rank_before_rules"], account["num_shown"]) == (3, 1, 4)
    assert account["moved"] == [{"rule": "boost", "from": 1, "to": 2}, {"rule": "pin", "from": 2, "to": 3}]
    account = explain(release, request, stored, "e", given)
    assert (account["rank"], account["removed_by"], account["moved"]) == (None, ["rules.exclude"], [])
    assert explain(release, request, stored, "a", given)["nearest"][0]["item_id"] == "b"


def logged(served, request_id):
    until = time.monotonic() + 5
    while (answer := served.state.store.answer(request_id)) is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    return answer["items"]


def test_propensities_are_logged_and_not_told(ruled):
    served = ruled(exploration={"epsilon": 0.5, "candidates": 4}, pin=[{"item_id": "e", "rank": 1}])
    seen = set()
    for _ in range(30):
        answer = served.post("/recommend", user_id="u1", k=2)
        assert all(set(item) == {"item_id", "rank", "score", "title"} for item in answer["items"])
        # The best four without e: b, c, d, f. One rank is left for them: b's, unless it is given away and drawn by all.
        first, second = logged(served, answer["request_id"])
        assert (first["item_id"], first["propensity"]) == ("e", 1.0)
        assert second["propensity"] == pytest.approx(0.625 if second["item_id"] == "b" else 0.125)
        assert [item["item_id"] for item in answer["items"]] == ["e", second["item_id"]]
        seen.add(second["item_id"])
    assert {"b"} < seen <= {"b", "c", "d", "f"}


def test_an_answer_is_repeated_by_its_request_id(ruled, tmp_path):
    served = ruled(exploration={"epsilon": 0.9})
    release, given = served.state.release, served.state.settings.rules
    for _ in range(5):
        answer = served.post("/recommend", user_id="nobody")
        shown = [item["item_id"] for item in answer["items"]]
        for rank, item_id in enumerate(shown, start=1):
            request = Recommend.model_construct(user_id="nobody")
            assert explain(release, request, None, item_id, given, answer["request_id"])["rank"] == rank
        assert explain(release, Recommend.model_construct(user_id="nobody"), None, "a", given)["rank"] == 1


def test_attributes_that_are_told_can_be_asked_for(serve):
    served = serve(content=True)
    assert served.ids(user_id="nobody", filters={"attributes": {"seller": "one"}}) == []
    served.post("/items", items=[{"item_id": "b", "attributes": {"seller": "one", "tags": ["new", 3], "used": True}}])
    served.post("/items", items=[{"item_id": "zz", "categories": ["x"], "attributes": {"seller": "two", "used": 1}}])

    def having(**attributes):
        return served.ids(user_id="nobody", filters={"attributes": attributes})

    assert having(seller="one") == ["b"]
    assert having(seller=["one", "two"]) == ["b", "zz"]
    assert having(seller="one", tags=3.0) == ["b"]
    assert having(seller="two", tags="new") == []
    assert (having(used=True), having(used=1)) == (["b"], ["zz"])
    assert having(gone="one") == []


@pytest.fixture
def promoted(tmp_path, make_bundle):
    release = make_bundle(tmp_path / "new")
    target = release_folder(tmp_path / "releases", release)
    target.parent.mkdir(parents=True)
    (tmp_path / "new").rename(target)
    write_pointer(tmp_path / "releases", Pointer(release), expected=None)
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    open_store(url).close()
    return tmp_path / "releases", url


def test_rules_hold_without_a_server(promoted):
    given = rules(available=True, pin=[{"item_id": "f", "rank": 1}])
    found = recommend_once(*promoted, None, ["a"], 10, rules=given)
    assert [item["item_id"] for item in found["items"]] == ["f", "c", "e"]
    assert set(found) == {"items", "source", "release"}
    account = explain_once(*promoted, None, ["a"], "b", [], None, rules=given)
    assert account["removed_by"] == ["rules.available"]
    account = explain_once(*promoted, None, ["a"], "c", [], None, rules=given, k=1)
    assert (account["rank"], account["moved"]) == (2, [{"rule": "pin", "from": 1, "to": 2}])
    shown = ask_once(*promoted, "what is there?", None, None, 10, rules=given)["items"]
    assert {item["item_id"] for item in shown} == {"a", "c", "e", "f"}


def test_chance_without_a_server_only_by_request_id(promoted):
    given = rules(exploration={"epsilon": 1.0})

    def shown(request_id):
        return [
            i["item_id"] for i in recommend_once(*promoted, None, [], 6, rules=given, request_id=request_id)["items"]
        ]

    assert shown(None) == list("abcdef")
    assert len({tuple(shown(f"{n}")) for n in range(5)}) > 1
    assert shown("7") == shown("7")


def test_questions_are_answered_by_what_the_rules_let_through(served):
    release, given = served.state.release, rules(exclude=["a", "b"], available=True)

    def answered(question, **body):
        return ask(release, Ask.model_validate({"question": question, **body}), None, rules=given)

    assert {item["item_id"] for item in answered("what is there?").items} == {"c", "e", "f"}
    # What is hidden is neither counted nor told of when somebody asks why it was shown.
    nothing = answered("under 0.5 euros")
    assert (nothing.items, "Without the price there are 3 items" in nothing.text) == ([], True)
    shown_before = [{"question": "what is there?", "items": ["a", "c", "b"]}]
    why = answered("why did you show me this?", conversation=shown_before)
    assert [item["item_id"] for item in why.items] == ["c"]
    why = answered("why did you show me this?", conversation=[{"question": "what is there?", "items": ["a"]}])
    assert (why.items, "“A”" in why.text) == ([], False)


def test_the_description_has_the_fields_of_rules(served):
    schemas = served.client.get("/openapi.json").json()["components"]["schemas"]
    assert set(schemas["Filters"]["properties"]) == {
        "attributes",
        "available",
        "categories",
        "price",
        "published_after",
    }
    assert set(schemas["Similar"]["properties"]) == {"item_id", "k", "exclude", "filters"}
    assert {"exclude", "filters", "diversity"} <= set(schemas["Recommend"]["properties"])
    assert json.dumps(schemas)
