"""What the benchmark of drift plants, and that windows without a shift share no user with their reference."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from benchmarks.drift.answers import ask
from benchmarks.drift.drawn import WEEK, Halves, Log, fitted, halves, in_season
from benchmarks.drift.shifts import ANSWER_SHIFTS, SHIFTS
from recops.monitoring.drift import microseconds
from recops.monitoring.log import read_log

CUT = datetime(2024, 3, 1, tzinfo=UTC)
NUM, NUM_ITEMS = 6000, 150


@pytest.fixture(scope="module")
def log() -> Log:
    chance = np.random.default_rng(0)
    seconds = np.sort(chance.integers(0, 28 * 86_400, NUM))
    events = pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in chance.integers(0, 500, NUM)],
            "item_id": [f"i{n}" for n in chance.integers(0, NUM_ITEMS, NUM)],
            "timestamp": pl.Series([CUT - timedelta(seconds=28 * 86_400 - int(s)) for s in seconds]),
            "event": ["click"] * NUM,
            "value": np.ones(NUM, np.float32),
        }
    )
    return Log(events, None, CUT)


@pytest.fixture(scope="module")
def drawn(log: Log) -> Halves:
    scoring = fitted(log)
    return halves(log, scoring, in_season(log, scoring), seed=3)


def test_a_window_without_a_shift_follows_the_reference_and_shares_nobody_with_it(log: Log, drawn: Halves) -> None:
    assert drawn.known["timestamp"].max() < CUT <= drawn.window["timestamp"].min()
    assert drawn.window["timestamp"].max() < CUT + WEEK
    assert not set(drawn.window["user_id"]) & set(drawn.known["user_id"])
    active = log.events.filter(pl.col("timestamp") >= CUT - WEEK)["user_id"].n_unique()
    assert 0.3 * active < drawn.window["user_id"].n_unique() < 0.7 * active


def planted(drawn: Halves, name: str, strength: float) -> pl.DataFrame:
    return SHIFTS[name][0](drawn, strength, np.random.default_rng(0))


def test_events_are_shifted_as_strongly_as_said(drawn: Halves) -> None:
    window = drawn.window
    new = planted(drawn, "catalogue change", 0.4)["item_id"].str.starts_with("new").mean()
    assert new == pytest.approx(0.4, abs=0.15)  # by items, of which some have more events
    crowded = planted(drawn, "bot traffic", 0.3)
    assert len(crowded) == len(window) + round(0.3 * len(window))
    assert crowded.filter(pl.col("user_id").str.starts_with("bot"))["item_id"].n_unique() <= 20
    assert planted(drawn, "broken field", 0.3)["value"].null_count() == pytest.approx(0.3 * len(window), rel=0.2)
    most = planted(drawn, "popularity shock", 0.3)["item_id"].value_counts()["count"].max()
    assert most == pytest.approx(0.3 * len(window), rel=0.25)
    is_wanted = pl.col("item_id").is_in(drawn.in_season)
    before, after = (len(w.filter(is_wanted)) / len(w) for w in (window, planted(drawn, "season", 3.0)))
    assert after == pytest.approx(3 * before / (1 + 2 * before), rel=0.15)


def test_answers_leave_out_what_was_had_and_are_shifted_as_said(drawn: Halves) -> None:
    whole = pl.concat([drawn.known, drawn.earlier, drawn.window]).sort("timestamp", maintain_order=True)
    log, since = read_log(whole), microseconds(CUT)
    answers = ask(log, since, since + 7 * 86_400_000_000, drawn.scoring, 0)
    row_of = {user: row for row, user in enumerate(log.user_ids)}
    for answer in answers[:50]:
        position = int(answer["request_id"])
        had = {log.item_ids[item] for item in log.history(row_of[answer["user_id"]], position)}
        assert len(answer["items"]) == 10
        assert not had & {item["item_id"] for item in answer["items"]}
    lost = ANSWER_SHIFTS["model lost"][0](answers, 0.5, np.random.default_rng(0))
    gone = sum(a["source"] == "fallback" for a in lost) - sum(a["source"] == "fallback" for a in answers)
    assert gone == pytest.approx(0.5 * len(answers), rel=0.2)
    others = ANSWER_SHIFTS["lists of others"][0](answers, 1.0, np.random.default_rng(0))

    def lists(some: list) -> list[str]:
        return ["".join(item["item_id"] for item in answer["items"]) for answer in some]

    assert sorted(lists(others)) == sorted(lists(answers))
    assert lists(others) != lists(answers)
