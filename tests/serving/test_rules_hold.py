"""Whatever catalogue, filters and rules: 10,000 lists, each judged by a second reading of what it must hold.

Nothing of the service is asked what an item is: the judge reads the catalogue and the rules as they were written.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from recops.serving.requests import Recommend, Similar
from recops.serving.retrieval import Stored, recommend, similar
from recops.serving.ruleset import rules_of
from tests.serving.small_releases import small_release

CATALOGUES, CALLS = 200, 50  # 10,000 lists
CATEGORIES, SELLERS = "wxyz", ("one", "two", 3)
TODAY = datetime.now(UTC)


def chosen(chance, values, most):
    return [values[i] for i in chance.permutation(len(values))[: chance.integers(0, most + 1)]]


def a_catalogue(chance):
    def maybe(value):
        return None if chance.random() < 0.2 else value

    return [
        {
            "item_id": f"i{n}",
            "title": f"Item {n}",
            "categories": maybe(chosen(chance, CATEGORIES, 2)),
            "price": maybe(float(chance.integers(0, 10))),
            "available": maybe(bool(chance.random() < 0.7)),
            "published_at": maybe((TODAY - timedelta(days=int(chance.integers(0, 20)), hours=1)).isoformat()),
            "attributes": maybe({"seller": SELLERS[chance.integers(3)], "used": bool(chance.random() < 0.5)}),
        }
        for n in range(chance.integers(1, 25))
    ]


def a_release(chance, items):
    num = len(items)
    given = {"fallback": chance.integers(0, 5, num).astype(float).tolist(), "remove_seen": bool(chance.random() < 0.8)}
    kind = chance.integers(3)
    if kind == 0:
        return small_release(items, vectors=chance.integers(-2, 3, (num, 2)).astype(float), **given)
    if kind == 1:
        return small_release(
            items, links=chance.integers(0, 3, (num, num)) * (chance.random((num, num)) < 0.3), **given
        )
    return small_release(items, scores=chance.integers(-3, 3, num).astype(float), **given)


def some_filters(chance):
    """As JSON: fields that a call and a rules file share."""
    every = {
        "categories": [*chosen(chance, CATEGORIES, 2), "w"],
        "price": {"min": int(chance.integers(0, 4)), "max": int(chance.integers(4, 10))},
        "available": bool(chance.random() < 0.8),
        "published_after": (TODAY - timedelta(days=int(chance.integers(1, 20)))).isoformat(),
        "attributes": {"seller": [SELLERS[chance.integers(3)], SELLERS[chance.integers(3)]]},
    }
    return {name: value for name, value in every.items() if chance.random() < 0.15}


def some_rules(chance, ids):
    file = some_filters(chance)
    every = {
        "minimum_freshness": f"{chance.integers(2, 20)}d",
        "exclude": chosen(chance, ids, 2),
        "boost": [{"categories": ["x"], "factor": 3}, {"items": [ids[0]], "factor": 1.5}],
        "bury": [{"price": {"min": 6}, "factor": 0.5}, {"attributes": {"used": True}}],
        "calibrated": float(chance.random()),
        "diversity": float(chance.random()),
        "cap": [{"by": "attributes.seller", "most": int(chance.integers(1, 4))}]
        + [{"by": "categories", "most": int(chance.integers(1, 4))}] * bool(chance.random() < 0.5),
        "pin": [
            {"item_id": item_id, "rank": int(rank)}
            for item_id, rank in zip(chosen(chance, [*ids, "gone"], 3), 1 + chance.permutation(8)[:3], strict=False)
        ],
        "exploration": {"epsilon": 0.5, "candidates": int(chance.integers(2, 12))}
        if chance.random() < 0.7
        else {"thompson": 1.0, "candidates": 10, "draws": 100},
    }
    return file | {name: value for name, value in every.items() if chance.random() < 0.3}


def holds(item, filters):
    """Whether an item passes filters as they are written."""

    def of(column):
        return item.get(column)

    for name, value in filters.items():
        if name == "categories" and not set(of(name) or ()) & set(value):
            return False
        if name == "price" and (of(name) is None or not value["min"] <= of(name) <= value["max"]):
            return False
        if name == "available" and of(name) is not value:
            return False
        if name == "published_after" and (of("published_at") is None or of("published_at") <= value):
            return False
        if name == "minimum_freshness":
            days = timedelta(days=int(value[:-1]))
            if of("published_at") is None or datetime.fromisoformat(of("published_at")) < TODAY - days:
                return False
        if name == "attributes" and (of(name) or {}).get("seller") not in value["seller"]:
            return False
        if name == "exclude" and of("item_id") in value:
            return False
    return True


def groups_of(item, by):
    if by == "categories":
        return set(item["categories"] or ())
    return {(item["attributes"] or {}).get("seller")} - {None}


def judge_caps(shown, qualifying, caps, pinned, k):
    """Caps hold but for what is pinned, and a list that is short could not be longer."""
    for cap in caps:
        for group in {group for item in shown for group in groups_of(item, cap["by"])}:
            having = [item for item in shown if group in groups_of(item, cap["by"])]
            assert len(having) <= max(cap["most"], sum(item["item_id"] in pinned for item in having))
    if len(shown) < k:
        ids = {item["item_id"] for item in shown}
        for item in qualifying:
            full = [
                cap
                for cap in caps
                for group in groups_of(item, cap["by"])
                if sum(group in groups_of(other, cap["by"]) for other in shown) >= cap["most"]
            ]
            assert item["item_id"] in ids or full, "one more would have done"


def judge_pins(ids, qualifying, pins, k):
    allowed = {item["item_id"] for item in qualifying}
    placed = sorted((pin["rank"], pin["item_id"]) for pin in pins if pin["rank"] <= k and pin["item_id"] in allowed)
    for place, (rank, item_id) in enumerate(placed):
        later = len(placed) - place - 1
        assert ids.index(item_id) + 1 == min(rank, len(ids) - later)


@pytest.mark.parametrize("part", range(4))
def test_filters_pins_and_caps_hold_and_lists_are_full(part):
    sources = dict.fromkeys(("model", "cold-start", "fallback", "links", "vectors", "categories"), 0)
    for seed in range(part * CATALOGUES // 4, (part + 1) * CATALOGUES // 4):
        chance = np.random.default_rng(seed)
        items = a_catalogue(chance)
        release, ids = a_release(chance, items), [item["item_id"] for item in items]
        for call in range(CALLS):
            file, filters = some_rules(chance, ids), some_filters(chance)
            rules = rules_of(file, Path("rules.yaml"))
            exclude = chosen(chance, ids, 2)
            both = [filters, {"exclude": exclude}, file]
            may_be_shown = [item for item in items if all(holds(item, one) for one in both)]
            k = int(chance.integers(1, 12))
            if call % 5 == 0:
                asked = {"item_id": ids[0], "k": k, "exclude": exclude, "filters": filters}
                sources[judge_similar(release, Similar.model_validate(asked), rules, may_be_shown)] += 1
                continue
            told = [ids[i] for i in chance.integers(0, len(ids), chance.integers(0, 4))]
            stored, refused = chosen(chance, ids, 2), chosen(chance, ids, 1)
            known = None if chance.random() < 0.5 else Stored(stored, None, refused)
            body = {"user_id": "u", "history": told, "k": k, "exclude": exclude, "filters": filters}
            if chance.random() < 0.2:
                body["diversity"] = float(chance.random())
            request = Recommend.model_validate(body)
            found = recommend(release, request, known, rules, f"{seed}-{call}")
            seen = {*told, *(stored if known else ())} if release.remove_seen else set()
            away = seen | set(refused if known else ())
            qualifying = [item for item in may_be_shown if item["item_id"] not in away]
            judge_list(found, items, qualifying, file, k)
            assert recommend(release, request, known, rules, f"{seed}-{call}") == found
            sources[found["source"]] += 1
    assert sum(sources.values()) == CATALOGUES * CALLS // 4
    assert all(sources.values()), sources


def judge_list(found, items, qualifying, file, k):
    ids = [one["item_id"] for one in found["items"]]
    by_id = {item["item_id"]: item for item in items}
    shown = [by_id[item_id] for item_id in ids]
    assert len(set(ids)) == len(ids)
    assert [one["rank"] for one in found["items"]] == list(range(1, len(ids) + 1))
    assert all(item in qualifying for item in shown), "an item that a filter keeps away"
    pins = file.get("pin", [])
    caps = file.get("cap", [])
    judge_pins(ids, qualifying, pins, k)
    judge_caps(shown, qualifying, caps, {pin["item_id"] for pin in pins}, k)
    if not caps:
        assert len(ids) == min(k, len(qualifying))
    if (propensities := found["propensities"]) is not None:
        assert len(propensities) == len(ids)
        assert all(0 < p <= 1 for p in propensities)
    assert (propensities is not None) == ("exploration" in file)


def judge_similar(release, request, rules, may_be_shown):
    found = similar(release, request, rules)
    ids = [one["item_id"] for one in found["items"]]
    qualifying = {item["item_id"] for item in may_be_shown} - {request.item_id}
    assert set(ids) <= qualifying
    assert len(set(ids)) == len(ids) <= request.k
    if found["source"] == "vectors":
        assert len(ids) == min(request.k, len(qualifying))
    if found["source"] == "links" and len(ids) < request.k:
        links = release.bundle.scorer.links
        linked = links.indices[links.indptr[1] : links.indptr[2]]  # of the first item, whose neighbours are asked for
        assert {release.ids[row - 1] for row in linked} & qualifying == set(ids)
    return found["source"]
