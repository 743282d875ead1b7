"""POST /recommend with `explain`: the reasons of each item. All numbers worked by hand from conftest.py."""

import jsonschema
import numpy as np
import pytest

from recops import bundle
from recops.serving.endpoints.recommend import ANSWER

# To b: from a 1, from c 1/4, from f 1; a also leads to itself.
TO_B = {
    bundle.LINKS["indptr"]: np.array([0, 0, 2, 2, 3, 3, 3, 4], np.int64),
    bundle.LINKS["indices"]: np.array([1, 2, 2, 2], np.int32),
    bundle.LINKS["weights"]: np.array([0.5, 1, 0.25, 1], np.float32),
}


def reasons(served, **body):
    answer = served.post("/recommend", explain=True, **body)
    jsonschema.validate(answer, ANSWER)
    return {item["item_id"]: item["reasons"] for item in answer["items"]}


def history(item_id, share, text=None):
    text = text or f"Because of {item_id.upper()} in your history"
    share = pytest.approx(share, abs=1e-6)
    return {"type": "history", "item_id": item_id, "title": item_id.upper(), "share": share, "text": text}


def test_shares_are_of_what_each_item_of_the_history_carries(served):
    found = reasons(served, history=["a", "b"])
    assert found["c"] == [history("b", 0.8), history("a", 0.2)]
    assert found["d"] == [history("b", 1)]
    assert found["e"] == []  # nothing leads there


def test_stored_and_given_history_count_alike(served):
    assert reasons(served, user_id="u1", history=["b"], k=1)["c"] == [history("b", 0.8), history("a", 0.2)]


def test_a_title_that_is_not_known_gives_way_to_the_id(serve):
    links = dict(
        zip(bundle.LINKS.values(), (np.array([0, 0, 0, 0, 0, 1, 1, 1]), np.array([1], np.int32)), strict=False)
    )
    found = reasons(serve(arrays={**links, bundle.LINKS["weights"]: np.ones(1, np.float32)}), history=["d"], k=1)
    assert found["a"] == [{**history("d", 1), "title": None, "text": "Because of d in your history"}]


def test_a_category_that_carries_more_than_its_part_of_the_history(serve):
    """Of what speaks for b, 8/9 come from a and f, of x; of three items of the history these are two."""
    found = reasons(serve(arrays=TO_B), history=["a", "f", "c"], k=1)
    assert found["b"] == [
        history("f", 4 / 9),  # as much as a, and later
        history("a", 4 / 9),
        history("c", 1 / 9),
        {
            "type": "attribute",
            "name": "category",
            "value": "x",
            "share": pytest.approx(8 / 9),
            "text": "Because of x in your history, which this is too",
        },
    ]


def test_an_item_that_is_shown_again(serve):
    found = reasons(serve(arrays=TO_B, remove_seen=False), history=["a", "c"])
    assert found["a"] == [history("a", 1, "You had it before")]


def test_somebody_without_a_history_gets_what_many_choose(served):
    """Of 6, 5, 4, 3, 2 and 1 the first three are more than the mean."""
    popular = [{"type": "popular", "text": "Many choose it"}]
    found = reasons(served, user_id="nobody")
    assert [found[item] for item in "abcdef"] == [popular] * 3 + [[]] * 3


def test_a_model_of_popularity_has_no_reason_in_the_history(serve):
    scores = np.array([0, 1, 2, 3, 4, 5, 60], np.float32)
    popular = serve(arrays={bundle.SCORES: scores}, scoring={"needs_history": False})
    found = reasons(popular, user_id="u1", history=["b"])
    assert found == {"f": [{"type": "popular", "text": "Many choose it"}], "c": [], "d": [], "e": []}


def test_a_network_is_asked_again_without_each_item(serve):
    """Vectors of the history add up: c, (1, 1), has 1 from a and 1 from b; d, (2, 0), all of its 2 from a."""
    found = reasons(serve(encoder=True, model="sasrec"), history=["a", "b"])
    assert found["c"] == [history("b", 0.5), history("a", 0.5)]
    assert found["d"] == [history("a", 1)]
    assert found["f"] == []  # it speaks against f


@pytest.mark.parametrize("options", [{}, {"encoder": True}, {"remove_seen": False}])
def test_reasons_change_no_list(serve, options):
    served = serve(**options)
    for body in ({"history": ["a", "b"]}, {"user_id": "u1"}, {"user_id": "nobody", "k": 2}):
        with_reasons = served.post("/recommend", **body, explain=True)["items"]
        assert [{k: v for k, v in item.items() if k != "reasons"} for item in with_reasons] == served.post(
            "/recommend", **body
        )["items"]


def test_each_request_of_a_batch_says_whether_it_wants_reasons(served):
    asked = [{"history": ["a"], "k": 1, "explain": True}, {"history": ["a"], "k": 1}]
    first, second = served.post("/recommend/batch", requests=asked)["responses"]
    assert first["items"][0]["reasons"] == [history("a", 1)]
    assert "reasons" not in second["items"][0]


def test_the_description_has_every_type_of_reason(served):
    paths = served.client.get("/openapi.json").json()["paths"]
    answer = paths["/recommend"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    described = answer["properties"]["items"]["items"]["properties"]["reasons"]["items"]["anyOf"]
    assert [one["properties"]["type"]["const"] for one in described] == ["history", "attribute", "taste", "popular"]
