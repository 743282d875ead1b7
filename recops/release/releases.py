"""The releases of a project: promotes a bundle, rolls back, lists, and traces an answer to what made it.

In: a bundle, the folder `releases/`, the store. Out: `releases/<tenant>/<id>/` (the bundle), `<id>.json` beside it (the
record: what the same data, params and seed would not reproduce byte by byte), and the pointer. Nothing served is ever
half there: folders and files appear whole, by fsync and rename, and the pointer moves last. Knows nothing about gates.
"""

import fcntl
import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recops.bundle import (
    SIGNATURE,
    Pointer,
    bundle_id,
    canonical_json,
    load_bundle,
    read_manifest,
    read_pointer,
    release_folder,
    sync_folder,
    verify,
    write_atomically,
    write_pointer,
)
from recops.errors import BundleError, CallError, RefusedError
from recops.store import HistoryRow, Store, refused_in

logger = logging.getLogger("recops.release")

ENTRY = ("release", "state", "model", "metric", "promoted_at", "data_watermark", "commit", "error")
_COPYING = ".copying"


@dataclass(frozen=True)
class Parts:
    """What belongs to a release beside its bundle. `histories` of users are put in the store under the release, and
    `refused` (items that are not to be recommended to a user) beside them; `events_until` is the place of the last of
    the store's events that they hold. `record` holds commit, dvc.lock, params.yaml and run facts; `release` is
    added."""

    histories: Iterable[HistoryRow]
    record: dict[str, Any] = field(default_factory=dict)
    refused: Iterable[HistoryRow] = ()
    events_until: int = 0


def keep(bundle: Path, releases: Path, store: Store, parts: Parts, *, tenant: str = "main") -> str:
    """Makes `bundle` a release that can be served, or challenge the one that is, and returns its id; what is served
    stays. Errors as of `promote`."""
    verify(bundle)
    with _one_promotion(releases, tenant):
        return _keep(bundle, releases, store, parts, tenant)


def promote(
    bundle: Path,
    releases: Path,
    store: Store,
    parts: Parts,
    *,
    expected: str | None,
    now: str,
    tenant: str = "main",
) -> str:
    """Makes `bundle` the served release and returns its id.

    `expected` is the release it was judged against (None: there was none); when another one is served by now, raises
    RefusedError and nothing changes. All `parts` are in place before it is served; `promoted_at` (`now`, ISO) is added
    to the record. Raises BundleError for a bundle that cannot be loaded: the served release then stays. May be killed
    at any moment and called again.
    """
    verify(bundle)
    with _one_promotion(releases, tenant):
        pointer = _served_as(expected, releases, tenant)
        parts = replace(parts, record={**parts.record, "promoted_at": now})
        release = _keep(bundle, releases, store, parts, tenant)
        _move_pointer(releases, release, pointer, tenant)
    return release


def _keep(bundle: Path, releases: Path, store: Store, parts: Parts, tenant: str) -> str:
    release = bundle_id(bundle)
    _copy(bundle, release_folder(releases, release, tenant))
    load_bundle(release_folder(releases, release, tenant))
    write_atomically(_record_file(releases, release, tenant), canonical_json({**parts.record, "release": release}))
    store.put_histories(refused_in(release), parts.refused)
    store.put_histories(release, parts.histories, parts.events_until)
    return release


def point_to(releases: Path, prefix: str, *, expected: str | None, tenant: str = "main") -> Pointer:
    """Serves a kept release again (its id or the start of it) with the histories the store has of it.

    Raises RefusedError when another release than `expected` is served by now, CallError for an unknown id, and
    BundleError for a release that cannot be loaded: the served one then stays.
    """
    with _one_promotion(releases, tenant):
        pointer = _served_as(expected, releases, tenant)
        release = find_release(prefix, releases, tenant)
        load_bundle(release_folder(releases, release, tenant))
        return _move_pointer(releases, release, pointer, tenant)


