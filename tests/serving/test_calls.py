"""POST /score and /similar, GET /release, /livez, /readyz, /metrics and /docs."""

import jsonschema
import pytest

from recops import plugins
from recops.serving.app import build_app, operations
from recops.serving.operation import Operation
from recops.serving.settings import Settings
from recops.serving.state import State


def test_score_keeps_the_order_asked_and_repeats(served):
    answer = served.post("/score", history=["a"], item_ids=["c", "unknown", "b", "c"])
    assert answer["scores"] == [
        {"item_id": "c", "score": 0.25},
        {"item_id": "unknown", "score": None},
        {"item_id": "b", "score": 0.5},
        {"item_id": "c", "score": 0.25},
    ]
    assert answer["source"] == "cold-start"
    assert served.post("/score", user_id="nobody", item_ids=["a", "f"])["scores"] == [
        {"item_id": "a", "score": 6.0},
        {"item_id": "f", "score": 1.0},
    ]


def test_similar_by_links_and_else_by_categories(served):
    answer = served.post("/similar", item_id="a")
    assert (answer["source"], [(i["item_id"], i["score"]) for i in answer["items"]]) == (
        "links",
        [("b", 1.0), ("c", 0.5)],
    )
    # f {x} has no links: a {x} 1, b {x, y} 1/2.
    answer = served.post("/similar", item_id="f", k=2)
    assert answer["source"] == "categories"
    assert [(i["item_id"], i["score"]) for i in answer["items"]] == [("a", 1.0), ("b", 0.5)]
    assert served.post("/similar", item_id="e")["items"] == []


def test_similar_of_an_unknown_item_is_not_found(served):
    answer = served.client.post("/similar", json={"item_id": "unknown"})
    assert answer.status_code == 404
    assert answer.json()["field"] == "item_id"


def test_release_says_what_is_served(served):
    answer = served.client.get("/release").json()
    assert answer["release"] == served.state.release.id
    assert (answer["model"], answer["num_items"], answer["metrics"]) == ("item_knn", 6, {"ndcg@10": 0.5})


def test_ready_only_with_a_release(served, connect):
    assert served.client.get("/livez").json() == {"live": True}
    assert served.client.get("/readyz").json() == {"ready": True, "release": served.state.release.id}
    client = connect(build_app(State(Settings())))
    assert client.get("/livez").status_code == 200
    for answer in (client.get("/readyz"), client.post("/recommend", json={"user_id": "u"}), client.get("/release")):
        assert answer.status_code == 503
        assert answer.json()["error"] == "not_ready"


def test_ready_says_what_to_do_when_nothing_was_promoted(tmp_path, connect):
    state = State(Settings(releases=tmp_path))
    state.poll()
    answer = connect(build_app(state)).get("/readyz")
    assert answer.status_code == 503
    assert "no release has been promoted" in answer.json()["message"]


def test_metrics_count_answers(served):
    def count() -> float:
        text = served.client.get("/metrics").text
        line = next(x for x in text.splitlines() if x.startswith('recops_recommendations_total{source="fallback"}'))
        return float(line.split()[-1])

    served.post("/recommend", user_id="nobody")
    before = count()
    served.post("/recommend", user_id="nobody")
    assert count() == before + 1
    assert 'recops_requests_total{path="/recommend",status="200"}' in served.client.get("/metrics").text


def test_every_endpoint_file_gives_operations():
    for name in plugins.names("serving.endpoints"):
        module = plugins.load_module("serving.endpoints", name)
        assert module.__doc__
        assert module.OPERATIONS
        assert all(isinstance(o, Operation) and o.path.startswith("/") for o in module.OPERATIONS), name


def test_the_description_names_exactly_what_is_answered(served):
    description = served.client.get("/openapi.json").json()
    assert description == served.client.get("/docs.json").json()
    described = {(m.upper(), path) for path, methods in description["paths"].items() for m in methods}
    assert described == {(o.method, o.path) for o in operations()}
    assert {
        ("POST", "/recommend"),
        ("POST", "/recommend/batch"),
        ("POST", "/score"),
        ("POST", "/similar"),
        ("GET", "/release"),
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("GET", "/docs"),
    } <= described
    for method, path in described:
        assert served.client.request(method, path, json={}).status_code in (200, 400)
    fields = description["components"]["schemas"]["Recommend"]["properties"]
    assert set(fields) == {"user_id", "history", "k", "exclude", "filters", "diversity", "explain"}


def test_the_description_says_what_stands_in_paths_and_query_strings(served):
    paths = served.client.get("/openapi.json").json()["paths"]
    of_user = paths["/users/{user_id}"]
    told = [(p["name"], p["in"], p["required"], p["schema"]["type"]) for p in of_user["get"]["parameters"][:2]]
    assert told == [("user_id", "path", True, "string"), ("limit", "query", False, "integer")]
    assert [p["name"] for p in of_user["delete"]["parameters"]] == ["user_id"]
    assert {path for path, methods in paths.items() for one in methods.values() if "404" in one["responses"]} == {
        "/similar"
    }
    assert "408" in paths["/events"]["post"]["responses"] and "408" not in paths["/release"]["get"]["responses"]
    assert "400" in of_user["get"]["responses"] and "400" not in paths["/release"]["get"]["responses"]
    names = [entry["operationId"] for methods in paths.values() for entry in methods.values()]
    assert len(set(names)) == len(names) and all(name.isidentifier() for name in names)
    assert {"recommend", "recommend_batch", "docs_json", "user", "erase_user"} <= set(names)


def test_docs_need_no_foreign_files(served):
    page = served.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "POST /recommend" in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_the_release_is_as_described(served):
    entry = served.client.get("/openapi.json").json()["paths"]["/release"]["get"]
    schema = entry["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(served.client.get("/release").json(), schema)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/recommend", {"history": ["a"], "explain": True}),
        ("/recommend/batch", {"requests": [{"user_id": "u1"}]}),
        ("/score", {"user_id": "u1", "item_ids": ["a", "zz"]}),
        ("/similar", {"item_id": "a"}),
    ],
)
def test_answers_are_as_described(served, path, body):
    description = served.client.get("/openapi.json").json()
    entry = description["paths"][path]["post"]
    jsonschema.validate(served.post(path, **body), entry["responses"]["200"]["content"]["application/json"]["schema"])
