"""Splitters on logs small enough to divide by hand, and the laws that every split must keep."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recops import plugins
from recops.data.splitters.cold_items import ColdItems
from recops.data.splitters.global_time import GlobalTime
from recops.data.splitters.leave_last_out import LeaveLastOut
from recops.data.splitters.random import Random
from recops.errors import CallError
from recops.params import SplitParams

START = datetime(2024, 1, 1, tzinfo=UTC)
SIGNALS = {"+": "positive", "-": "negative", "o": "exposure"}
Row = tuple[str, str, str]


def log(*rows: str | Row, hours: list[int] | None = None) -> pl.DataFrame:
    """Rows such as `u a +`, one an hour."""
    fields = [row.split() if isinstance(row, str) else row for row in rows]
    times = [START + timedelta(hours=hour) for hour in (hours or range(len(rows)))]
    return pl.DataFrame(
        {
            "user_id": [f[0] for f in fields],
            "item_id": [f[1] for f in fields],
            "timestamp": times,
            "signal": [SIGNALS[f[2]] for f in fields],
        },
        schema={
            "user_id": pl.String,
            "item_id": pl.String,
            "timestamp": pl.Datetime("us", "UTC"),
            "signal": pl.String,
        },
    )


def parts(splitter, events: pl.DataFrame, *, remove_seen: bool = True, **params) -> list[str]:
    return splitter.split(events, remove_seen=remove_seen, params=SplitParams(**params)).to_list()


def test_leave_last_out_judges_the_last_two_of_each_user():
    events = log("u a +", "v a +", "u b +", "v b +", "u c +", "u d +")
    assert parts(LeaveLastOut(), events) == ["train", "train", "train", "train", "valid", "test"]


def test_leave_last_out_trains_on_users_with_too_few_events():
    events = log("u a +", "u b +", "u c -", "v a +", "v b +", "v c +")
    assert parts(LeaveLastOut(), events) == ["train", "train", "train", "train", "valid", "test"]
    assert parts(LeaveLastOut(), events, min_user_events=4) == ["train"] * 6


def test_leave_last_out_does_not_judge_items_already_seen():
    events = log("u a +", "u b +", "u c +", "u a +", "u d +", "u d +")
    assert parts(LeaveLastOut(), events) == ["train", "train", "valid", "unused", "test", "unused"]
    assert parts(LeaveLastOut(), events, remove_seen=False) == ["train"] * 4 + ["valid", "test"]


def test_leave_last_out_never_judges_the_first_event_nor_a_user_of_one_item():
    assert parts(LeaveLastOut(), log("u a +", "u b +", "u a +")) == ["train", "test", "unused"]
    assert parts(LeaveLastOut(), log("u a +", "u a +", "u a +")) == ["train"] * 3


def test_leave_last_out_hides_other_signals_after_the_validation():
    events = log("u a +", "u x -", "u b +", "u c o", "u d +", "u e -")
    assert parts(LeaveLastOut(), events) == ["train", "train", "valid", "unused", "test", "unused"]


def test_an_exposure_before_does_not_make_an_item_seen():
    assert parts(LeaveLastOut(), log("u a +", "u b +", "u c o", "u c +")) == ["train", "valid", "unused", "test"]


def test_leave_last_out_needs_no_timestamps():
    events = log("u a +", "u b +", "u c +").with_columns(timestamp=pl.lit(None, pl.Datetime("us", "UTC")))
    assert parts(LeaveLastOut(), events) == ["train", "valid", "test"]


def test_global_time_cuts_at_moments_and_puts_the_moment_itself_after_the_cut():
    events = log(*[f"u{n} i{n} +" for n in range(10)], hours=[0, 1, 2, 3, 4, 5, 6, 6, 8, 9])
    found = parts(GlobalTime(), events, valid_fraction=0.2, test_fraction=0.2)
    # Validation would begin at the eighth event, whose moment the seventh shares.
    assert found == ["train"] * 6 + ["valid"] * 2 + ["test"] * 2


def test_global_time_drops_repeats_and_other_signals_after_the_cut():
    events = log("u a +", "u b -", "v a +", "w c +", "u a +", "v b +", "w c o", "w d +", hours=[0, 1, 2, 3, 4, 5, 6, 7])
    found = parts(GlobalTime(), events, valid_fraction=0.34, test_fraction=0.17)
    assert found == ["train", "train", "train", "train", "unused", "valid", "unused", "test"]
    kept = parts(GlobalTime(), events, valid_fraction=0.34, test_fraction=0.17, remove_seen=False)
    assert kept == ["train", "train", "train", "train", "valid", "valid", "unused", "test"]


def test_global_time_without_timestamps_says_what_to_use():
    events = log("u a +", "u b +").with_columns(timestamp=pl.lit(None, pl.Datetime("us", "UTC")))
    with pytest.raises(CallError, match=r"timestamp is empty in 2 of 2 rows.*leave_last_out"):
        parts(GlobalTime(), events)


def test_global_time_needs_enough_moments():
    with pytest.raises(CallError, match="10 positives at 1 different times"):
        parts(GlobalTime(), log(*["u a +"] * 10, hours=[1] * 10), valid_fraction=0.2, test_fraction=0.2)


def test_cold_items_judges_what_nobody_had_met_before_the_cut():
    events = log(
        *("u a +", "v b +", "v c o", "w a +"),  # trained on; c was met, if not chosen
        *("u c +", "v d o", "w b +", "v d +", "v d +"),  # from the first cut on
        *("u d +", "u e +", "v a +", "w e -", "w e +"),  # from the second
    )
    found = parts(ColdItems(), events, valid_fraction=0.364, test_fraction=0.364)
    assert found[:4] == ["train"] * 4
    assert found[4:9] == ["context", "unused", "context", "valid", "context"]
    # d is not new any more, and no model knows it: of neither part.
    assert found[9:] == ["context", "test", "context", "unused", "test"]
    kept = parts(ColdItems(), events, valid_fraction=0.364, test_fraction=0.364, remove_seen=False)
    assert kept[7:9] == ["valid", "valid"]


def test_cold_items_trains_on_what_global_time_trains_on():
    generator = np.random.default_rng(4)
    rows = zip(generator.integers(0, 9, 300), generator.integers(0, 40, 300), strict=True)
    events = log(*[f"u{user} i{item + n // 10} +" for n, (user, item) in enumerate(rows)])
    cold, all_items = (np.array(parts(splitter, events)) for splitter in (ColdItems(), GlobalTime()))
    assert ((cold == "train") == (all_items == "train")).all() and (cold == "test").any()
    assert (all_items[cold == "test"] == "test").all() and (all_items[cold == "valid"] == "valid").all()


def test_random_depends_on_ids_and_seed_alone():
    events = log(*[f"u{n % 7} i{n % 31} +" for n in range(400)])
    keyed = events.with_columns(part=pl.Series(parts(Random(), events, remove_seen=False)))
    fewer = events.sample(fraction=0.9, shuffle=True, seed=3)
    again = fewer.with_columns(part=pl.Series(parts(Random(), fewer, remove_seen=False)))
    pair = ["user_id", "item_id", "part"]
    assert set(again.select(pair).iter_rows()) <= set(keyed.select(pair).iter_rows())
    assert parts(Random(), events) != parts(Random(), events, seed=7)


def test_random_holds_its_shares_and_keeps_a_pair_together():
    events = log(*[f"u{n % 50} i{n // 50} +" for n in range(20_000)])
    found = pl.Series(parts(Random(), events, valid_fraction=0.1, test_fraction=0.2))
    shares = {
        row["part"]: row["count"] / len(events) for row in found.rename("part").value_counts().iter_rows(named=True)
    }
    # Three standard deviations of a share drawn 20,000 times are below .0086.
    assert shares == {
        "train": pytest.approx(0.7, abs=0.01),
        "valid": pytest.approx(0.1, abs=0.01),
        "test": pytest.approx(0.2, abs=0.01),
    }
    repeated = pl.concat([events, events])
    assert parts(Random(), repeated, remove_seen=False, valid_fraction=0.1, test_fraction=0.2) == found.to_list() * 2
    judged = parts(Random(), repeated, valid_fraction=0.1, test_fraction=0.2)
    assert judged[20_000:] == ["train" if part == "train" else "unused" for part in found]


def test_random_trains_on_users_with_too_few_events():
    events = log(*[f"u i{n} +" for n in range(100)], *[f"v{n} i +" for n in range(100)])
    assert set(parts(Random(), events)[:100]) == {"train", "valid", "test"}
    assert set(parts(Random(), events)[100:]) == {"train"}


rows = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("abcdef"), st.sampled_from("+++-o")), min_size=1, max_size=40
)


@pytest.mark.parametrize("name", plugins.names("data.splitters"))
@settings(max_examples=30, deadline=None)
@given(rows=rows, remove_seen=st.booleans())
def test_every_splitter_keeps_the_laws(name: str, rows: list[Row], remove_seen: bool):
    events = log(*rows)
    try:
        found = parts(plugins.load("data.splitters", name)(), events, remove_seen=remove_seen, valid_fraction=0.2)
    except CallError:
        return  # too few events to cut
    assert len(found) == len(rows)
    seen: set[tuple[str, str]] = set()
    for (user, item, signal), part in zip(rows, found, strict=True):
        if part == "unused" and signal == "+":
            assert (user, item) in seen
        if part in ("valid", "test"):
            assert signal == "+"
            assert not remove_seen or (user, item) not in seen
        if signal == "+":
            seen.add((user, item))


@settings(max_examples=30, deadline=None)
@given(rows=rows)
def test_nothing_a_model_is_fitted_on_comes_after_the_users_validation(rows: list[Row]):
    found = parts(LeaveLastOut(), log(*rows))
    for user in "uvw":
        own = [part for (u, _, _), part in zip(rows, found, strict=True) if u == user]
        judged = [n for n, part in enumerate(own) if part in ("valid", "test")]
        assert not judged or "train" not in own[judged[0] :]
        assert [own[n] for n in judged] in ([], ["test"], ["valid", "test"])


@settings(max_examples=30, deadline=None)
@given(rows=rows, later=rows)
def test_later_events_of_others_change_no_part_of_leave_last_out(rows: list[Row], later: list[Row]):
    others = [(user.upper(), item, signal) for user, item, signal in later]
    assert parts(LeaveLastOut(), log(*rows, *others))[: len(rows)] == parts(LeaveLastOut(), log(*rows))


@settings(max_examples=30, deadline=None)
@given(rows=rows, later=rows)
def test_later_events_take_nothing_from_the_train_part(rows: list[Row], later: list[Row]):
    """What trained goes on to train: later events move cuts forward, never back."""
    for splitter in (LeaveLastOut(), GlobalTime()):
        try:
            before = parts(splitter, log(*rows), valid_fraction=0.2, test_fraction=0.2)
            after = parts(splitter, log(*rows, *later), valid_fraction=0.2, test_fraction=0.2)
        except CallError:
            continue
        if isinstance(splitter, LeaveLastOut):
            # A user who had too few events, or one alone that could be judged, may become one who is judged.
            users = {user for (user, _, _), part in zip(rows, before, strict=True) if part == "valid"}
        else:
            users = set("uvw")
        for (user, _, _), was, now in zip(rows, before, after[: len(rows)], strict=True):
            assert was != "train" or user not in users or now == "train"


@pytest.mark.parametrize("splitter", [LeaveLastOut(), Random()])
def test_an_empty_log_gives_an_empty_answer(splitter):
    assert parts(splitter, log()) == []


def test_undirected_pairs_never_lie_in_two_parts():
    """Friends of friends: whoever is held out for one is held out for the other, and few friends keep both in train."""
    rng = np.random.default_rng(0)
    pairs = {tuple(sorted(pair)) for pair in rng.integers(0, 30, (200, 2)).tolist() if pair[0] != pair[1]}
    rows = [(str(a), str(b)) for pair in sorted(pairs | {(30, 1), (30, 2)}) for a, b in (pair, pair[::-1])]
    events = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row").with_columns(
        timestamp=pl.lit(None, pl.Datetime("us", "UTC")), signal=pl.lit("positive")
    )
    found = {}
    for pairs_are in ("directed", "undirected"):
        params = SplitParams(name="random", pairs=pairs_are, valid_fraction=0.2, test_fraction=0.2, min_user_events=3)
        part = plugins.load("data.splitters", "random")().split(events, remove_seen=True, params=params)
        found[pairs_are] = dict(zip(rows, part.to_list(), strict=True))
    assert any(part != found["directed"][b, a] for (a, b), part in found["directed"].items())
    parts = found["undirected"]
    assert all(part == parts[b, a] for (a, b), part in parts.items())
    assert {part for (a, _), part in parts.items() if a == "30"} == {"train"}
    assert set(parts.values()) == {"train", "valid", "test"}
