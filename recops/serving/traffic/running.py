"""Figures of all challengers, kept up to date: after the first look only what was logged or told since is read.

In: the store, and who stands beside the served release. Out: two `Outcome` a challenger, of the time it stood: what it
showed to its users, and what the served release showed to those who are nobody else's. Who was answered by the served
release though another one's, while a challenger was loaded, failed or was halted, is on neither side. Knows no HTTP.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from recops.serving.live import Kinds
from recops.serving.traffic.arms import DEFAULT, Traffic
from recops.serving.traffic.outcomes import Outcome
from recops.store import Followed, Store
from recops.user_hash import user_hash

Period = tuple[int, int]


class Running:
    """Of one store; safe for many threads. Begins anew where the traffic, or what kinds of event mean, has changed."""

    def __init__(self, store: Store, window_us: int) -> None:
        self._store, self._window_us = store, window_us
        self._lock = threading.Lock()
        self._begin(Traffic(), Kinds.of({}))

    @contextmanager
    def of(self, traffic: Traffic, kinds: Kinds) -> Iterator[dict[str, tuple[Outcome, Outcome]]]:
        """By name of the challenger: of the served release, and of the challenger. Later looks change them."""
        with self._lock:
            if (traffic, kinds) != (self._traffic, self._kinds):
                self._begin(traffic, kinds)
            if traffic.arms:
                self._look()
            yield {
                arm.name: (self._found[arm.period, DEFAULT], self._found[arm.period, arm.variant])
                for arm in traffic.arms
            }

    def _begin(self, traffic: Traffic, kinds: Kinds) -> None:
        self._traffic, self._kinds = traffic, kinds
        self._periods = {arm.period for arm in traffic.arms}
        self._place = self._erased = 0
        self._found: dict[tuple[Period, str], Outcome] = defaultdict(Outcome)

    def _look(self) -> None:
        # In this order: who is erased after the list was read, and comes back, stands behind the place.
        last = self._store.last_place()
        self._forget_erased()
        shadows = [arm.name for arm in self._traffic.arms if arm.mode == "shadow"]
        since = min(since for since, _ in self._periods)
        try:
            for one in self._store.followed(since, self._window_us, last, self._place, shadows):
                self._add(one)
        except BaseException:
            self._begin(self._traffic, self._kinds)  # half of it would else count twice
            raise
        self._place = last

    def _forget_erased(self) -> None:
        erased = self._store.erasures(self._erased)
        if erased and self._place:
            key, hashes = self._store.erasure_key(), {entry.user_hash for entry in erased}
            for outcome in self._found.values():
                outcome.forget(lambda user_id: user_hash(key, user_id) in hashes)
        self._erased = erased[-1].place if erased else self._erased

    def _add(self, one: Followed) -> None:
        owner = self._traffic.owner(one.user_id)
        variant = str(one.variant)
        for period in self._periods:
            if not period[0] <= one.time < period[1]:
                continue
            if owner is None or variant == owner.variant:
                self._found[period, variant].add(one, self._kinds)
            elif variant == DEFAULT and one.is_new and one.user_id:
                self._found[period, owner.variant].add_instead(one.user_id)