def rollback(releases: Path, tenant: str = "main") -> Pointer:
    """Serves the release that was served before the last promotion, and returns the pointer.

    A second call changes nothing: going back further is a promotion. Needs no network. Raises CallError when there is
    nothing to go back to, BundleError when that release cannot be loaded.
    """
    pointer = read_pointer(releases, tenant)
    if pointer is None:
        raise CallError(f"{releases}: nothing is served yet, so there is nothing to roll back")
    if pointer.rolled_back is not None:
        return pointer
    if not pointer.history:
        raise CallError(f"{pointer.release[:12]} is the first release: there is none before it")
    previous = pointer.history[-1]
    load_bundle(release_folder(releases, previous, tenant))
    moved = Pointer(previous, pointer.history[:-1], rolled_back=pointer.release)
    write_pointer(releases, moved, expected=pointer.release, tenant=tenant)
    return moved


def drop(releases: Path, store: Store, names: Iterable[str], tenant: str = "main") -> None:
    """Removes releases with their records and histories; what is served stays. The pointer forgets them first, and
    bundles go last: a call that was killed can be made again."""
    names = set(names)
    if not names:
        return
    with _one_promotion(releases, tenant):
        pointer = read_pointer(releases, tenant)
        if pointer is not None:
            assert pointer.release not in names, "what is served is never dropped"
            history = tuple(release for release in pointer.history if release not in names)
            rolled_back = None if pointer.rolled_back in names else pointer.rolled_back
            moved = Pointer(pointer.release, history, rolled_back)
            if moved != pointer:
                write_pointer(releases, moved, expected=pointer.release, tenant=tenant)
        for release in sorted(names):
            store.drop_release(release)
            _record_file(releases, release, tenant).unlink(missing_ok=True)
            folder, gone = release_folder(releases, release, tenant), releases / tenant / f".gone-{release}"
            if folder.exists():
                folder.rename(gone)
        for gone in (releases / tenant).glob(".gone-*"):
            shutil.rmtree(gone)


def list_releases(releases: Path, tenant: str = "main") -> list[dict[str, Any]]:
    """One entry a release, last promoted first; empty when there are none.

    Keys: release, state, model, metric (name and value of the configured one), promoted_at, data_watermark, commit.
    `state` is `served`, `previous` (what `rollback` would serve), `rolled back`, `earlier`, `never served`, or
    `broken` (then `error` says why).
    """
    pointer = read_pointer(releases, tenant)
    states: dict[str | None, str] = {}
    if pointer:
        states = dict.fromkeys(pointer.history, "earlier")
        if pointer.history and pointer.rolled_back is None:
            states[pointer.history[-1]] = "previous"
        states |= {pointer.rolled_back: "rolled back", pointer.release: "served"}
    found = []
    for release in _ids(releases, tenant):
        entry = dict.fromkeys(
            ("release", "state", "model", "metric", "promoted_at", "data_watermark", "commit", "error")
        )
        entry |= {"release": release, "state": states.get(release, "never served")}
        try:
            manifest = read_manifest(release_folder(releases, release, tenant))
            record = read_record(releases, release, tenant)
        except BundleError as error:
            found.append({**entry, "state": "broken", "error": str(error)})
            continue
        entry |= {key: manifest.get(key) for key in ("model", "data_watermark")}
        entry |= {
            "metric": metric_of(manifest),
            "promoted_at": record.get("promoted_at"),
            "commit": record.get("commit"),
        }
        found.append(entry)
    return sorted(found, key=lambda entry: entry["promoted_at"] or "", reverse=True)


