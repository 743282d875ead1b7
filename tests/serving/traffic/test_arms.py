"""Who is answered by which release: sticky, by share, and only by what may be shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recops.errors import CallError
from recops.serving.traffic.arms import Traffic, position

USERS = [f"u{n}" for n in range(4000)]


def traffic(*arms: dict) -> Traffic:
    return Traffic.read({"arms": [{"release": "r", **arm} for arm in arms]})


def names(found: Traffic) -> list[str | None]:
    return [arm.name if (arm := found.arm_of(user)) else None for user in USERS]


def test_without_challengers_everybody_gets_what_is_served():
    assert Traffic.read(None).arms == [] and set(names(Traffic.read({"arms": []}))) == {None}


def test_shares_are_of_users_and_a_share_that_grows_keeps_whom_it_had():
    found = names(traffic({"name": "a", "mode": "ab", "share": 0.3}, {"name": "b", "mode": "canary", "share": 0.1}))
    # Four standard deviations of a binomial: 29 and 19 users.
    assert abs(found.count("a") - 1200) < 116 and abs(found.count("b") - 400) < 76
    small = names(traffic({"name": "c", "mode": "canary", "share": 0.05}))
    large = names(traffic({"name": "c", "mode": "canary", "share": 0.2}))
    assert {u for u, name in zip(USERS, small, strict=True) if name} < {
        u for u, name in zip(USERS, large, strict=True) if name
    }


def test_a_halted_canary_and_a_shadow_are_shown_to_nobody():
    arms = [{"name": "h", "mode": "canary", "share": 0.5, "halted": "why"}, {"name": "s", "mode": "shadow"}]
    arms.append({"name": "b", "mode": "ab", "share": 0.5})
    found = traffic(*arms)
    with_canary = traffic({**arms[0], "halted": None}, *arms[1:])
    assert set(names(found)) == {None, "b"}
    # Nobody but the canary's own users changes sides.
    assert [n if n == "b" else None for n in names(with_canary)] == names(found)
    assert [arm.name for arm in found.shadows] == ["s"]
    assert found.arm_of(None) is None


@given(st.text())
def test_a_user_stands_where_it_stands(user_id: str):
    assert 0 <= position(user_id) == position(user_id) < 1


@pytest.mark.parametrize(
    ("arms", "named"),
    [
        ([{"name": "a", "mode": "ab", "share": 0.7}, {"name": "b", "mode": "ab", "share": 0.4}], "add up to 1.1"),
        ([{"name": "a", "mode": "ab"}, {"name": "a", "mode": "shadow"}], "a name stands twice"),
        ([{"name": "default", "mode": "ab"}], "arms.0.name: default is the served"),
        ([{"name": "A b", "mode": "ab"}], "arms.0.name"),
        ([{"name": "a", "mode": "test"}], "arms.0.mode"),
        ([{"name": "a", "mode": "ab", "share": 1.5}], "arms.0.share"),
        ([{"name": "a", "mode": "canary", "guardrails": [{"metric": "joy"}]}], "arms.0.guardrails.0.metric"),
    ],
)
def test_what_is_wrong_is_named(arms, named):
    with pytest.raises(CallError, match=named):
        traffic(*arms)
