"""`recops add-items`: items from a file into the store, where every service of the project takes them up.

In: a file as `recops init --items` takes it. Out: what became of its rows. A row that cannot be read is named with its
line and the reason, and no other is lost for it.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recops.bundle import read_pointer, release_folder
from recops.data.guess import guess_items
from recops.data.ingest import ingest
from recops.data.sniff import sniff
from recops.errors import CallError, RefusedError
from recops.params import IngestParams, SourceParams
from recops.serving.loading import load_release
from recops.serving.online_items import OnlineItems
from recops.serving.release import Encoders
from recops.stages.project import Project
from recops.store import open_store

ITEMS_AT_ONCE = 1000  # a transaction


@dataclass(frozen=True)
class Added:
    """`rejected` are (line, reason) of rows that were not taken; `unreadable` counts by column values that count as
    none; `not_recommendable` are reasons by item id."""

    release: str
    added: int
    changed: int
    rejected: list[tuple[int, str]]
    unreadable: dict[str, int]
    not_recommendable: dict[str, str]


def add_items(project: Project, file: Path) -> Added:
    """Adds the rows of `file` to the promoted release, or changes what it has of them; they are encoded here, so that
    pictures and sounds may lie where the source's are. A column that the file lacks stays as it is.

    Raises CallError for a file that is missing or has no column of ids, and RefusedError before the first promotion.
    """
    pointer = read_pointer(project.releases)
    if pointer is None:
        raise RefusedError(f"{project.releases}: no release has been promoted yet; run: recops run")
    items, rejected, unreadable = read_items(project, file)
    folder = release_folder(project.releases, pointer.release)
    release = load_release(folder, pointer.release)
    release.encoders = Encoders(release.bundle, project.params.encode.threads, project.source_folder)
    store = open_store(project.store_url)
    try:
        online = OnlineItems(store)
        online.refresh()
        before = online.applied(release)
        for start in range(0, len(items), ITEMS_AT_ONCE):
            store.put_items(items[start : start + ITEMS_AT_ONCE])
        online.refresh()
        after = online.applied(release)
    finally:
        store.close()
    ids = [item["item_id"] for item in items]
    changed = sum(item_id in before.row_of for item_id in ids)
    return Added(release.id, len(ids) - changed, changed, rejected, unreadable, after.not_recommendable(ids))


def read_items(project: Project, file: Path) -> tuple[list[dict[str, Any]], list[tuple[int, str]], dict[str, int]]:
    """The items of a file, with the columns that it has, as JSON values; (line, reason) of rows not taken; and how many
    values of a column cannot be read, and are null.

    Columns are those of `source.options.items` where the file has them, else guessed from their names.
    """
    if not file.is_file():
        raise CallError(f"{file}: no such file")
    options = _own_options(project, file) or guess_items(file)
    with tempfile.TemporaryDirectory() as temporary:
        # The one reader of tables asks for events as well.
        events = Path(temporary) / "events.csv"
        events.write_text("user_id,item_id\n", encoding="utf-8")
        told = {
            "path": str(events),
            "event": "view",
            "columns": {"user_id": "user_id", "item_id": "item_id"},
        }
        source = SourceParams(name="files", order="unordered", options={"events": told, "items": options})
        counts = ingest(source, IngestParams(), Path(), Path(temporary) / "tables")
        table = pl.read_parquet(Path(temporary) / "tables" / "items.parquet")
        rejected = pl.read_parquet(Path(temporary) / "tables" / "rejected.parquet").select("line", "reason").rows()
    columns = [*options["columns"], *(["attributes"] if options.get("attributes") else [])]
    rows = table.select(columns).with_columns(
        *([pl.col("published_at").dt.to_string("iso:strict")] if "published_at" in columns else []),
        *([pl.col("price").cast(pl.Float64).round(4)] if "price" in columns else []),
    )
    items = list(rows.iter_rows(named=True))
    for item in items:
        if item.get("attributes") is not None:
            item["attributes"] = json.loads(item["attributes"])
    unreadable = {column.removeprefix("items."): num for column, num in counts["unreadable_fields"].items()}
    return items, rejected, unreadable


def _own_options(project: Project, file: Path) -> dict[str, Any] | None:
    """Those of `source.options.items` for what `file` has of its columns, however it is written; None where there are
    none, or where it lacks that of the ids."""
    source = project.params.source
    own = source.options.get("items") if source.name == "files" else None
    if not isinstance(own, dict):
        return None
    sniffed = sniff(file)
    columns = {ours: theirs for ours, theirs in own.get("columns", {}).items() if str(theirs) in sniffed.columns}
    if "item_id" not in columns:
        return None
    attributes = [column for column in own.get("attributes", []) if column in sniffed.columns]
    return {**own, **sniffed.options, "path": str(file.resolve()), "columns": columns, "attributes": attributes}
