"""Every adapter on the real sets: counts against what their descriptions say, and Online Retail row by row."""

from pathlib import Path

import polars as pl
import pytest

from recops.data.ingest import ingest
from recops.params import IngestParams, SourceParams

pytestmark = pytest.mark.real_data

# name, path, order, options; users, items in events, events by kind; items kept; rejected by reason
SETS = [
    ("movielens", "movielens-100k", "time", {}, 943, 1682, {"rating": 100_000}, 1682, {}),
    ("movielens", "movielens-1m", "time", {}, 6040, 3614, {"rating": 705_003}, 3883, {"missing timestamp": 295_206}),
    ("movielens", "movielens-1m", "ordered", {}, 6040, 3706, {"rating": 1_000_209}, 3883, {}),
    (
        *("movielens", "movielens-1m", "time", {"min_rating": 4}, 6038, 3533, {"rating": 575_281}, 3883),
        {"below min_rating": 424_928},
    ),
    ("movielens", "movielens-latest-small", "time", {}, 610, 9724, {"rating": 100_836}, 9742, {}),
    ("amazon_reviews", "amazon-gift-cards-2018", "time", {}, 458, 148, {"rating": 2969}, 1547, {"duplicate": 3}),
    # 14,148 clicks on what was shown and 13,953 articles of histories.
    ("mind", "nemig-en-news", "ordered", {}, 3000, 4170, {"impression": 85_218, "click": 14_148 + 13_953}, 10_814, {}),
    (
        *("kuairand", "kuairand-pure-part", "time", {}, 25_156, 6361),
        {"impression": 228_329 - 5_885, "click": 100_008, "like": 3_872, "share": 194, "dislike": 187, "play": 70_485},
        *(7583, {"duplicate": 7_302}),
    ),
    ("lastfm_hetrec", "lastfm-hetrec2011", "unordered", {}, 1892, 17_632, {"play": 92_834}, 17_632, {}),
    ("sequences", "sasrec-bert4rec/ml-1m.txt.gz", "ordered", {}, 6040, 3416, {"click": 999_611}, 0, {}),
    ("sequences", "s3rec-amazon", "ordered", {"file": "Beauty.txt.gz"}, 22_363, 12_101, {"click": 198_502}, 0, {}),
    ("globo", "globo-news", "time", {}, 322_897, 46_033, {"click": 2_988_181}, 0, {}),
]


@pytest.mark.parametrize(("name", "path", "order", "options", "users", "items", "kinds", "catalogue", "rejected"), SETS)
def test_counts(
    data_dir: Path,
    tmp_path: Path,
    name: str,
    path: str,
    order: str,
    options: dict,
    users: int,
    items: int,
    kinds: dict,
    catalogue: int,
    rejected: dict,
) -> None:
    params = SourceParams(name=name, path=path, order=order, options=options)
    counts = ingest(params, IngestParams(), data_dir, tmp_path)
    assert counts["rejected_by_reason"] == rejected
    assert counts["rows_read"] == sum(kinds.values()) + sum(rejected.values())
    assert counts["items"] == counts["tables"]["items"]["rows_read"] == catalogue
    assert counts["unreadable_fields"] == {}
    events = pl.read_parquet(tmp_path / "events.parquet")
    assert (events["user_id"].n_unique(), events["item_id"].n_unique()) == (users, items)
    assert dict(events["event"].value_counts().iter_rows()) == kinds
    assert events["event_id"].n_unique() == len(events)
    if order == "time":
        assert events["timestamp"].is_sorted()
    assert len(pl.read_parquet(tmp_path / "rejected.parquet")) == counts["rejected"]


def test_online_retail_adds_up(data_dir: Path, tmp_path: Path) -> None:
    """541,909 lines: every one is a purchase or stands in rejected with its line, for the reasons counted here anew."""
    counts = ingest(SourceParams(name="online_retail", path="online-retail"), IngestParams(), data_dir, tmp_path)
    raw = pl.read_csv(data_dir / "online-retail" / "online-retail.csv.gz", infer_schema=False).with_columns(
        pl.all().fill_null("")
    )
    raw = raw.with_columns(line=pl.int_range(2, len(raw) + 2), code=pl.col("StockCode").str.to_uppercase())
    assert len(raw) == 541_909
    assert len(raw) - raw.drop("line", "code").n_unique() == 5_268
    is_cancelled = pl.col("InvoiceNo").str.starts_with("C")
    fees = ["POST", "DOT", "M", "C2", "D", "S", "B", "BANK CHARGES", "AMAZONFEE", "CRUK"]
    reason = (
        pl.when(is_cancelled)
        .then(pl.lit("cancellation"))
        .when(pl.col("CustomerID") == "")
        .then(pl.lit("missing user_id"))
        .when(pl.col("code").is_in(fees))
        .then(pl.lit("not a product"))
        .when(pl.col("Quantity").cast(pl.Int64) <= 0)
        .then(pl.lit("quantity not positive"))
    )
    amount = (pl.col("Quantity").cast(pl.Float64) * pl.col("UnitPrice").cast(pl.Float64)).cast(pl.Float32)
    kept = raw.filter(reason.is_null()).with_columns(amount=amount)
    repeated = kept.filter(~pl.struct("CustomerID", "code", "InvoiceDate", "amount").is_first_distinct())
    expected = raw.select("line", reason=reason).drop_nulls()
    expected = pl.concat([expected, repeated.select("line", reason=pl.lit("duplicate"))]).sort("line")

    rejected = pl.read_parquet(tmp_path / "rejected.parquet")
    assert rejected.select(pl.col("line").cast(pl.Int64), "reason").equals(
        expected.with_columns(pl.col("line").cast(pl.Int64))
    )
    assert counts["rows_read"] == 541_909 == counts["events"] + counts["rejected"]
    # 383 of the 135,080 lines without a customer are cancellations, which come first.
    assert counts["rejected_by_reason"]["cancellation"] == 9_288
    assert counts["rejected_by_reason"]["missing user_id"] == 135_080 - 383
    by_line = {row["line"]: row for row in rejected.head(200).iter_rows(named=True)}
    for row in raw.filter(pl.col("line").is_in(list(by_line))).iter_rows(named=True):
        assert by_line[row["line"]]["raw"].startswith(f"{row['InvoiceNo']},{row['StockCode']},")
