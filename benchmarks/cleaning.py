"""What the text encoder proposes for cleaning a catalogue, and how often it is right.

`python -m benchmarks.cleaning [--quick]` (the same). Online Retail has descriptions, prices and no categories: pairs
that look like one product twice, all of them judged by hand, and categories guessed from the names of fifteen, a drawn
hundred judged by hand; what a description does not tell (a colour that only the code has) counts against a pair in the
strict figure. MovieLens latest-small has genres: those of a drawn tenth of the films are hidden and guessed from the
likest films; precision and recall with 95 % intervals over films.
"""

import argparse
import os
import random
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.report import write_results
from recops.data.catalogue_cleaning import guessed_by_name, guessed_by_neighbours, near_duplicates
from recops.data.ingest import ingest
from recops.encoders.text import Text
from recops.evaluation.bootstrap import mean_intervals
from recops.params import IngestParams, SourceParams
from recops.release.encoders import write_encoder

DATA = Path(os.environ.get("RECOPS_TEST_DATA", "../shared/data"))
NAMES = [
    "kitchenware",
    "bags and purses",
    "candles and lighting",
    "Christmas decorations",
    "stationery and paper",
    "toys and games",
    "jewellery",
    "garden",
    "home decoration",
    "party supplies",
    "bathroom",
    "clocks",
    "cushions and textiles",
    "storage boxes",
    "greeting cards and gift wrap",
]
SAMPLE, SEED = 100, 5
# Judged by reading the descriptions: guesses of the sample that no shop would make. A luggage tag among bags, incense
# among candles and a mat among textiles count as right.
WRONG = set(
    [
        "70006",
        "22319",
        "21918",
        "75172",
        "23032",
        "84077",
        "22775",
        "84509C",
        "22097",
        "15044D",
        "22623",
        "22608",
        "23528",
        "90059E",
        "22446",
        "21181",
        "20752",
        "20703",
        "22489",
        "23029",
        "90214F",
        "23408",
        "22721",
        "21670",
        "22675",
    ]
)
# Notes of stock-keepers that took the place of a description.
NO_PRODUCT = set(["35611B", "84611B", "84612B", "DCGS0067", "DCGS0068", "DCGS0073", "72732", "72759"])


def retail(encoder: Text, work: Path) -> dict:
    source = SourceParams(name="online_retail", path=str((DATA / "online-retail").resolve()))
    items, vectors = encoded(encoder, source, work)
    pairs = near_duplicates(items, vectors)
    notes = [row for row in pairs.iter_rows() if row[0] in NO_PRODUCT]
    products = [row for row in pairs.iter_rows() if row[0] not in NO_PRODUCT]
    # 84279P and 84279B are one code in two colours.
    of_one_code = [row for row in products if row[0][:-1] == row[1][:-1] and row[0][-1].isalpha()]
    found: dict = {
        "items": len(items),
        "pairs": len(pairs),
        "same words and price": len(products),
        "of these told apart by a letter of the code alone": len(of_one_code),
        "notes instead of a description": len(notes),
    }
    names = encoder.query(NAMES)
    sampled = guessed_by_name(items, vectors, NAMES, names, 0.5)
    sample = set(random.Random(SEED).sample(sorted(sampled), SAMPLE))
    for least in (0.5, 0.6, 0.7, 0.8, 0.9):
        guessed = guessed_by_name(items, vectors, NAMES, names, least)
        judged = sorted(sample & set(guessed))
        right = np.array([float(item not in WRONG) for item in judged])
        found[f"certainty {least}"] = {"guessed": len(guessed), "judged": len(judged), "precision": interval(right)}
    return found


def films(encoder: Text, work: Path) -> dict:
    items, vectors = encoded(encoder, SourceParams(), work)
    known = [row for row, genres in enumerate(items["categories"].to_list()) if genres]
    # Titles alone: what the encoder read of a film contains its genres.
    bare = items.with_columns(categories=pl.lit(None, pl.List(pl.String)))
    vectors = encoder.encode(list(bare.iter_rows(named=True)))
    hidden = set(random.Random(SEED).sample(known, len(known) // 10))
    truth = items["categories"].to_list()
    lacking = items.with_columns(
        categories=pl.Series([None if n in hidden else own for n, own in enumerate(truth)], dtype=pl.List(pl.String))
    )
    found: dict = {"films": len(hidden)}
    row_of = {item_id: row for row, item_id in enumerate(items["item_id"])}
    for least in (0.3, 0.5, 0.7, 0.9):
        guessed = guessed_by_neighbours(lacking, vectors, least)
        guessed = {row_of[item]: set(kept) for item, kept in guessed.items() if row_of[item] in hidden}
        shares = [len(kept & set(truth[row])) / len(kept) for row, kept in guessed.items()]
        recalls = [len(guessed.get(row, set()) & set(truth[row])) / len(truth[row]) for row in hidden]
        found[f"share {least}"] = {
            "films with a guess": len(guessed),
            "precision": interval(np.array(shares)),
            "recall": interval(np.array(recalls)),
        }
    return found


def encoded(encoder: Text, source: SourceParams, work: Path) -> tuple[pl.DataFrame, np.ndarray]:
    ingest(source, IngestParams(), Path(), work / source.name)
    items = pl.read_parquet(work / source.name / "items.parquet")
    return items, encoder.encode(list(items.iter_rows(named=True)))


def interval(values: np.ndarray) -> dict[str, float]:
    value, low, high, _ = mean_intervals(values[:, None], 1000, 42)[0].tolist()
    return {"value": value, "low": low, "high": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        write_encoder("text", Text.Options(), work / "text", root=work, cache=work / "cache", train_items=list)
        encoder = Text(work / "text", 1)
        numbers = {"online_retail": retail(encoder, work), "movielens_small": films(encoder, work)}
    for name, found in numbers.items():
        print(name)
        for key, value in found.items():
            print(f"  {key:52} {value}")
    print(f"wrote {write_results('cleaning', numbers, quick)}")


if __name__ == "__main__":
    main()
