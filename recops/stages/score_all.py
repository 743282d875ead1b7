"""`recops score-all`: the list of every user of the promoted release, as POST /recommend gives it, in one Parquet file.

In: a project with a release, whose store holds the histories. Out: a file of SCHEMA, users in the order of their ids.
Users are scored some thousands at a time by several processes, while this one writes the file; each part is on disk
before it counts, so that a call after a kill goes on with what is missing. Memory does not grow with the number of
users. Events count that were told before the part of their user was made. The rules file holds, but for chance.
"""

import fcntl
import gc
import hashlib
import multiprocessing
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from recops.bundle import canonical_json, read_pointer, sync_folder, write_atomically
from recops.errors import CallError, RefusedError
from recops.serving.best import TOGETHER
from recops.serving.local import as_served
from recops.serving.parent import PARENT, be_parent, follow_parent
from recops.serving.release import Release
from recops.serving.requests import Recommend
from recops.serving.retrieval import lists
from recops.serving.ruleset import read_rules
from recops.serving.state import stored_of
from recops.stages.project import Project
from recops.store import Store, open_store

# `item_id` and `score` are as long as each other, best first; a user for whom nothing may be shown has empty lists.
# `source` as POST /recommend says it. The file's metadata name the release.
SCHEMA = pa.schema(
    {"user_id": pa.string(), "item_id": pa.list_(pa.string()), "score": pa.list_(pa.float32()), "source": pa.string()}
)
# As parts hold it: rows of items instead of their ids.
PART = pa.schema({**{name: SCHEMA.field(name).type for name in SCHEMA.names}, "item_id": pa.list_(pa.int32())})
USERS_A_PART = 8192  # and a row group
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Scored:
    """`kept` users were scored by an earlier call that did not come to its end."""

    release: str
    num_users: int
    kept: int


def score_all(
    project: Project,
    out: Path,
    k: int = 100,
    workers: int | None = None,
    say: Callable[[str], None] = print,
    users_a_part: int = USERS_A_PART,
) -> Scored:
    """Writes `out`, replacing what is there when all is done; parts lie in a folder beside it until then.

    `workers`: processes, None for one a core. Raises RefusedError before the first promotion, for a release whose
    histories the store does not hold, and where items are told meanwhile; CallError for a place that cannot be written
    to, and while another call writes the same file.
    """
    pointer = read_pointer(project.releases)
    if pointer is None:
        raise RefusedError(f"{project.releases}: no release has been promoted yet; run: recops run")
    store = open_store(project.store_url)
    try:
        if store.num_histories(pointer.release) is None:
            raise RefusedError(f"{project.store_url}: holds no histories of release {pointer.release[:12]}")
        release, change = as_served(project.releases, pointer.release, store, project.source_folder)
        rules = read_rules(project.rules_file)
        facts = {
            **{"release": pointer.release, "item_change": change, "k": k, "users_a_part": users_a_part},
            "rules": repr(rules),
        }
        with _parts(out, facts, say) as folder:
            whole = folder / "whole.tmp"
            with _file_of_lists(whole, release) as add:
                done = _score_parts(project, release, store, folder, facts, workers or _cores(), say, add)
            whole.replace(out)
            sync_folder(out.parent)
            shutil.rmtree(folder)
    finally:
        store.close()
    return Scored(pointer.release, done.num_users, done.kept)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _parts(out: Path, facts: dict[str, Any], say: Callable[[str], None]) -> Iterator[Path]:
    """The folder of the parts of `out`, held alone; parts of another release or k are removed."""
    folder = out.with_name(f".{out.name}.parts")
    try:
        if out.is_dir():
            raise IsADirectoryError
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise CallError(f"{out}: cannot be written ({error.strerror or 'it is a folder'})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CallError(f"{out}: another call is writing it") from None
        state = folder / "state.json"
        if not state.exists() or state.read_text(encoding="utf-8") != canonical_json(facts):
            for part in folder.glob("*.arrow"):
                part.unlink()
            write_atomically(state, canonical_json(facts))
        elif any(folder.glob("*.arrow")):
            say(f"Going on with the parts in {folder}")
        yield folder


@dataclass
class _Done:
    num_users: int = 0
    kept: int = 0


def _score_parts(
    project: Project,
    release: Release,
    store: Store,
    folder: Path,
    facts: dict[str, Any],
    workers: int,
    say: Callable[[str], None],
    add: Callable[[Path], None],
) -> _Done:
    """Makes every part that is missing, and has each added in its turn; the parts of users that have changed are made
    anew."""
    done = _Done()
    with (
        _environment_of_workers(),
        ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(project, facts["release"], facts["item_change"]),
        ) as pool,
    ):
        pending: deque[tuple[Path, Future[None] | None]] = deque()

        def add_next() -> None:
            path, future = pending.popleft()
            if future is not None:
                future.result()
            add(path)

        try:
            users, num_parts = user_ids(release, store), 0
            while ids := list(islice(users, facts["users_a_part"])):
                path = folder / f"{num_parts:06d}.arrow"
                if _is_of(path, ids):
                    done.kept += len(ids)
                    pending.append((path, None))
                else:
                    pending.append((path, pool.submit(_score_part, path, ids, facts["k"])))
                num_parts, done.num_users = num_parts + 1, done.num_users + len(ids)
                while len(pending) > 2 * workers:  # ids are read no faster than they are scored
                    add_next()
                    say(f"{done.num_users - len(pending) * facts['users_a_part']:,} users")
            while pending:
                add_next()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return done


