"""What one worker serves now: loads the release the pointer names, swaps in a new one, keeps the old one if that fails.

In: Settings. Out: `State`, whose `release` is replaced as a whole, so that a request sees one release from start to
end. A thread polls the pointer, so that a promotion holds in every worker within a second. Knows nothing about HTTP.
"""

import json
import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from recops.bundle import load_bundle, read_pointer, release_folder
from recops.errors import BundleError, RecopsError
from recops.serving import counters
from recops.serving.answers import AnswerLog
from recops.serving.assistant.catalogue import catalogue_of, was_asked
from recops.serving.erased import ErasedUsers
from recops.serving.event_log import EventLog
from recops.serving.live import Kinds, stored_history
from recops.serving.online_items import OnlineItems
from recops.serving.release import Encoders, Release
from recops.serving.requests import Recommend, Similar
from recops.serving.retrieval import Stored, recommend, similar
from recops.serving.settings import Settings
from recops.store import Store, open_store

logger = logging.getLogger("recops.serving")

RETRY_S = 30.0


class State:
    """`release` is None until one is loaded and warmed up; `reason` then says why."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.release: Release | None = None
        self.reason = "the release is being loaded"
        self.is_draining = False  # the process has been told to end, and still answers
        self.store: Store | None = None
        self.answers: AnswerLog | None = None
        self.events: EventLog | None = None
        self._erased = ErasedUsers()
        self._kinds: tuple[str, Kinds] | None = None  # and the release they are of
        self.bundle = settings.bundle
        self._base: Release | None = None  # as it was loaded
        self._items: OnlineItems | None = None
        self._refused: tuple[str | None, float] | None = None
        self._has_items = False  # whether `release` has all that was read of items told since
        self._retry_items_at = 0.0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        # Of its own: while items are encoded, calls that wait for it leave the other threads to the store.
        self._applying = ThreadPoolExecutor(1, "items")
        self._soon: Future[bool] | None = None

    def start(self, own_bundle: Path | None = None, each_poll: Callable[[], None] | None = None) -> None:
        """Opens the store, then loads and polls on a thread; `each_poll` is called before each poll.

        `own_bundle` is the Bento's: what to serve where neither pointer nor settings name another.
        """
        self.bundle = self.settings.bundle or own_bundle
        if self.settings.store:
            self.store = open_store(self.settings.store)
            self.answers = AnswerLog(self.store)
            self.events = EventLog(self.store)
            self._items = OnlineItems(self.store)
        self._thread = threading.Thread(target=self._run, args=(each_poll,), name="release-poll", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._applying.shutdown(cancel_futures=True)
        for log in (self.events, self.answers):
            if log is not None:
                log.close()
        if self.store is not None:
            self.store.close()

    def history(self, release: Release, user_id: str | None) -> Stored | None:
        """The stored history of a user at a release; None for a user it does not know, or without a store.

        A store that cannot be read makes its users unknown: a list from less is better than none, and it is counted.
        """
        if self.store is None or user_id is None:
            return None
        try:
            return stored_history(self.store, release.id, self._kinds_of(release), user_id, release.uses_time)
        except Exception:
            logger.exception("the history of a user could not be read")
            counters.STORE_ERRORS.inc()
            return None

    @property
    def kinds(self) -> Kinds:
        """What kinds of event mean to the release that is served, or as usual before there is one."""
        return Kinds.of({}) if self.release is None else self._kinds_of(self.release)

    def _kinds_of(self, release: Release) -> Kinds:
        if self._kinds is None or self._kinds[0] != release.id:
            self._kinds = release.id, Kinds.of(release.bundle.manifest)
        return self._kinds[1]

    def refresh_erasures(self) -> None:
        """Reads who was erased since; called by whoever erases, and at each poll."""
        if self.store is not None:
            self._erased.refresh(self.store)

    def poll(self) -> None:
        """One look at the pointer, at the items told and the users erased since: what is new is served from then on.
        Never raises."""
        try:
            self.refresh_erasures()
        except Exception:
            logger.exception("the list of erased users could not be read")
            counters.STORE_ERRORS.inc()
        with self._lock:
            self._load()
            self._apply()

    def apply_items(self) -> bool:
        """Takes what was told of items into use now; False where that could not be done, and is tried again later."""
        with self._lock:
            return self._apply(at_once=True)

    def apply_items_soon(self) -> "Future[bool]":
        """`apply_items` on a thread; once for all that ask before it begins, from one thread."""
        if self._soon is None or self._soon.running() or self._soon.done():
            self._soon = self._applying.submit(self.apply_items)
        return self._soon

    def _apply(self, at_once: bool = False) -> bool:
        """`at_once`: also where it failed less than RETRY_S ago."""
        items, base = self._items, self._base
        if items is None or base is None or (time.monotonic() < self._retry_items_at and not at_once):
            return False
        try:
            if items.refresh():
                self._has_items = False
            if not self._has_items:
                self._take(items.applied(base))
                self._has_items = True
                counters.ITEM_CHANGE.set(items.change)
        except Exception as error:
            if not isinstance(error, RecopsError):
                logger.exception("items could not be taken into use")
            logger.error("items not in use yet: %s", error)
            counters.STORE_ERRORS.inc()
            self._retry_items_at = time.monotonic() + RETRY_S
            self._apply_what_is_encoded(items, base)
            return False
        self._retry_items_at = 0.0
        return True

    def _apply_what_is_encoded(self, items: OnlineItems, base: Release) -> None:
        """What an item costs, and whether there is any, waits for no encoder."""
        try:
            self._take(items.applied(base, encodes=False))
        except Exception:
            logger.exception("changed items could not be taken into use")

    def _take(self, release: Release) -> None:
        warm_up(release)  # here, what a release works out at its first call costs no call any time
        self.release = release

    def _load(self) -> None:
        """Loads what the pointer names unless that is served already.

        A release that was refused is tried again every RETRY_S, and refused again while it is broken; what serves
        already goes on serving.
        """
        wanted: str | None = None
        try:
            wanted, folder = self._wanted()
            if folder is None:
                self.reason = "no release has been promoted yet: `recops run` or `recops promote` does it"
                return
            if self.release is not None and wanted in (None, self.release.id):
                return
            if self._was_refused(wanted):
                return
            release = load_release(
                folder, wanted, self.settings.threads, self.settings.source, self.settings.verify_key, self._erased
            )
            if self.release is not None and was_asked(self.release):
                catalogue_of(release)  # here, so that no question waits for it; who never asks has no use for it
        except Exception as error:
            if self._was_refused(wanted):
                return
            if not isinstance(error, RecopsError):
                logger.exception("a release could not be loaded")
            self._refused = (wanted, time.monotonic() + RETRY_S)
            self.reason = "the promoted release could not be loaded; the service's log says why"
            counters.LOADS.labels("failed").inc()
            logger.error("release refused: %s", error)
            return
        self._base, self._refused, self._has_items = release, None, False
        if not self._apply(at_once=True) and (self.release is None or self.release.id != release.id):
            self.release = release
        counters.LOADS.labels("loaded").inc()
        counters.READY.set(1)
        logger.info("serving release %s", release.id)

    def _was_refused(self, wanted: str | None) -> bool:
        """Whether this was tried, and refused, less than RETRY_S ago."""
        return self._refused is not None and self._refused[0] == wanted and time.monotonic() < self._refused[1]

    def _wanted(self) -> tuple[str | None, Path | None]:
        """Release id (None: whatever the bundle is) and folder of what should be served; the pointer decides."""
        settings = self.settings
        pointer = None if settings.releases is None else read_pointer(settings.releases)
        if pointer is not None and settings.releases is not None:
            return pointer.release, release_folder(settings.releases, pointer.release)
        return None, self.bundle

    def _run(self, each_poll: Callable[[], None] | None) -> None:
        while not self._closing.is_set():
            if each_poll is not None:
                each_poll()
            self.poll()
            self._closing.wait(self.settings.poll_s)


def stored_of(store: Store, release: Release, user_id: str) -> Stored | None:
    """What the store holds of a user at a release, events told since included."""
    return stored_history(store, release.id, Kinds.of(release.bundle.manifest), user_id, release.uses_time)


def load_release(
    folder: Path,
    wanted: str | None = None,
    threads: int = 1,
    source: Path | None = None,
    verify_key: Path | None = None,
    erased: ErasedUsers | None = None,
) -> Release:
    """The release in `folder`, verified and warmed up; with `verify_key` only a signed one. Raises BundleError, also
    when it is not the one `wanted`."""
    bundle = load_bundle(folder, threads, verify_key)
    if wanted is not None and bundle.id != wanted:
        raise BundleError(f"{folder}: holds release {bundle.id[:12]}…, the pointer names {wanted[:12]}…")
    record_file = folder.with_name(folder.name + ".json")
    try:
        record: dict[str, Any] = json.loads(record_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        record = {}
    except ValueError as error:
        raise BundleError(f"{record_file}: not a readable record ({error})") from None
    if not isinstance(record, dict):
        raise BundleError(f"{record_file}: not a record, but {type(record).__name__}")
    release = Release(bundle, record, Encoders(bundle, threads, source), erased=erased)
    warm_up(release)
    return release


def warm_up(release: Release) -> None:
    """Answers one call as the service does. Raises BundleError when that does not go well."""
    for history in (release.ids[:3], []):
        found = recommend(release, Recommend.model_construct(history=history, explain=True), None)
        if not all(math.isfinite(item["score"]) for item in found["items"]):
            raise BundleError(f"{release.bundle.folder}: scores of the warm-up call are not finite")
    if release.ids:
        similar(release, Similar.model_construct(item_id=release.ids[0]))
