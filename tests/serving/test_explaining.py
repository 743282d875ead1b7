"""The account of one item for one user, and `recops explain`: numbers worked by hand from conftest.py."""

import json

import numpy as np
import pytest

from recops.bundle import Bundle, Pointer, load_bundle, release_folder, write_pointer
from recops.calibration import Fusion
from recops.errors import CallError, RefusedError
from recops.protocols import ServingParts
from recops.release.export import export_bundle
from recops.runtime import Scorer
from recops.serving import loading
from recops.serving.explaining import explain
from recops.serving.local import explain_once, recommend_once
from recops.serving.release import Encoders, Release
from recops.serving.requests import Recommend, parse
from recops.serving.retrieval import Stored
from recops.store import open_store
from tests.release.small_bundles import facts, items


def account(release, item_id, stored=None, **body):
    return explain(release, parse(Recommend, json.dumps(body).encode()), stored, item_id)


@pytest.fixture
def release(served):
    return served.state.release


def test_the_whole_account(release):
    assert account(release, "c", history=["a", "b"]) == {
        "item_id": "c",
        "title": "C",
        "release": release.id,
        "source": "cold-start",
        "rank": 1,
        "rank_before_rules": 1,
        "num_shown": 4,
        "score": 1.25,
        "removed_by": [],
        "moved": [],
        "parts": [
            {
                "model": "item_knn",
                **{"raw": 1.25, "calibrated": 1.25, "weight": 1.0, "adds": 1.25},
                **{"by_content": None, "content_share": 0.0},
            }
        ],
        "content_share": 0.0,
        "reranker": None,
        "history": [
            {"item_id": "b", "title": "B", "loses": 1.0, "share": 0.8},
            {"item_id": "a", "title": "A", "loses": 0.25, "share": 0.2},
        ],
        "history_length": 2,
        "reasons": [
            {"type": "history", "item_id": "b", "title": "B", "share": 0.8, "text": "Because of B in your history"},
            {"type": "history", "item_id": "a", "title": "A", "share": 0.2, "text": "Because of A in your history"},
        ],
        "nearest": [
            {"item_id": "b", "rank": 1, "score": 0.5, "title": "B"},
        ],
        "nearest_by": "categories",
    }


@pytest.mark.parametrize(
    ("item_id", "body", "stored", "removed_by"),
    [
        ("b", {"history": ["b"]}, None, ["seen"]),
        ("a", {"user_id": "u1"}, Stored(["a"]), ["seen"]),
        ("c", {"user_id": "u1"}, Stored(["a"], refused=["c", "gone"]), ["disliked"]),
        ("c", {"history": ["a"], "exclude": ["c"]}, None, ["exclude"]),
        ("b", {"history": [], "filters": {"available": True}}, None, ["filters.available"]),
        (
            "b",
            {"history": ["b"], "exclude": ["b"], "filters": {"price": {"max": 1}, "categories": ["y"]}},
            None,
            ["seen", "exclude", "filters.price"],
        ),
    ],
)
def test_what_is_not_shown_says_what_took_it_away(release, item_id, body, stored, removed_by):
    found = account(release, item_id, stored, **body)
    assert (found["rank"], found["removed_by"]) == (None, removed_by)


def test_what_moves_up_when_others_are_removed(release):
    """c 1.25, b .5, d .125: b is seen and c excluded."""
    found = account(release, "d", history=["a", "b"], exclude=["c"])
    assert (found["rank"], found["rank_before_rules"], found["num_shown"]) == (1, 3, 3)
    # e and f have the score of a, 0: the lower row first.
    assert [account(release, item, history=["a", "b"])["rank_before_rules"] for item in "aef"] == [4, 5, 6]


def test_the_fallback_has_no_parts(release):
    found = account(release, "a", user_id="nobody")
    assert (found["source"], found["rank"], found["score"]) == ("fallback", 1, 6.0)
    assert (found["parts"], found["history"]) == ([], [])
    assert found["reasons"] == [{"type": "popular", "text": "Many choose it"}]


def test_each_model_of_a_fusion_says_its_part(tmp_path):
    """Links a -> b 1, a -> c 3, and popularity 1, 2, 4, over b, c and d, which no link leads to."""
    links = (np.array([0, 0, 2, 2, 2, 2]), np.array([2, 3], np.int32), np.array([1, 3], np.float32))
    popular = ServingParts(item_scores=np.array([0, 9, 1, 2, 4], np.float32), needs_history=False)
    fusion = Fusion(np.array([[3, 1]], np.float32))
    parts = ServingParts(
        members=[("knn", ServingParts(links=links)), ("popular", popular)], fusion=fusion, needs_history=False
    )
    export_bundle(
        parts,
        tmp_path / "bundle",
        items=items("a", "b", "c", "d"),
        fallback=np.zeros(5, np.float32),
        profile={},
        facts=facts(model="fusion"),
        opset=20,
        max_links=9,
    )
    release = Release(load_bundle(tmp_path / "bundle"), {})
    knn, many = account(release, "c", history=["a"])["parts"]
    # Of 1 and 3 (b, c) the mean is 2 and the deviation 1; of 1, 2, 4 (b, c, d) the mean is 7/3.
    said = {"raw": 3.0, "calibrated": 1.0, "weight": 3.0, "adds": 3.0}
    assert knn == {"model": "knn", **said, "by_content": None, "content_share": 0.0}
    assert (many["model"], many["raw"], many["weight"]) == ("popular", 2.0, 1.0)
    assert many["calibrated"] == pytest.approx((2 - 7 / 3) / np.std([1, 2, 4]), rel=1e-5)
    assert account(release, "c", history=["a"])["score"] == pytest.approx(knn["adds"] + many["adds"], rel=1e-5)
    silent, alone = account(release, "d", history=["a"])["parts"]
    assert silent == {"model": "knn", **dict.fromkeys(knn.keys() - {"model"})}
    assert alone["weight"] == 4.0  # all of the weight there is
    assert account(release, "d", history=["a"])["reasons"] == [{"type": "popular", "text": "Many choose it"}]


