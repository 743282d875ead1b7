"""Lists of a catalogue with an index are those of the exact scan, whatever is hidden and whoever asks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recops import index as ann
from recops.bundle import Bundle
from recops.histories import Histories
from recops.runtime import Scorer
from recops.serving import best as searching
from recops.serving.release import Release
from recops.serving.requests import Recommend, RecommendBatch, parse
from recops.serving.retrieval import Stored, lists, recommend
from recops.topk import best_products

pytest.importorskip("faiss", reason="the extra ann is not installed: no faiss")
NUM_ITEMS, NUM_USERS, WIDTH = 4000, 40, 8
IDS = [f"i{row:04d}" for row in range(NUM_ITEMS)]


def project(content: np.ndarray) -> np.ndarray:
    return np.repeat(content, WIDTH, axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def scan() -> Release:
    """One item in ten is of category `few`, three of four are of `many`; prices are the rows."""
    rng = np.random.default_rng(0)
    vectors, users = (rng.standard_normal((num + 1, WIDTH)).astype(np.float32) for num in (NUM_ITEMS, NUM_USERS))
    scorer = Scorer(
        NUM_ITEMS,
        item_vectors=vectors,
        user_table=users,
        fallback=np.arange(NUM_ITEMS + 1, dtype=np.float32),
        project=project,
        content=("made",),
    )
    rows = range(1, NUM_ITEMS + 1)
    items: dict[str, list[Any]] = {
        "item_id": IDS,
        "title": [None] * NUM_ITEMS,
        "categories": [[*(["few"] if row % 10 == 0 else []), *(["many"] if row % 4 else [])] for row in rows],
        "price": [float(row) for row in rows],
        "available": [True] * NUM_ITEMS,
        "published_at": [None] * NUM_ITEMS,
    }
    manifest = {"remove_seen": True, "scoring": {}}
    content = {"made": np.zeros((NUM_ITEMS + 1, 1), np.float16)}
    made = Bundle(
        Path("made"), "made", manifest, items, scorer, scorer.fallback, [f"u{n}" for n in range(NUM_USERS)], content
    )
    return Release(made, {})


@pytest.fixture(scope="module")
def indexed(scan: Release) -> Release:
    """The same, by codes of four bits that leave no list wrong at this size."""
    vectors = scan.bundle.scorer.item_vectors
    assert vectors is not None
    index = ann.build_index("scan", vectors).trying(ann.Effort(over=40))
    return Release(replace(scan.bundle, index=index), {})


def both(scan: Release, indexed: Release, request: dict[str, Any], stored: Stored | None = None) -> list[str]:
    """The ids of the list, which must be the same from both."""
    asked = Recommend.model_validate(request)
    exact, found = (recommend(release, asked, stored) for release in (scan, indexed))
    ids = [item["item_id"] for item in found["items"]]
    assert ids == [item["item_id"] for item in exact["items"]] and found["source"] == exact["source"]
    expected = [item["score"] for item in exact["items"]]
    assert [item["score"] for item in found["items"]] == pytest.approx(expected, abs=1e-5)
    return ids


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"filters": {"categories": ["few"]}},
        {"filters": {"categories": ["many"]}},
        {"filters": {"price": {"max": 1500}}},
        {"filters": {"categories": ["few"], "price": {"max": 90}}},
        {"filters": {"price": {"max": 0.5}}},
        {"exclude": IDS[100:3000:7]},
        {"k": 1000},
    ],
)
def test_filters_are_exact(scan: Release, indexed: Release, more: dict[str, Any]) -> None:
    stored = Stored(IDS[:50], refused=IDS[50:60])
    for user in range(NUM_USERS):
        ids = both(scan, indexed, {"user_id": f"u{user}", "k": 20, **more}, stored)
        prices = [indexed.row_of[item_id] for item_id in ids]
        filters = more.get("filters", {})
        assert len(ids) == min(more.get("k", 20), {90: 3, 0.5: 0}.get(filters.get("price", {}).get("max"), 1000))
        assert not set(ids) & {*IDS[:60], *more.get("exclude", [])}
        assert all(price <= filters.get("price", {}).get("max", NUM_ITEMS) for price in prices)
        assert all(row % 10 == 0 for row in prices if "few" in filters.get("categories", []))


def test_the_best_items_excluded_leave_the_next(scan: Release, indexed: Release) -> None:
    first = both(scan, indexed, {"user_id": "u1", "k": 300})
    assert both(scan, indexed, {"user_id": "u1", "k": 10, "exclude": first[:250]}) == first[250:260]
    assert both(scan, indexed, {"user_id": "u1", "k": 10, "history": first[:250]}) == first[250:260]


def test_somebody_unknown_gets_what_is_popular(scan: Release, indexed: Release) -> None:
    assert both(scan, indexed, {"user_id": "nobody", "k": 3}) == IDS[:-4:-1]


def test_more_than_the_catalogue_is_the_whole_of_it(scan: Release, indexed: Release) -> None:
    asked = Histories([np.array([], np.int64)], users=np.array([3]))
    rows, _ = next(searching.best(indexed, asked, iter([([], NUM_ITEMS + 5)])))
    assert sorted(rows.tolist()) == list(range(1, NUM_ITEMS + 1))


def test_an_item_told_later_is_found(scan: Release, indexed: Release) -> None:
    new = [{"item_id": "new", "price": 5.0, "categories": ["few"]}]
    vectors = {"made": np.array([[2.0]], np.float16)}
    wider = [release.with_items({}, new, vectors) for release in (scan, indexed)]
    found = [both(wider[0], wider[1], {"user_id": f"u{user}", "k": 30}) for user in range(NUM_USERS)]
    assert any("new" in ids for ids in found) and not all("new" in ids for ids in found)
    dear = {"filters": {"price": {"min": 6}}}
    assert not any("new" in both(wider[0], wider[1], {"user_id": f"u{u}", **dear}) for u in range(NUM_USERS))


def test_many_at_once_get_what_each_gets_alone(indexed: Release) -> None:
    body = b'{"requests": [{"user_id": "u1"}, {"user_id": "nobody"}, {"user_id": "u2", "k": 3, "exclude": ["i0001"]}]}'
    requests = parse(RecommendBatch, body).requests
    together = [one.rows.tolist() for one in lists(indexed, [(request, None) for request in requests])]
    alone = [next(lists(indexed, [(request, None)])).rows.tolist() for request in requests]
    assert together == alone and [len(rows) for rows in together] == [10, 10, 3]


def test_the_best_products_are_sought_together_and_give_each_the_list_of_the_scan(
    scan: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users with and without a history, one that nobody knows, lists of several lengths; in two parts."""
    monkeypatch.setattr(searching, "TOGETHER", 90)
    requests = [
        (Recommend.model_validate({"user_id": f"u{n % 50}", "k": 1 + n % 100}), Stored(IDS[n : n + 3 * n]))
        for n in range(170)
    ]
    alone = [next(lists(scan, [one])) for one in requests]
    assert {one.someone.source for one in alone} == {"model", "fallback"}
    sought = []
    monkeypatch.setattr(searching, "best_products", lambda *a: sought.append(len(a[0])) or best_products(*a))
    for found, expected in zip(lists(scan, requests), alone, strict=True):
        assert found.someone.source == expected.someone.source and found.rows.tolist() == expected.rows.tolist()
        assert found.scores == pytest.approx(expected.scores, abs=1e-5)
    assert sought == [90, 80]


def test_a_filter_among_many_is_exact(scan: Release) -> None:
    requests = [(Recommend.model_validate({"user_id": f"u{n % 40}"}), None) for n in range(99)]
    requests[50] = (Recommend.model_validate({"user_id": "u3", "filters": {"categories": ["few"]}}), None)
    found = [one.rows.tolist() for one in lists(scan, requests)]
    assert all(row % 10 == 0 for row in found[50]) and found[43] == found[3]


def test_an_index_is_asked_unless_a_filter_leaves_little(indexed: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    index = indexed.bundle.index
    assert index is not None
    monkeypatch.setattr(Scorer, "scores", lambda *_: pytest.fail("the whole catalogue was scored"))
    monkeypatch.setattr(
        ann.Index, "candidates", lambda *a, **_: asked.append(a[2]) or index._built.search(a[1][None], 900)[1][0] + 1
    )
    for more in ({}, {"filters": {"categories": ["many"]}}, {"filters": {"categories": ["few"]}}):
        recommend(indexed, Recommend.model_validate({"user_id": "u1", **more}), None)
    assert asked == [10, 20]
