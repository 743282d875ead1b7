"""What each rule that moves items does to a list, worked by hand."""

from pathlib import Path

import numpy as np
import pytest

from recops.serving.listing import listed, moved
from recops.serving.occasion import Occasion
from recops.serving.requests import Recommend
from recops.serving.ruleset import rules_of
from tests.serving.small_releases import small_release

ITEMS = [
    {"item_id": "a", "categories": ["x"], "attributes": {"seller": "one"}, "price": 1.0},
    {"item_id": "b", "categories": ["x"], "attributes": {"seller": "one"}, "price": 2.0},
    {"item_id": "c", "categories": ["x", "y"], "attributes": {"seller": "two"}},
    {"item_id": "d", "categories": ["y"], "attributes": {"seller": ["one", "two"]}},
    {"item_id": "e"},
]
SCORES = np.array([-np.inf, 4, 3, 2, 1, 0], np.float32)
PLAIN = "abcde"


def movers(**values):
    return rules_of(values, Path("rules.yaml")).moving(Recommend.model_construct(user_id="u"))


def ids(found):
    return "".join(ITEMS[row - 1]["item_id"] for row in found.rows)


def ordered(k=5, scores=SCORES, history=(), release=None, **values):
    release = small_release(ITEMS) if release is None else release
    occasion = Occasion(release, np.array(history, np.int64))
    return ids(listed(scores, k, movers(**values), occasion, None))


def test_without_movers_the_list_is_by_score():
    assert ordered() == PLAIN
    assert ordered(k=2) == "ab"
    assert ordered(k=9) == PLAIN
    assert ordered(scores=np.full(6, -np.inf, np.float32), boost=[{"items": ["a"], "factor": 2}]) == ""


@pytest.mark.parametrize(
    ("boost", "expected"),
    [
        ([{"items": ["c"], "factor": 1.4}], "abcde"),  # 2.8
        ([{"items": ["c"], "factor": 1.6}], "acbde"),  # 3.2
        ([{"items": ["c"], "factor": 2.5}], "cabde"),  # 5
        ([{"categories": ["y"], "factor": 3}], "cabde"),  # c 6, d 3: b's, whose row is lower
        ([{"items": ["c"], "factor": 1.6}, {"categories": ["y"], "factor": 1.5}], "cabde"),  # 2 x 1.6 x 1.5 = 4.8
        ([{"items": ["e", "gone"], "factor": 1000}], "abcde"),  # the lowest has no lead to multiply
        ([{"attributes": {"seller": "two"}, "price": {"max": 9}, "factor": 1000}], "abcde"),  # no item is both
    ],
)
def test_boost_multiplies_the_lead_over_the_lowest(boost, expected):
    assert ordered(boost=boost) == expected
    assert ordered(scores=SCORES - 10, boost=boost) == expected  # whatever the scale


@pytest.mark.parametrize(
    ("bury", "expected"),
    [
        ([{"items": ["a"], "factor": 0.7}], "bacde"),  # 2.8
        ([{"categories": ["x"], "factor": 0.2}], "dabce"),  # .8, .6, .4
        ([{"categories": ["x"]}], "deabc"),
        ([{"items": ["a"]}, {"items": ["b"]}], "cdeab"),
        ([{"items": list("abcde")}], "abcde"),
    ],
)
def test_bury(bury, expected):
    assert ordered(bury=bury) == expected
    assert ordered(scores=SCORES - 10, bury=bury) == expected


def test_what_is_hidden_stays_hidden_whatever_it_is_given():
    scores = SCORES.copy()
    scores[1] = -np.inf
    found = ordered(scores=scores, boost=[{"items": ["a"], "factor": 9}], bury=[{"items": ["b"]}])
    assert found == "cdeb"
    assert ordered(scores=scores, pin=[{"item_id": "a", "rank": 1}]) == "bcde"


@pytest.mark.parametrize(
    ("cap", "k", "expected"),
    [
        ([{"by": "categories", "most": 1}], 5, "ade"),  # b and c have x
        ([{"by": "categories", "most": 2}], 5, "abde"),
        ([{"by": "attributes.seller", "most": 1}], 3, "ace"),  # d is of both
        ([{"by": "attributes.seller", "most": 1}, {"by": "categories", "most": 2}], 5, "ace"),
        ([{"by": "attributes.gone", "most": 1}], 5, PLAIN),
    ],
)
def test_the_next_best_take_the_places_of_what_a_cap_keeps_out(cap, k, expected):
    assert ordered(k=k, cap=cap) == expected
    assert ordered(k=k, cap=cap, diversity=1e-9) == expected


def test_a_cap_looks_beyond_the_candidates():
    """300 of one seller are better than the two of another."""
    items = [{"item_id": f"i{n:03}", "attributes": {"seller": "two" if n >= 300 else "one"}} for n in range(302)]
    scores = np.array([-np.inf, *range(302, 0, -1)], np.float32)
    occasion = Occasion(small_release(items))
    for more in ({}, {"diversity": 0.5}):
        rules = movers(cap=[{"by": "attributes.seller", "most": 3}], **more)
        assert listed(scores, 10, rules, occasion, None).rows.tolist() == [1, 2, 3, 301, 302]


VECTORS = np.array([[1, 0], [1, 0], [0, 1], [0, 0], [1, 1]])


