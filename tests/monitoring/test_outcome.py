"""Prequential evaluation on logs small enough to know, and the fall of what followed."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from recops import plugins
from recops.monitoring.log import EventLog, read_log
from recops.monitoring.outcome import mean_by_user, outcome_pairs, outcomes, prequential
from recops.params import DriftParams

HOUR = 3_600_000_000
DAY = 24 * HOUR
NOW = 100 * DAY


def log_of(rows: list[tuple[str, str, int]], kind: str = "click") -> EventLog:
    frame = pl.DataFrame(
        {
            "user_id": [row[0] for row in rows],
            "item_id": [row[1] for row in rows],
            "timestamp": pl.Series([row[2] for row in rows], dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
            "event": [kind] * len(rows),
        }
    )
    return read_log(frame)


def answer(user: str | None, at: int, *items: str) -> dict[str, Any]:
    listed = [{"item_id": item, "rank": rank, "score": 1.0} for rank, item in enumerate(items, 1)]
    return {"request_id": f"{user} {at}", "time": at, "user_id": user, "items": listed}


def test_an_answer_is_judged_by_what_its_user_chose_within_the_window():
    early = [("ann", "a", 5 * HOUR), ("ann", "b", 10 * DAY)]
    after = [("ann", "b", 10 * DAY + HOUR), ("ann", "c", 10 * DAY + 2 * HOUR), ("bob", "a", 10 * DAY + HOUR)]
    log = log_of([*early, *after, ("ann", "d", 13 * DAY)])
    asked = [answer("ann", 10 * DAY, "x", "b"), answer("cat", 10 * DAY, "a"), answer("bob", 10 * DAY, "x")]
    first, none, other = outcomes([*asked, answer(None, 10 * DAY, "a")], log, DAY, NOW, 9 * DAY)
    # The event at the very moment of the answer was before it; b and c follow, and b stands second.
    assert (first.hit, first.ndcg) == (1, pytest.approx(np.log2(3) ** -1 / (1 + np.log2(3) ** -1)))
    assert (first.delay_s, first.num_earlier, first.is_over) == (3600, 2, True)
    assert first.by_class == {"new": (1.0, pytest.approx(first.ndcg))}
    assert not none.is_judged
    assert (other.hit, other.ndcg, other.by_class) == (0, 0, {"head": (0.0, 0.0)})


def test_impressions_follow_nothing():
    log = log_of([("ann", "a", DAY + HOUR)], kind="impression")
    (found,) = outcomes([answer("ann", DAY, "a")], log, DAY, NOW, None)
    assert not found.is_judged


def test_labels_count_as_soon_as_they_arrive_and_the_delay_is_told():
    rows = [("ann", "a", 98 * DAY + HOUR), ("bob", "b", 99 * DAY + 12 * HOUR), ("cat", "b", 20 * DAY)]
    asked = [answer("ann", 98 * DAY, "a"), answer("bob", 99 * DAY, "x"), answer("cat", 99 * DAY, "x")]
    asked += [answer("cat", 50 * DAY, "x")]
    # The log reaches a minute beyond noon of the last day, so that two windows are not over.
    found = outcomes(asked, log_of(rows), DAY, 99 * DAY + 12 * HOUR + 1, None)
    report = prequential(found)
    assert (report["answers"], report["pending"], report["no_outcome"]) == (2, 2, 1)
    assert report["hit_rate"]["value"] == 0.5
    assert report["delay_s"] == {"median": 6.5 * 3600, "p90": pytest.approx(10.9 * 3600)}
    assert [(day["day"], day["hit_rate"]["value"]) for day in report["days"]] == [("1970-04-09", 1), ("1970-04-10", 0)]
    assert report["segments"]["users:cold"]["answers"] == 2
    assert report["segments"]["users:heavy"]["hit_rate"] is None
    # Drift is judged only where all labels are in.
    pairs = outcome_pairs(found, found, 1)
    assert pairs["hit_rate"][1] == {"kind": "mean", "mean": 1.0, "error": 0.0, "n": 1}
    assert outcome_pairs(found, found, 2)["ndcg"].endswith("1 in the window, 2 are asked for")


def test_nothing_answered_is_a_report_too():
    report = prequential([])
    assert (report["answers"], report["hit_rate"], report["delay_s"], report["days"]) == (0, None, None, [])


def test_the_error_takes_the_answers_of_a_user_together():
    chance = np.random.default_rng(0)
    rate = chance.beta(1, 3, 400)
    users = np.repeat(np.arange(400), 20)
    values = (chance.random(8000) < rate[users]).astype(float)
    found = mean_by_user(values.tolist(), [f"u{user}" for user in users])
    of_means = values.reshape(400, 20).mean(1)
    assert found["error"] == pytest.approx(of_means.std(ddof=1) / np.sqrt(400), rel=0.01)
    assert found["error"] > 1.5 * values.std() / np.sqrt(8000)


def test_a_halved_hit_rate_is_a_fall_and_an_even_one_is_not():
    chance = np.random.default_rng(1)

    def side(rate: float, num: int) -> dict[str, Any]:
        return mean_by_user((chance.random(num) < rate).astype(float).tolist(), [f"u{n}" for n in range(num)])

    test = plugins.load("monitoring.drift_tests", "fall")()
    assert test.compare("hit_rate", side(0.2, 8000), side(0.1, 1500), DriftParams()).drifted
    quiet = [test.compare("hit_rate", side(0.2, 8000), side(0.2, 1500), DriftParams()) for _ in range(20)]
    assert sum(one.drifted for one in quiet) == 0
