"""The page: whole, the same each time, loading nothing from elsewhere, and safe against names in the data."""

import re
from datetime import UTC, datetime, timedelta

import polars as pl

from recops.monitoring.drift import compare, window_profile
from recops.monitoring.features import numeric_profile
from recops.monitoring.profile import reference_profile
from recops.monitoring.report import bar_shares, drift_page, write_drift_report
from recops.params import DriftParams

START = datetime(2024, 1, 1, tzinfo=UTC)  # of the made-up shop


def judged(shop, catalogue, window: pl.DataFrame):
    log = shop(0, 14)
    reference = reference_profile(log, catalogue)
    since = START + timedelta(days=14)
    whole = pl.concat([log, window])
    current = window_profile(whole, since, since + timedelta(days=1), reference, catalogue)
    return compare(reference, current, DriftParams()), reference, current


def test_the_page_names_every_feature_and_draws_it(shop, catalogue, tmp_path):
    window = shop(0, 1, first_day=14).with_columns(event=pl.lit("purchase"))
    verdict, reference, current = judged(shop, catalogue, window)
    path = write_drift_report(tmp_path / "reports" / "drift.html", verdict, reference, current)
    page = path.read_text(encoding="utf-8")
    for result in verdict.results:
        assert f"<h3>{result.feature}" in page
        assert f"{result.statistic:.3f}" in page
    assert page.count("<svg") == len({r.feature for r in verdict.results})
    # What drifted comes first.
    assert page.index("<h3>event_kind") < page.index("<h3>value")
    assert "<h1>Drift</h1>" in page
    links = re.findall(r'(?:src|href)="([^"#][^"]*)"', page)
    assert not [link for link in links if not link.startswith("#")]
    assert page == drift_page(verdict, reference, current)


def test_names_from_the_data_are_escaped(shop):
    log = shop(0, 14)
    ids = log["item_id"].unique().to_list()
    nasty = pl.DataFrame({"item_id": ids, "categories": [["<script>x</script>"]] * len(ids)})
    verdict, reference, current = judged(shop, nasty, shop(0, 1, first_day=14))
    assert "<script" not in drift_page(verdict, reference, current)


def test_too_few_events_still_make_a_page(shop, catalogue):
    page = drift_page(*judged(shop, catalogue, shop(0, 1).clear()))
    assert "Too few events to judge" in page


def test_bars_of_few_values_are_the_values_and_of_many_are_tenths():
    few = numeric_profile([1.0, 1.0, 2.0, 5.0])
    labels, ours, theirs = bar_shares(few, numeric_profile([0.5, 2.0, 7.0, float("nan")], few))
    assert labels == ["≤ 1", "2", "5", "> 5", "null"]
    assert ours.tolist() == [0.5, 0.25, 0.25, 0, 0]
    assert theirs.tolist() == [0.25, 0.25, 0, 0.25, 0.25]
    many = numeric_profile([float(n) for n in range(1, 1001)])
    labels, ours, _ = bar_shares(many, many)
    assert labels == [f"≤ {n:.3g}" for n in range(100, 1001, 100)]
    assert ours.tolist() == [0.1] * 10