@pytest.mark.parametrize(
    ("diversity", "expected"),
    [
        # Values of b, c, d, e: .75, .5, .25, 0. Beside a: likeness 1, 0, 0, .71.
        (0.0, "abcde"),
        (0.2, "abcde"),  # b .8 x .75 - .2 = .4, c .8 x .5 = .4: the higher score first
        (0.21, "acbde"),  # b .3825, c .395
        (0.5, "acdbe"),  # c .25; d .125; b .375 - .5 = -.125, e -.35
        (1.0, "acdeb"),  # c 0, d 0, e -.71, b -1
    ],
)
def test_diversity_by_vectors(diversity, expected):
    release = small_release(ITEMS, vectors=VECTORS)
    assert ordered(release=release, diversity=diversity) == expected


def test_diversity_by_categories_where_there_are_no_vectors():
    """Jaccard with a {x}: b 1, c 1/2, d and e 0; values .75, .5, .25, 0. At .5: b -.125, c 0, d .125, then e 0: c has
    1/2 with d as well, 0 as before, and the higher score."""
    assert ordered(diversity=0.5) == "adceb"


def test_diversity_counts_what_is_pinned():
    """c is pinned last. Likeness to it: a, b 0, d 0, e .71; so a first, whose twin b is worth .375 - .5; d .125."""
    release = small_release(ITEMS, vectors=VECTORS)
    assert ordered(release=release, diversity=0.5, pin=[{"item_id": "c", "rank": 5}]) == "adbec"


def test_calibrated_gives_categories_their_shares():
    """Of the history half is x, half y, as c alone has it: it is worth .5 x .5, a .5 - .98, since KL of (1, 0) is 1.96.
    Without c a is first for its score, and then d beside it costs nothing: .5 x .25, where b is .5 x .75 - .98."""
    assert ordered(history=(2, 4), calibrated=0.5, k=2) == "ca"
    scores = SCORES.copy()
    scores[3] = -np.inf
    assert ordered(scores=scores, history=(2, 4), calibrated=0.5, k=2) == "ad"
    assert ordered(history=(2, 2), calibrated=0.5, k=2) == "ab"
    assert ordered(history=(), calibrated=1.0) == PLAIN
    assert ordered(history=(5,), calibrated=1.0) == PLAIN  # without categories


def test_calibrated_alone_follows_the_history():
    """y alone: d is all y, c half, then every other adds as little."""
    assert ordered(history=(4,), calibrated=1.0)[:2] == "dc"


@pytest.mark.parametrize(
    ("pin", "k", "expected"),
    [
        ([{"item_id": "e", "rank": 1}], 5, "eabcd"),
        ([{"item_id": "e", "rank": 2}, {"item_id": "a", "rank": 4}], 5, "becad"),
        ([{"item_id": "e", "rank": 3}], 2, "ab"),
        ([{"item_id": "e", "rank": 2}], 2, "ae"),
        ([{"item_id": "a", "rank": 900}], 1000, "bcdea"),
        ([{"item_id": "gone", "rank": 1}], 5, PLAIN),
        ([{"item_id": i, "rank": r} for r, i in enumerate("edcba", start=1)], 5, "edcba"),
        ([{"item_id": i, "rank": r} for r, i in enumerate("edcba", start=1)], 2, "ed"),
    ],
)
def test_pins_stand_where_they_are_put(pin, k, expected):
    assert ordered(k=k, pin=pin) == expected


def test_a_pin_counts_for_a_cap_and_is_not_taken_out():
    cap = [{"by": "attributes.seller", "most": 1}]
    assert ordered(cap=cap, pin=[{"item_id": "b", "rank": 2}]) == "cbe"
    assert ordered(cap=cap, pin=[{"item_id": "b", "rank": 2}, {"item_id": "a", "rank": 3}]) == "cbae"


def test_the_order_of_the_file_decides():
    """d 1 x 5 = 5 and then .2 x 5 = 1; or .2 x 1 = .2 and then 1: the same but for the lowest, which bury moves."""
    rules = {"boost": [{"items": ["d"], "factor": 5}], "bury": [{"items": ["d"]}]}
    assert ordered(**rules) == "abced"
    assert ordered(**rules, order=["bury", "boost"]) == "abced"
    first_buried = movers(**rules, order=["bury", "boost"])
    assert [name for name, _ in first_buried] == ["bury", "boost"]
    occasion = Occasion(small_release(ITEMS))
    keys = [listed(SCORES, 5, one, occasion, None).keys[4] for one in (movers(**rules), first_buried)]
    # Boosted to 5 and put below the lowest, 5 - 10 = -5; put to 1 - 8 = -7, from where there is no lead to boost.
    assert keys == [-5.0, -7.0]


def test_ranks_of_what_the_list_lacks():
    found = listed(SCORES, 2, movers(bury=[{"items": ["a"]}]), Occasion(small_release(ITEMS)), None)
    assert ids(found) == "bc"
    assert [found.rank(row) for row in (2, 3, 4, 5, 1)] == [1, 2, 3, 4, 5]


def test_which_rule_moved_an_item():
    rules = movers(boost=[{"items": ["d"], "factor": 3.5}], pin=[{"item_id": "e", "rank": 1}])
    occasion = Occasion(small_release(ITEMS))
    assert ids(listed(SCORES, 3, rules, occasion, None)) == "ead"
    assert moved(SCORES, 3, rules, occasion, None, [5, 1, 4, 3]) == [
        [{"rule": "pin", "from": 5, "to": 1}],
        [{"rule": "pin", "from": 1, "to": 2}],
        [{"rule": "boost", "from": 4, "to": 2}, {"rule": "pin", "from": 2, "to": 3}],
        [{"rule": "boost", "from": 3, "to": 4}, {"rule": "pin", "from": 4, "to": 5}],
    ]