def find_release(prefix: str, releases: Path, tenant: str = "main") -> str:
    """The release whose id starts with `prefix`. Raises CallError naming the releases there are, or that match."""
    ids = _ids(releases, tenant)
    matching = [release for release in ids if prefix and release.startswith(prefix)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise CallError(f"{prefix!r} fits several releases: {_listed(matching)}; write more of the id")
    raise CallError(f"no release {prefix!r}: there are {_listed(ids) if ids else 'none yet'}")


def read_record(releases: Path, release: str, tenant: str = "main") -> dict[str, Any]:
    """The record of a release, empty where it has none. Raises BundleError for one that is no JSON."""
    path = _record_file(releases, release, tenant)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BundleError(f"{path}: not a readable release record ({error})") from None


def note(releases: Path, release: str, facts: dict[str, Any], tenant: str = "main") -> None:
    """Adds facts to the record of a release."""
    record = {**read_record(releases, release, tenant), **facts, "release": release}
    write_atomically(_record_file(releases, release, tenant), canonical_json(record))


def trace(what: str, releases: Path, store: Store, tenant: str = "main") -> dict[str, Any]:
    """Where an answer (its request id) or a release (its id or the start of it) came from.

    Keys: `answer` (as logged; None for a release), `release`, `manifest` (params, input hashes, validation, metrics),
    `record` (commit, dvc.lock, params.yaml, run facts, promoted_at). Raises CallError for what is neither.
    """
    answer = store.answer(what)
    if answer is not None:
        release = answer["release"]
    else:
        try:
            release = find_release(what, releases, tenant)
        except CallError as error:
            raise CallError(f"{what!r} is no request in the answer log, and {error}") from None
    folder = release_folder(releases, release, tenant)
    return {
        "answer": answer,
        "release": release,
        "manifest": read_manifest(folder),
        "record": read_record(releases, release, tenant),
    }


def _copy(bundle: Path, target: Path) -> None:
    """Copies a bundle by temporary folder, fsync and rename; does nothing where it already stands whole."""
    if target.exists():
        try:
            verify(target)
            _copy_signature(bundle, target)
            return
        except BundleError as error:
            logger.warning("a kept release was damaged and is copied anew: %s", error)
            # The disk or a person damaged it. Its id is its content, so a good copy may take its place.
            broken = target.with_name(f"{_COPYING}.broken")
            shutil.rmtree(broken, ignore_errors=True)
            target.rename(broken)
    temporary = target.with_name(_COPYING)
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(bundle, temporary)
    for path in [*temporary.rglob("*"), temporary]:
        sync_folder(path)  # files alike
    if bundle_id(temporary) != target.name:
        raise BundleError(f"{bundle}: changed while it was copied")
    verify(temporary)
    temporary.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(target.with_name(f"{_COPYING}.broken"), ignore_errors=True)


def _copy_signature(bundle: Path, target: Path) -> None:
    """A signature is no part of what an id is made from, so that it may come later than the rest, or by another key."""
    signature = bundle / SIGNATURE
    if signature.is_file():
        write_atomically(target / SIGNATURE, signature.read_text(encoding="utf-8"))


def _served_as(expected: str | None, releases: Path, tenant: str) -> Pointer | None:
    """The pointer, if it names `expected`. Raises RefusedError otherwise."""
    pointer = read_pointer(releases, tenant)
    served = pointer.release if pointer else None
    if served != expected:
        raise RefusedError(f"{_short(served)} is served, not {_short(expected)}: another promotion came first")
    return pointer


def _move_pointer(releases: Path, release: str, pointer: Pointer | None, tenant: str) -> Pointer:
    """Names `release` as served; one that is served already stays as it is."""
    if pointer is not None and pointer.release == release:
        return pointer
    moved = Pointer(release, (*pointer.history, pointer.release) if pointer else ())
    write_pointer(releases, moved, expected=pointer.release if pointer else None, tenant=tenant)
    return moved


@contextmanager
def _one_promotion(releases: Path, tenant: str) -> Iterator[None]:
    folder = releases / tenant
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".promotion.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ids(releases: Path, tenant: str) -> list[str]:
    folder = releases / tenant
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".") if folder.is_dir() else []


def _record_file(releases: Path, release: str, tenant: str) -> Path:
    return releases / tenant / f"{release}.json"


def metric_of(manifest: dict[str, Any]) -> str | None:
    """`ndcg@10 0.1234`, or None for a manifest that does not have it."""
    try:
        name = manifest["params"]["evaluate"]["metric"]
        return f"{name} {manifest['metrics']['metrics'][name]['value']:.4f}"
    except (KeyError, TypeError, ValueError):
        return None


def _short(release: str | None) -> str:
    return release[:12] if release else "no release"


def _listed(ids: list[str]) -> str:
    return ", ".join(release[:12] for release in ids)
