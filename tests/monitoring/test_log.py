"""The log as arrays: order, first events, histories and popularity, all worked by hand."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from recops.monitoring.log import read_log


def frame(rows: list[tuple[str, str, int | None, str]]) -> pl.DataFrame:
    table = pl.DataFrame(
        rows, schema={"user_id": pl.String, "item_id": pl.String, "t": pl.Int64, "event": pl.String}, orient="row"
    )
    return table.with_columns(pl.col("t").cast(pl.Datetime("us", "UTC")).alias("timestamp")).drop("t")


LOG = frame(
    [
        ("b", "x", 3, "click"),
        ("a", "x", 1, "click"),
        ("a", "y", 1, "impression"),
        ("a", "z", 2, "click"),
        ("b", "x", 9, "click"),
    ]
)


def test_events_stand_in_time_order_and_ties_keep_theirs():
    log = read_log(LOG)
    assert [log.item_ids[i] for i in log.item] == ["x", "y", "z", "x", "x"]
    assert log.time.tolist() == [1, 1, 2, 3, 9]
    assert [log.position(t) for t in (1, 2, 4, 10)] == [0, 2, 4, 5]


def test_history_counts_earlier_events_of_the_user_and_no_impressions():
    log = read_log(LOG)
    assert log.history_length.tolist() == [0, 1, 1, 0, 1]
    assert [log.item_ids[i] for i in log.history(0, end=5)] == ["x", "z"]
    assert log.history(1, end=3).tolist() == []
    assert read_log(LOG, ["impression"]).history_length.tolist() == [0, 0, 1, 0, 0]


def test_first_positions():
    log = read_log(LOG)
    assert log.first_by_user.tolist() == [0, 3]
    assert log.first_by_item.tolist() == [0, 1, 2]


def test_popularity_shares_split_the_events_before_the_cut_in_tenths():
    # Of 8 events a has 4, b 3, c 1; in tenths a reaches to 5, b to 8.75, c to 10. d comes only after the cut.
    log = read_log(frame([("u", item, t, "click") for t, item in enumerate("aaaabbbcd")]))
    shares = log.popularity_shares(8)
    assert shares[0] == pytest.approx([0.2] * 5 + [0] * 5)
    assert shares[1] == pytest.approx([0] * 5 + [1 / 3.75] * 3 + [0.75 / 3.75, 0])
    assert shares[2] == pytest.approx([0] * 8 + [0.2, 0.8])
    assert shares[3].tolist() == [0] * 10
    assert not log.popularity_shares(0).any()


def test_rows_without_a_time_are_counted_and_a_log_without_any_stands_in_row_order():
    log = read_log(frame([("a", "x", None, "click"), ("a", "y", 5, "click")]))
    assert (len(log), log.num_untimed) == (1, 1)
    log = read_log(frame([("a", "y", None, "click"), ("a", "x", None, "click")]))
    assert (log.time, log.num_untimed) == (None, 0)
    assert [log.item_ids[i] for i in log.item] == ["y", "x"]


def test_an_empty_log():
    log = read_log(frame([]))
    assert len(log) == 0
    assert len(log.history_length) == 0


def test_values_and_times_of_another_unit(tmp_path):
    table = pl.DataFrame(
        {
            "user_id": ["a", "a"],
            "item_id": ["x", "y"],
            "timestamp": pl.Series([datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), None]).cast(pl.Datetime("ms", "UTC")),
            "event": ["rating", "rating"],
            "value": [4.5, None],
        }
    )
    table.write_parquet(tmp_path / "events.parquet")
    log = read_log(tmp_path / "events.parquet")
    assert log.time.tolist() == [1_000_000]
    assert np.array_equal(log.value, np.array([4.5], np.float32))