@contextmanager
def _environment_of_workers() -> Iterator[None]:
    """What the workers read as they start. Undone afterwards: whatever else this process starts is nobody's worker, and
    would end at once for want of its supervisor."""
    before = {name: os.environ.get(name) for name in (*ONE_THREAD, PARENT)}
    os.environ.update(ONE_THREAD)
    be_parent()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def user_ids(release: Release, store: Store) -> Iterator[str]:
    """All that the release knows: those with a history in the store, by id, then those of its model, then those of
    whom events were told since, in the order of the first."""
    others = {user_id for user_id in release.bundle.user_ids if release.user_row(user_id)}
    told = dict.fromkeys(store.users_told_of(release.id))
    for user_id in store.users_with_history(release.id):
        others.discard(user_id)
        told.pop(user_id, None)
        yield user_id
    yield from sorted(others)
    yield from (user_id for user_id in told if user_id not in others)


_worker: dict[str, Any] = {}  # of a worker process: `release`, `store` and `rules`


def _start_worker(project: Project, release: str, change: int) -> None:
    follow_parent()
    store = open_store(project.store_url)
    opened, found = as_served(project.releases, release, store, project.source_folder)
    if found != change:
        raise RefusedError("items were told while the lists were begun; call again")
    _worker.update(release=opened, store=store, rules=read_rules(project.rules_file))
    gc.freeze()  # or the release is looked through for garbage again and again


def _score_part(path: Path, ids: list[str], k: int) -> None:
    """Writes the lists of these users, whole or not at all."""
    release, store = _worker["release"], _worker["store"]
    rows, scores, sources = [], [], []
    for start in range(0, len(ids), TOGETHER):  # what is read of so many stays in the cache
        some = ids[start : start + TOGETHER]
        asked = [
            (_request(user_id, k), stored)
            for user_id, stored in zip(some, stored_of(store, release, some), strict=True)
        ]
        for one in lists(release, asked, _worker["rules"]):
            rows.append(one.rows)
            scores.append(one.scores)
            sources.append(one.someone.source)
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    table = pa.table(
        [
            pa.array(ids, pa.string()),
            pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(rows).astype(np.int32))),
            pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(scores), pa.float32())),
            pa.array(sources, pa.string()),
        ],
        schema=PART.with_metadata({"users": _digest(ids)}),
    )
    temporary = path.with_suffix(".tmp")
    with _synced(temporary) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    temporary.replace(path)
    sync_folder(path.parent)


def _request(user_id: str, k: int) -> Recommend:
    try:
        return Recommend.model_validate({"user_id": user_id, "k": k})  # takes a fifth of the other
    except ValidationError:  # no call could name such a user, or ask for so many
        return Recommend.model_construct(user_id=user_id, k=k)


def _digest(ids: list[str]) -> str:
    return hashlib.sha256("\0".join(ids).encode()).hexdigest()


def _is_of(path: Path, ids: list[str]) -> bool:
    """Whether a part is there and of these users."""
    return path.exists() and pa.ipc.open_file(path).schema.metadata[b"users"].decode() == _digest(ids)


@contextmanager
def _file_of_lists(path: Path, release: Release) -> Iterator[Callable[[Path], None]]:
    """Gives what adds a part to the file at `path`, as a row group; the file is on disk afterwards."""
    ids = pa.array(release.ids, pa.string())
    columns = {column: f"{column}.list.element" for column in ("item_id", "score")}
    with (
        _synced(path) as file,
        pq.ParquetWriter(
            file,
            _named(PART.empty_table(), ids).schema,
            compression="zstd",
            store_schema=False,  # or readers would be told of dictionaries
            use_dictionary=[columns["item_id"], "source"],
            dictionary_pagesize_limit=2**31 - 1,
            column_encoding={columns["score"]: "BYTE_STREAM_SPLIT"},
        ) as writer,
    ):
        yield lambda part: writer.write_table(_named(pa.ipc.open_file(part).read_all(), ids))
        writer.add_key_value_metadata({"release": release.id})


def _named(part: pa.Table, ids: pa.StringArray) -> pa.Table:
    """With ids instead of rows, each id once, since there are far fewer items than places in lists."""
    table = part.combine_chunks().replace_schema_metadata(None)
    lists_of_rows = table["item_id"].chunk(0) if len(table) else pa.array([], PART.field("item_id").type)
    rows = lists_of_rows.values.to_numpy()
    used = np.flatnonzero(np.bincount(rows, minlength=1))
    place = np.zeros(used.max(initial=0) + 1, np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    named = pa.DictionaryArray.from_arrays(pa.array(place[rows]), ids.take(pa.array(used - 1)))
    return table.set_column(1, "item_id", pa.ListArray.from_arrays(lists_of_rows.offsets, named))


@contextmanager
def _synced(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, on disk afterwards."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