def test_a_user_whom_the_table_of_the_fusion_lacks_is_none_that_it_was_trained_on(tmp_path):
    """As where another of its models knows users by their attributes."""
    links = (np.array([0, 0, 1, 1]), np.array([2], np.int32), np.array([1], np.float32))
    table = ServingParts(user_table=np.array([[0], [1]], np.float32), item_vectors=np.ones((3, 1), np.float32))
    export_bundle(
        ServingParts(members=[("knn", ServingParts(links=links)), ("mf", table)], fusion=Fusion(np.ones((1, 2)))),
        tmp_path / "bundle",
        items=items("a", "b"),
        users=["ann", "bob"],
        fallback=np.zeros(3, np.float32),
        profile={},
        facts=facts(model="fusion"),
        opset=20,
        max_links=9,
    )
    release = Release(load_bundle(tmp_path / "bundle"), {})
    assert account(release, "b", user_id="ann", history=["a"])["source"] == "model"
    assert account(release, "b", user_id="bob", history=["a"])["source"] == "cold-start"


def test_small_scores_are_not_taken_for_those_of_content(tmp_path):
    """Of a what was learnt is half of what its content lets one expect; b was never trained on."""
    scorer = Scorer(
        num_items=2,
        encode=lambda history_BL: np.ones((len(history_BL), 1), np.float32),
        item_vectors=np.array([[0], [1e-6], [3e-6]], np.float32),
        project=lambda content_MC: content_MC * np.float32(1e-6),
        content=("text",),
    )
    bundle = Bundle(
        tmp_path,
        "id",
        {"model": "spectral", "params": {}, "scoring": {}},
        items("a", "b"),
        scorer,
        np.zeros(3, np.float32),
        content={"text": np.array([[0], [2], [3]], np.float16)},
    )
    parts = [account(Release(bundle, {}), item, history=["a"])["parts"][0] for item in "ab"]
    assert [(part["by_content"], part["content_share"]) for part in parts] == [
        (pytest.approx(2e-6), 0.0),
        (pytest.approx(3e-6), 1.0),
    ]


def test_links_by_content_are_all_content(serve):
    found = account(serve(content=True).state.release, "f", history=["a"])
    assert (found["parts"][0]["by_content"], found["parts"][0]["content_share"]) == (1.0, 1.0)
    assert found["content_share"] == 1.0
    assert account(serve(content=True).state.release, "c", history=["a"])["content_share"] is None  # nothing adds


@pytest.fixture
def promoted(tmp_path, make_bundle):
    """Arguments of `explain_once` before the user: releases and store, with user u1 who has seen a."""
    release = make_bundle(tmp_path / "new")
    target = release_folder(tmp_path / "releases", release)
    target.parent.mkdir(parents=True)
    (tmp_path / "new").rename(target)
    write_pointer(tmp_path / "releases", Pointer(release), expected=None)
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    store = open_store(url)
    store.put_histories(release, [("u1", ["a"], None)])
    store.close()
    return tmp_path / "releases", url


def test_the_promoted_release_without_a_server(promoted):
    found = explain_once(*promoted, "u1", None, "c", [], None)
    assert (found["source"], found["rank"], found["score"]) == ("model", 2, 0.25)
    found = explain_once(*promoted, "u1", ["b"], "c", ["d"], '{"categories": ["x"]}')
    assert (found["score"], found["removed_by"]) == (1.25, ["filters.categories"])


def test_files_that_new_items_name_lie_where_the_sources_do(promoted, tmp_path, monkeypatch):
    """Else the service would know a new item by its picture, and this would not."""
    told = []
    monkeypatch.setattr(loading, "Encoders", lambda *given: told.append(given[2]) or Encoders(*given))
    explain_once(*promoted, "u1", None, "c", [], None, tmp_path)
    recommend_once(*promoted, "u1", [], 3, source=tmp_path)
    assert told == [tmp_path, tmp_path]


@pytest.mark.parametrize(
    ("user", "history", "item", "filters", "message"),
    [
        ("u1", None, "zz", None, r"^item 'zz': not in the catalogue of the served release \(6 items\)$"),
        ("who", None, "a", None, "^user 'who': not known to the served release; --history names items instead$"),
        ("u1", ["a", "zz"], "a", None, "^--history: 'zz' is not in the catalogue of the served release$"),
        ("u1", None, "a", "{", "^--filters: not JSON: "),
        ("u1", None, "a", '{"price": {"max": NaN}}', "^--filters: not JSON: "),
        ("u1", None, "a", '{"colour": 1}', "^filters.colour: "),
    ],
)
def test_mistakes_are_told(promoted, user, history, item, filters, message):
    with pytest.raises(CallError, match=message):
        explain_once(*promoted, user, history, item, [], filters)


def test_a_user_not_known_may_bring_a_history(promoted):
    assert explain_once(*promoted, "who", ["a"], "c", [], None)["source"] == "cold-start"


def test_before_the_first_release(tmp_path):
    with pytest.raises(RefusedError, match="no release"):
        explain_once(tmp_path, f"sqlite:///{tmp_path / 's'}", "u1", None, "a", [], None)
