"""Three foreign-looking logs are guessed right, and what is guessed can be ingested as it is."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from recops.data.guess import guess
from recops.data.ingest import ingest
from recops.errors import CallError
from recops.params import IngestParams, SourceParams


def ingested(folder: Path, *files: Path | None) -> tuple[dict, pl.DataFrame, pl.DataFrame]:
    """What ingest makes of the guess alone: counts, events, items."""
    found = guess(*files)
    params = SourceParams(name="files", options=found.options, order=found.order)
    counts = ingest(params, IngestParams(events=found.events), folder, folder / "out")
    return counts, *(pl.read_parquet(folder / "out" / f"{table}.parquet") for table in ("events", "items"))


def test_semicolon_csv_in_latin_1_with_german_names(tmp_path: Path) -> None:
    log = tmp_path / "verkäufe.csv"
    rows = ["Kunden-Nr;Artikel-Nr;Kaufdatum;Menge"]
    rows += [f"K{i % 7};Stück{i % 5};{i % 28 + 1:02}.03.2024 14:{i:02};{i % 3 + 1},5" for i in range(60)]
    log.write_bytes("\r\n".join(rows).encode("latin-1"))
    catalogue = tmp_path / "artikel.csv"
    catalogue.write_bytes(
        "Artikel-Nr;Bezeichnung;Warengruppe;Preis\n".encode("latin-1")
        + "".join(f"Stück{i};Größe {i};Möbel|Büro;1.{i}00,50\n" for i in range(5)).encode("latin-1")
    )

    found = guess(log, catalogue)
    events = found.options["events"]
    assert (events["encoding"], events["delimiter"], events["header"]) == ("latin-1", ";", True)
    assert events["columns"] == {
        "user_id": "Kunden-Nr",
        "item_id": "Artikel-Nr",
        "timestamp": "Kaufdatum",
        "value": "Menge",
    }
    assert (events["timestamp_format"], events["decimal"], events["event"]) == ("%d.%m.%Y %H:%M", ",", "purchase")
    assert ("events encoding", "latin-1", "not valid UTF-8, and no bytes 80 to 9F") in found.rows

    counts, log_table, items = ingested(tmp_path, log, catalogue)
    assert (counts["events"], counts["rejected"], counts["broken_encoding"]) == (60, 0, 0)
    assert log_table["timestamp"][0] == datetime(2024, 3, 1, 14, 0, tzinfo=UTC)
    assert log_table.row(0, named=True)["value"] == 1.5
    assert items.row(1, named=True)["title"] == "Größe 1"
    assert items["categories"].to_list()[0] == ["Möbel", "Büro"]
    assert items["price"].to_list()[:2] == [1000.5, 1100.5]


def test_semicolon_csv_with_french_names_and_iso_times(tmp_path: Path) -> None:
    log = tmp_path / "achats.csv"
    rows = ["Identifiant;Client;Référence produit;Évènement;Horodatage"]
    rows += [f"{i};c{i % 4};r{i % 6};{('achat', 'vue')[i % 2]};2024-01-{i + 1:02}T10:00:00" for i in range(20)]
    log.write_bytes("\n".join(rows).encode("cp1252"))
    events = guess(log).options["events"]
    assert events["columns"] == {
        "user_id": "Client",
        "item_id": "Référence produit",
        "event": "Évènement",
        "timestamp": "Horodatage",
    }
    assert events["event_map"] == {"achat": "purchase", "vue": "view"}
    counts, table, _ = ingested(tmp_path, log)
    assert counts["events"] == 20
    assert sorted(set(table["event"])) == ["purchase", "view"]


def test_gzipped_json_lines_with_milliseconds(tmp_path: Path) -> None:
    log = tmp_path / "log.json.gz"
    rows = [
        {
            "visitor": {"id": f"v{i % 3}"},
            "sku": i % 4,
            "eventType": ("addToCart", "buy")[i % 2],
            "ts": 1_700_000_000_000 + i,
        }
        for i in range(30)
    ]
    log.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    events = guess(log).options["events"]
    assert events["format"] == "jsonl"
    assert events["columns"] == {"user_id": "visitor.id", "item_id": "sku", "event": "eventType", "timestamp": "ts"}
    assert (events["timestamp_unit"], events["event_map"]) == ("ms", {"addToCart": "cart", "buy": "purchase"})
    counts, table, _ = ingested(tmp_path, log)
    assert counts["events"] == 30
    assert table["timestamp"][1] == datetime(2023, 11, 14, 22, 13, 20, 1000, tzinfo=UTC)


def test_parquet_with_integer_ids(tmp_path: Path) -> None:
    log = tmp_path / "part.bin"
    start = datetime(2024, 5, 1, tzinfo=UTC)
    pl.DataFrame(
        {
            "customer_id": [i % 5 for i in range(40)],
            "movie_id": [i % 9 for i in range(40)],
            "stars": [float(i % 5 + 1) for i in range(40)],
            "created_at": [start + timedelta(hours=i) for i in range(40)],
        }
    ).write_parquet(log)
    found = guess(log)
    assert found.options["events"]["columns"] == {
        "user_id": "customer_id",
        "item_id": "movie_id",
        "timestamp": "created_at",
        "value": "stars",
    }
    assert found.options["events"]["event"] == "rating"
    counts, table, _ = ingested(tmp_path, log)
    assert counts["events"] == 40
    assert table.row(0)[1:3] == ("0", "0")
    assert table["timestamp"][39] == start + timedelta(hours=39)


def test_a_log_without_header_is_told_by_position_and_content(tmp_path: Path) -> None:
    log = tmp_path / "u.data"
    log.write_text("".join(f"{i % 9}\t{i % 20}\t{i % 5}\t{881250949 + i}\n" for i in range(50)))
    events = guess(log).options["events"]
    assert events["header"] is False
    assert events["columns"] == {"timestamp": "4", "user_id": "1", "item_id": "2", "value": "3"}
    assert events["timestamp_unit"] == "s"


def test_ids_of_the_items_file_tell_the_item_column(tmp_path: Path) -> None:
    log, catalogue = tmp_path / "log.csv", tmp_path / "things.csv"
    log.write_text("who_id,what_code,user\n" + "".join(f"{i},x{i % 5},u{i % 3}\n" for i in range(30)))
    catalogue.write_text("id,name\n" + "".join(f"x{i},thing {i}\n" for i in range(5)))
    found = guess(log, catalogue)
    assert found.options["events"]["columns"] == {"user_id": "user", "item_id": "what_code"}
    assert found.order == "unordered"
    assert found.options["items"]["columns"] == {"item_id": "id", "title": "name"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    log = tmp_path / "log.csv"
    log.write_bytes(("user,item\n" + "".join(f"ü{i % 4},5€{i % 3}\n" for i in range(12))).encode(encoding))
    assert guess(log).options["events"]["encoding"] == encoding
    counts, table, _ = ingested(tmp_path, log)
    assert (counts["events"], counts["broken_encoding"]) == (12, 0)
    assert table.row(0)[1:3] == ("ü0", "5€0")


def test_an_encoding_is_told_from_bytes_far_behind_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recops.data.sniff.SAMPLE_BYTES", 64)
    log = tmp_path / "log.csv"
    log.write_bytes(b"user,item\n" + b"a,b\n" * 100 + "ü,b\n".encode("latin-1"))
    assert guess(log).options["events"]["encoding"] == "latin-1"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("just words\nand more of them here\nno\n", "no delimiter"),
        ("colour,shape\nred,square\nblue,round\n", "'colour', 'shape'"),
        ("user,shape\n1,square\n2,round\n", "which column is item_id"),
    ],
)
def test_what_cannot_be_guessed_says_so(tmp_path: Path, content: str, says: str) -> None:
    log = tmp_path / "log.csv"
    log.write_text(content)
    with pytest.raises(CallError, match=says):
        guess(log)
    with pytest.raises(CallError, match="no such file"):
        guess(tmp_path / "other.csv")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "no line is a JSON object"),
        (b'[{"user": 1, "item": 2}]', "a JSON array"),
        (b'[\n {"user": 1, "item": 2}\n]', "a JSON array"),
        (gzip.compress(bytes(range(256)) * 40)[:40] + b"x" * 200, "damaged gzip file"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "log").write_bytes(data)
    with pytest.raises(CallError, match=message):
        guess(tmp_path / "log")
