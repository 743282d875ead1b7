"""What one worker serves now: loads the release the pointer names and those of challengers, swaps in new ones, keeps
the old one if that fails.

In: Settings. Out: `State`, whose releases are replaced as a whole, so that a request sees one release from start to
end. A thread polls the pointer, so that a promotion holds in every worker within a second. Knows nothing about HTTP.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from recops.bundle import read_pointer, release_folder
from recops.errors import RecopsError
from recops.serving import counters
from recops.serving.answers import AnswerLog
from recops.serving.assistant.catalogue import catalogue_of, was_asked
from recops.serving.erased import ErasedUsers
from recops.serving.event_log import EventLog
from recops.serving.lag import Lag
from recops.serving.live import Kinds, stored_histories
from recops.serving.loading import load_release, warm_up
from recops.serving.online_items import OnlineItems
from recops.serving.reading import Reader
from recops.serving.release import Release
from recops.serving.retrieval import Stored, recommend
from recops.serving.ruleset import Rules
from recops.serving.settings import Settings
from recops.serving.traffic import control
from recops.serving.traffic.arms import DEFAULT, Arm, Traffic
from recops.serving.traffic.running import Running
from recops.serving.traffic.shadow import Asked, Shadows
from recops.serving.traffic.watch import Watch
from recops.store import OF_SHADOW, Store, open_store

logger = logging.getLogger("recops.serving")

RETRY_S = 30.0
MOST_NAMED = 5  # items, in a line of the log
NOTHING_YET = "no release has been promoted yet: `recops run` or `recops promote` does it"


class Slot:
    """A release in memory: `base` as it was loaded, `release` with what was told of items since, up to `change`."""

    def __init__(self, base: Release, rules: Rules) -> None:
        self.base = self.release = base
        self.rules = rules
        self.kinds = Kinds.of(base.bundle.manifest)
        self.change = 0

    def take(self, release: Release, change: int | None = None) -> None:
        """Answers from `release` from now on; `change`: it holds all that was told up to there."""
        warm_up(release, self.rules)  # here, what a release works out at its first call costs no call any time
        self.release = release
        self.change = self.change if change is None else change


class State:
    """`release` is None until one is loaded and warmed up; `reason` then says why. `traffic`: who else answers whom.
    `tenants`: the states of all tenants of the service by name, this one among them."""

    def __init__(self, settings: Settings, is_first: bool = True) -> None:
        self.settings = settings
        self._is_first = is_first  # of the service's tenants: the one whose release a worker waits for
        self.reason = "the release is being loaded"
        self.is_draining = False  # the process has been told to end, and still answers
        self.store: Store | None = None
        self.answers: AnswerLog | None = None
        self.events: EventLog | None = None
        self.traffic = Traffic()
        self.running: Running | None = None
        self.watch: Watch | None = None
        self.shadows: Shadows | None = None
        self.tenants: dict[str, State] = {settings.tenant: self, **{s.tenant: State(s, False) for s in settings.others}}
        self._reader: Reader | None = None
        self._lag: Lag | None = None  # of the service, whichever tenants it has
        self._erased = ErasedUsers()
        self.bundle = settings.bundle
        self._served: Slot | None = None
        self._were_all_ready = settings.workers == 1
        self._slots: dict[str, Slot] = {}  # by release, the served one among them
        self._items: OnlineItems | None = None
        self._refused: dict[str | None, float] = {}  # releases that were refused, and when each is tried again
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
        self._begin(own_bundle, each_poll)
        for other in self._others():
            other._begin()
        self._lag = Lag(
            {
                "answers": [state.answers for state in self.tenants.values() if state.answers is not None],
                "events": [state.events for state in self.tenants.values() if state.events is not None],
            }
        )

    def _begin(self, own_bundle: Path | None = None, each_poll: Callable[[], None] | None = None) -> None:
        self.bundle = self.settings.bundle or own_bundle
        if self.settings.store:
            self.store = open_store(self.settings.store)
            self._reader = Reader(self.store)
            self.answers = AnswerLog(self.store)
            self.events = EventLog(self.store)
            self._items = OnlineItems(self.store)
            self.running = Running(self.store, self.settings.feedback_window_us)
            self.watch = Watch(
                *(self.store, self.running, lambda: self.traffic, lambda: self.kinds, self.refresh_traffic),
                self.settings.guardrails_s,
            )
            self.shadows = Shadows(self._answer_in_shadow)
        self._thread = threading.Thread(target=self._run, args=(each_poll,), name="release-poll", daemon=True)
        self._thread.start()

    def _others(self) -> "list[State]":
        return [other for other in self.tenants.values() if other is not self]

    def close(self) -> None:
        for other in self._others():
            other.close()
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._applying.shutdown(cancel_futures=True)
        for part in (self._lag, self.watch, self.shadows, self.events, self.answers, self._reader):
            if part is not None:
                part.close()
        if self.store is not None:
            self.store.close()

    @property
    def not_ready(self) -> str | None:
        """Why not every tenant can be answered; one whose first release is still to come keeps nobody waiting. Workers
        that start together are ready together, for who asks one of them is answered by any."""
        waiting = [self] if self.release is None else [other for other in self._others() if other._is_late()]
        if waiting:
            return waiting[0].reason
        if not self._were_all_ready:
            num_ready = counters.num_ready()
            if num_ready < self.settings.workers:
                return f"{num_ready} of {self.settings.workers} workers have loaded a release"
            self._were_all_ready = True
        return None

    def _is_late(self) -> bool:
        return self.release is None and self.reason != NOTHING_YET

    @property
    def release(self) -> Release | None:
        """The served one."""
        return None if self._served is None else self._served.release

    def challenger(self, arm: Arm) -> Release | None:
        """Its release; None while that is not loaded."""
        slot = self._slots.get(arm.release)
        return None if slot is None else slot.release

    def answering(self, user_id: str | None) -> tuple[Release | None, str]:
        """Who answers a user: a release and the name of the variant. A challenger that is not loaded, here or at all,
        leaves its users to the served release."""
        arm = self.traffic.arm_of(user_id) if self.traffic.arms else None
        if arm is not None and (release := self.challenger(arm)) is not None:
            return release, arm.name
        return self.release, DEFAULT

    def history(self, release: Release, user_id: str | None) -> Stored | None:
        """The stored history of a user at a release; None for a user it does not know, or without a store."""
        if self._reader is None or user_id is None:
            return None
        return self._reader.history(release, self._kinds_of(release), user_id)

    async def history_soon(self, release: Release, user_id: str | None) -> Stored | None:
        """`history` for a call, which keeps no other."""
        if self._reader is None or user_id is None:
            return None
        return await self._reader.history_soon(release, self._kinds_of(release), user_id)

    def _answer_in_shadow(self, asked: Asked) -> None:
        release, request = self.challenger(asked.arm), asked.request.model_copy(update={"explain": False})
        if release is None or self.answers is None:
            return
        stored = self.history(release, request.user_id)
        found = recommend(release, request, stored, self.settings.rules, asked.request_id)
        answer = {
            "items": found["items"],
            "release": release.id,
            "variant": asked.arm.variant,
            "request_id": f"{asked.request_id}{OF_SHADOW}{asked.arm.name}",
            "source": found["source"],
        }
        self.answers.add_list(answer, found["propensities"], asked.time, request.user_id)

    @property
    def kinds(self) -> Kinds:
        """What kinds of event mean to the release that is served, or as usual before there is one."""
        return Kinds.of({}) if self._served is None else self._served.kinds

    def _kinds_of(self, release: Release) -> Kinds:
        slot = self._slots.get(release.id)
        return Kinds.of(release.bundle.manifest) if slot is None else slot.kinds

    def refresh_erasures(self) -> None:
        """Reads who was erased since; called by whoever erases, and at each poll."""
        if self.store is not None:
            self._erased.refresh(self.store)

    def refresh_traffic(self) -> None:
        """Reads who answers whom; called by whoever changes it, and at each poll."""
        if self.store is not None:
            self.traffic = control.read(self.store)

    def poll(self) -> None:
        """One look at the pointer, at the items told, the users erased and the traffic set since: what is new is served
        from then on. Never raises."""
        for refresh, what in (
            (self.refresh_erasures, "the list of erased users"),
            (self.refresh_traffic, "who answers whom"),
        ):
            try:
                refresh()
            except Exception:
                logger.exception("%s could not be read", what)
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

    def _apply(self, at_once: bool = False, more: Slot | None = None) -> bool:
        """What was told of items, to every release in memory and one `more`. `at_once`: also where it failed less than
        RETRY_S ago."""
        items = self._items
        slots = [*self._slots.values(), *([more] if more else [])]
        if items is None or not slots or (time.monotonic() < self._retry_items_at and not at_once):
            return False
        try:
            items.refresh()
            for slot in slots:
                if slot.change != items.change:
                    slot.take(items.applied(slot.base), items.change)
            items.forget_all_but({facts["sha256"] for slot in slots for facts in slot.base.bundle.encoders})
            counters.ITEM_CHANGE.labels(self.settings.tenant).set(items.change)
        except Exception as error:
            if not isinstance(error, RecopsError) or error.__cause__ is not None:
                logger.exception("items could not be taken into use")
            logger.error("items not in use yet: %s", error)
            counters.STORE_ERRORS.inc()
            self._retry_items_at = time.monotonic() + RETRY_S
            self._apply_what_is_encoded(items, slots)
            return False
        self._retry_items_at = 0.0
        return True

    def _apply_what_is_encoded(self, items: OnlineItems, slots: list[Slot]) -> None:
        """What an item costs, and whether there is any, waits for no encoder."""
        try:
            for slot in slots:
                if slot.change != items.change:
                    slot.take(items.applied(slot.base, encodes=False))
        except Exception:
            logger.exception("changed items could not be taken into use")

    def _load(self) -> None:
        """Loads what the pointer names and the releases of challengers, unless they are in memory already, and lets go
        of the others. What serves already goes on serving while another one is refused."""
        loaded = self._slots.keys()
        if (slot := self._wanted()) is not None and slot is not self._served:
            self._served = slot
            if self._is_first:
                counters.READY.set(1)
            logger.info("serving release %s", slot.base.id)
        releases, arms = self.settings.releases, [arm for arm in self.traffic.arms if arm.halted is None]
        if releases is not None:
            for arm in arms:
                self._loaded(arm.release, lambda arm=arm: release_folder(releases, arm.release))  # type: ignore[misc]
        kept = {self._served.base.id if self._served else None, *(arm.release for arm in arms)}
        self._slots = {release: slot for release, slot in self._slots.items() if release in kept}
        if self._slots.keys() != loaded:
            # What stays is not looked through for garbage again: of 100,000 items that stops every call for 40 ms.
            gc.unfreeze()
            gc.collect()
            gc.freeze()

    def _wanted(self) -> Slot | None:
        """What should be served, None where it cannot be, or is nothing; the pointer decides."""
        settings = self.settings
        try:
            pointer = None if settings.releases is None else read_pointer(settings.releases)
        except Exception as error:
            self._refuse(None, error)
            return None
        if pointer is not None and settings.releases is not None:
            # A worker that starts while the promoted one cannot be loaded serves what the others still serve.
            before = () if self._served else reversed(pointer.history)
            for wanted in (pointer.release, *before):
                folder = release_folder(settings.releases, wanted)
                if (slot := self._loaded(wanted, lambda folder=folder: folder)) is not None:  # type: ignore[misc]
                    return slot
            return None
        if self.bundle is None:
            self.reason = NOTHING_YET
            return None
        own = self.bundle
        return self._served or self._loaded(None, lambda: own)

    def _loaded(self, wanted: str | None, folder: Callable[[], Path]) -> Slot | None:
        """The release in memory, with what was told of items. One that was refused is tried again every RETRY_S, and
        refused again while it is broken."""
        if wanted in self._slots:
            return self._slots[wanted]
        if time.monotonic() < self._refused.get(wanted, 0.0):
            return None
        settings = self.settings
        try:
            release = load_release(
                *(folder(), wanted, settings.threads, settings.source, settings.verify_key),
                *(self._erased, settings.rules),
            )
            if self.release is not None and was_asked(self.release):
                catalogue_of(release)  # here, so that no question waits for it; who never asks has no use for it
        except Exception as error:
            self._refuse(wanted, error)
            return None
        self._refused.pop(wanted, None)
        slot = Slot(release, settings.rules)
        self._apply(at_once=True, more=slot)
        if lacking := settings.rules.lacking(slot.release):
            shown = ", ".join(map(repr, lacking[:MOST_NAMED])) + ", …" * (len(lacking) > MOST_NAMED)
            logger.warning("release %s lacks %d items that the rules name: %s", release.id, len(lacking), shown)
        self._slots = {**self._slots, release.id: slot}
        counters.LOADS.labels("loaded").inc()
        return slot

    def _refuse(self, wanted: str | None, error: Exception) -> None:
        if time.monotonic() < self._refused.get(wanted, 0.0):
            return
        if not isinstance(error, RecopsError) or error.__cause__ is not None:
            logger.error("a release could not be loaded", exc_info=error)
        self._refused[wanted] = time.monotonic() + RETRY_S
        self.reason = "the promoted release could not be loaded; the service's log says why"
        counters.LOADS.labels("failed").inc()
        logger.error("release refused: %s", error)

    def _run(self, each_poll: Callable[[], None] | None) -> None:
        while not self._closing.is_set():
            try:
                if each_poll is not None:
                    each_poll()
                self.poll()
            except Exception:  # a thread that ends would leave this worker at its release for ever
                logger.exception("a look at what is to be served failed")
                counters.STORE_ERRORS.inc()
            self._closing.wait(self.settings.poll_s)


def stored_of(store: Store, release: Release, user_ids: Sequence[str]) -> list[Stored | None]:
    """What the store holds of users at a release, events told since included."""
    return stored_histories(store, release.id, Kinds.of(release.bundle.manifest), user_ids, release.uses_time)
