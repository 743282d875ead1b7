"""Stage encode: item content to vectors, one matrix an encoder, and what the service needs to encode a new item.

Writes `data/encoded/` (see `recops/encoders/content`). Vectors made before are taken from a cache in the project's
state folder by the digest of what they were made from, so that only new or changed items are encoded.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recops.bundle import canonical_json, write_atomically
from recops.data.catalogue_cleaning import MAX_COMPARED, guessed_by_name, guessed_by_neighbours, near_duplicates
from recops.encoders.content import DUPLICATES, ENCODERS, GUESSED, ITEMS, USERS
from recops.encoders.content.cache import VectorCache
from recops.encoders.content.chunk import Counts, encode_chunk
from recops.errors import CallError
from recops.params import EncodeParams, checked
from recops.plugins import load, names
from recops.protocols import Encoder, Item
from recops.stages.project import Project

TEXT = "text"


def encode(project: Project) -> dict[str, Any]:
    """Writes items.json, <encoder>.npy, <encoder>/ and encoders.json, and returns what encoders.json says; with
    `encode.users` the same of the attributes of users in the folder users/, and what `clean` writes where texts are
    encoded.

    A log without a table of items, or a table without rows, gives no matrix. Raises CallError where ingest has
    not run (or split, for an encoder that learns), for an encoder or an option that does not exist, and for weights
    that are missing.
    """
    params = project.params
    options = encoder_options(params.encode)
    table = project.tables / "items.parquet"
    if not table.exists():
        raise CallError(f"{table}: no such file; `recops run` or `dvc repro ingest` makes it")
    items = pl.read_parquet(table)
    shutil.rmtree(project.encoded, ignore_errors=True)
    project.encoded.mkdir(parents=True)
    if options and items.is_empty():
        print("encode: the source has no table of items, so there is nothing to encode")
        options = {}
    if params.encode.users:
        _encode_users(project)
    return _write_folder(project, project.encoded, items, "item", options)


def _encode_users(project: Project) -> None:
    """The attributes of all users, by columns learnt from those of the train part. Raises CallError where none differ
    between these."""
    users = pl.read_parquet(project.tables / "users.parquet")
    options = encoder_options(EncodeParams(encoders=["attributes"], **project.params.encode.options))
    (project.encoded / USERS).mkdir()
    try:
        _write_folder(project, project.encoded / USERS, users, "user", options)
    except CallError as error:
        raise CallError(f"encode.users: of {len(users)} users: {error}") from None


def _write_folder(
    project: Project, out: Path, table: pl.DataFrame, kind: Literal["item", "user"], options: dict[str, Any]
) -> dict[str, Any]:
    """Writes what the encoders say of a table to `out`, and returns what encoders.json there says."""
    write_atomically(out / ITEMS, canonical_json(table[f"{kind}_id"].to_list()))
    facts = []
    for name, chosen in options.items():
        # Torch is loaded only where something is exported.
        from recops.release.encoders import write_encoder

        folder = out / name
        write_encoder(
            name,
            chosen,
            folder,
            root=project.root,
            cache=project.encoders,
            train_items=lambda: rows(train_rows(project, table, f"{kind}_id")),
        )
        encoder: Encoder = load("encoders", name)(folder, project.params.encode.threads, project.source_folder)
        with VectorCache(project.encoders / "vectors.sqlite") as cache:
            # One that learns from the items is another encoder after each change of them, and quick.
            kept = None if hasattr(encoder, "fit") else cache
            counts = write_vectors(encoder, table, out / f"{name}.npy", kept, name)
        broken = dict(sorted(counts.broken.items()))
        facts.append(
            {
                "name": name,
                "version": encoder.version,
                "sha256": encoder.sha256,
                "dim": encoder.dim,
                "encoded": counts.encoded,
                "missing": counts.missing,
                "broken": broken,
            }
        )
        told = [f"{counts.encoded:,} of {len(table):,} {kind}s encoded, {counts.reused:,} of them from the cache"]
        told += [f"{counts.missing:,} with nothing to encode"] if counts.missing else []
        told += [f"{count:,} {reason}" for reason, count in broken.items()]
        print(f"{name}: {', '.join(told)}", flush=True)
        if name == TEXT and kind == "item":
            clean(project, table, encoder)
    found = {"encoders": facts}
    write_atomically(out / ENCODERS, canonical_json(found))
    return found


def clean(project: Project, items: pl.DataFrame, encoder: Encoder) -> None:
    """Writes what the vectors of texts say about the catalogue: pairs of items that look like one (duplicates.csv, for
    `ingest.merges`), and with `encode.guess_categories` categories of items without any (guessed_categories.json)."""
    params = project.params.encode
    vectors_ND = np.load(project.encoded / f"{TEXT}.npy", mmap_mode="r", allow_pickle=False)
    if len(items) <= MAX_COMPARED:
        pairs = near_duplicates(items, vectors_ND)
        pairs.write_csv(project.encoded / DUPLICATES)
        if len(pairs):
            where = (project.encoded / DUPLICATES).relative_to(project.root)
            print(f"items: {len(pairs):,} pairs look like one item twice ({where}); ingest.merges makes one of two")
    else:
        print(f"items: {len(items):,} are too many to look for duplicates (at most {MAX_COMPARED:,})")
    if not params.guess_categories:
        return
    if params.category_names:
        names_CD = encoder.query(params.category_names)  # type: ignore[attr-defined]
        found = guessed_by_name(items, vectors_ND, params.category_names, names_CD, params.least_certainty)
    else:
        found = guessed_by_neighbours(items, vectors_ND, params.least_certainty)
    write_atomically(project.encoded / GUESSED, canonical_json(found))
    lacking = sum(not categories for categories in items["categories"].to_list())
    print(f"items: categories guessed for {len(found):,} of {lacking:,} without any")


def encoder_options(params: EncodeParams) -> dict[str, Any]:
    """The options of each encoder in `encode.encoders`. Raises CallError for a wrong one, and for a key of
    `encode` that names no encoder."""
    known = names("encoders")
    if unknown := set(params.options) - set(known):
        raise CallError(f"encode.{min(unknown)}: no such setting and no such encoder; there are {', '.join(known)}")
    return {
        name: checked(load("encoders", name).Options, params.options.get(name, {}), f"encode.{name}")
        for name in params.encoders
    }


def train_rows(project: Project, table: pl.DataFrame, key: str) -> pl.DataFrame:
    """The items or users that the train part has an event of: what an encoder may learn from. Raises CallError where
    split has not run."""
    part = project.split / "train.parquet"
    if not part.exists():
        raise CallError(f"{part}: no such file; `recops run` or `dvc repro split` makes it")
    events = pl.scan_parquet(part)
    seen = events.select(pl.col(key).unique()).collect()
    return table.join(seen, on=key, how="semi", maintain_order="left")


def rows(items: pl.DataFrame) -> Iterator[Item]:
    yield from items.iter_rows(named=True)


def write_vectors(encoder: Encoder, items: pl.DataFrame, path: Path, cache: VectorCache | None, name: str) -> Counts:
    """Writes the matrix of all items (at least one) to `path`, chunk by chunk; see `Counts`."""
    counts = Counts()
    matrix_ND = np.lib.format.open_memmap(path, "w+", np.float16, (len(items), encoder.dim))
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"encoding {name}", total=len(items))
        for start in range(0, len(items), encoder.chunk_size):
            chunk = items.slice(start, encoder.chunk_size)
            encode_chunk(encoder, list(rows(chunk)), matrix_ND[start : start + len(chunk)], cache, counts)
            bar.advance(task, len(chunk))
    if cache is not None:
        cache.drop_unused(encoder.sha256)
    matrix_ND.flush()
    return counts
