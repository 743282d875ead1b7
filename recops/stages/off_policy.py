"""`recops off-policy`: what a candidate release would have earned in the lists that the service has shown.

Reads answers and what followed from the store; makes, for each answer that chance was at work in, the list of the
candidate for the same user at the same time, without chance. The reward of a list is the number of its items that were
then chosen (a positive event that names the answer, within `feedback.window`).

What is as it was then: the user's history (what the store holds for the release that answered, and of the events told
since those before the answer), the moment, the length of the list, and chance in the list of the release that answered
(by request id). What is not: items and rules are as they are now, an event that was told late counts from its own time
on, and of a user's events since the promotion the newest 2,000 are read. The call's own history, filters, exclusions
and diversity are not logged. So it is told how many answers the release that answered makes again, item by item, from
what is known here: the candidate's lists are about as exact. Propensities of `thompson` are counted in `draws` lists:
an item that stands at a rank less often than about 3 in `draws` is underrated there.

Left out, and counted: answers to nobody by name, in shadow, without chance, of a release that is gone, and those from
before the newest event that the candidate was fitted on, since it may have learnt from what followed. Answers whose
window is not over are not looked at.
"""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np

from recops.bundle import bundle_id, read_pointer, release_folder
from recops.errors import CallError
from recops.evaluation.off_policy import (
    HOW,
    NO_ITEM,
    Candidate,
    LoggedLists,
    expected_by_rank_and_item,
)
from recops.evaluation.off_policy import off_policy as estimate
from recops.evaluation.position_bias import examination
from recops.release.releases import find_release
from recops.serving.live import Kinds, combined
from recops.serving.local import as_served, bundle_as_served
from recops.serving.release import Release, epoch_us
from recops.serving.requests import Recommend
from recops.serving.retrieval import List, Stored, lists
from recops.serving.ruleset import Rules, read_rules
from recops.serving.traffic.arms import DEFAULT, REPORT, Traffic
from recops.stages.project import Project
from recops.store import Known, Store, open_store

DAY_US = 86_400_000_000
HERE = "candidate"  # the bundle of this folder
AT_ONCE = 64  # answers

NOBODY = "named no user"
NOT_SHOWN = "of a variant that nobody is shown now"
NO_CHANCE = "made without exploration"
TOO_EARLY = "from before the candidate's newest event"
GONE = "of a release that is not kept"


class Shown(NamedTuple):
    """An answer: when (µs), to whom, what (item ids by rank), how probable, and which of it was then chosen."""

    request_id: str
    at: int
    user_id: str
    release: str
    item_ids: list[str]
    propensities: list[float]
    chosen: frozenset[str]


class Remade(NamedTuple):
    """Of one answer: the candidate's item ids, which of them could have been shown where (None: not known), and whether
    the release that answered gives the same list again."""

    listed: list[str]
    covered: list[bool] | None
    is_again: bool


def off_policy(
    project: Project, candidate: str = HERE, days: float = 30.0, *, now: int, clip: float | None = None
) -> dict[str, Any]:
    """Of `candidate`, a kept release or `candidate`, the bundle here, on the answers of the last `days` before `now`
    (µs): the fields of `evaluation.off_policy.OffPolicy`, `candidate`, `left_out` by reason, `made_again` (share), and
    `examination` by rank (empty where that cannot be told).

    Raises CallError where the log cannot tell it, saying why, for an unknown release, and before the first promotion.
    """
    pointer = read_pointer(project.releases)
    if pointer is None:
        raise CallError(f"{project.releases}: nothing is released yet; run: recops run")
    rules = read_rules(project.rules_file)
    with closing(open_store(project.store_url)) as store:
        judged = _candidate(project, candidate, store)
        window = project.params.feedback.window_us
        answers, left_out = _answers(project, store, judged, now - round(days * DAY_US), now - window, window)
        if not answers:
            reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none was logged"
            why = f"; {HOW}" if left_out[NO_CHANCE] or not left_out else ""
            raise CallError(
                f"no answer of the last {days:g} days tells anything, those of the last feedback.window "
                f"({window / DAY_US:g}) aside, which may still have an outcome: {reasons}{why}"
            )
        remade = [
            one
            for release, some in _by_release(answers)
            for one in _remade(project, store, release, judged, some, rules)
        ]
    logged, policy, item_IK, listed_IK = _arrays(answers, remade)
    found = estimate(logged, policy, expected_by_rank_and_item(logged, item_IK, listed_IK), clip)
    try:
        looked_at = [asdict(one) for one in examination(logged)]
    except CallError:
        looked_at = []
    return {
        **asdict(found),
        "candidate": judged.id,
        "left_out": dict(left_out),
        "made_again": sum(one.is_again for one in remade) / len(remade),
        "examination": looked_at,
    }


def _candidate(project: Project, candidate: str, store: Store) -> Release:
    if candidate != HERE:
        return as_served(project.releases, find_release(candidate, project.releases), store, project.source_folder)[0]
    if not project.bundle.is_dir():
        raise CallError(f"{project.bundle}: no bundle here; run: recops run, or name a release")
    return bundle_as_served(project.bundle, bundle_id(project.bundle), store, project.source_folder)[0]


def _answers(
    project: Project, store: Store, judged: Release, since: int, until: int, window: int
) -> tuple[list[Shown], Counter[str]]:
    """Those that tell something, by release and time, and how many of the others there are, by reason."""
    manifest = judged.bundle.manifest
    fitted_until = manifest.get("fitted_until") or manifest.get("data_watermark")
    newest = -math.inf if fitted_until is None else epoch_us(fitted_until)
    arms = Traffic.read(store.report(REPORT)).arms
    shown_to_somebody = {DEFAULT, *(arm.name for arm in arms if arm.mode != "shadow")}
    kinds, kept = Kinds.of(manifest), {}
    left_out: Counter[str] = Counter()
    found = []
    for answer, events in store.answers_with_events(since, max(since, until), window):
        release, at = answer["release"], epoch_us(answer["time"])
        if release not in kept:
            kept[release] = (
                release_folder(project.releases, release).is_dir() and store.num_histories(release) is not None
            )
        items = sorted(answer["items"], key=lambda item: item["rank"])
        propensities = [item.get("propensity", 1.0) for item in items]
        reasons = {
            NOBODY: answer["user_id"] is None,
            NOT_SHOWN: answer["variant"] not in shown_to_somebody,
            NO_CHANCE: all(propensity == 1 for propensity in propensities),
            TOO_EARLY: at <= newest,
            GONE: not kept[release],
        }
        if reason := next((name for name, holds in reasons.items() if holds), None):
            left_out[reason] += 1
            continue
        item_ids = [item["item_id"] for item in items]
        chosen = frozenset(e.item_id for e in events if kinds.is_positive(e.event, e.value))
        found.append(Shown(answer["request_id"], at, answer["user_id"], release, item_ids, propensities, chosen))
    return sorted(found, key=lambda one: (one.release, one.at, one.request_id)), left_out


def _by_release(answers: list[Shown]) -> Iterator[tuple[str, list[Shown]]]:
    for release in dict.fromkeys(one.release for one in answers):
        yield release, [one for one in answers if one.release == release]


def _remade(
    project: Project, store: Store, release: str, judged: Release, answers: list[Shown], rules: Rules
) -> Iterator[Remade]:
    """In turn, for the answers of one release."""
    answered, _ = as_served(project.releases, release, store, project.source_folder)
    kinds = Kinds.of(answered.bundle.manifest)
    uses_time = answered.uses_time or judged.uses_time
    for start in range(0, len(answers), AT_ONCE):
        some = answers[start : start + AT_ONCE]
        asked = [
            (
                Recommend.model_construct(user_id=one.user_id, k=len(one.item_ids)),
                stored_then(store.known(release, one.user_id, with_times=True), kinds, one.at, uses_time),
            )
            for one in some
        ]
        moments = [one.at for one in some]
        again = lists(answered, asked, rules, [one.request_id for one in some], moments)
        wanted = lists(judged, asked, rules, None, moments)
        for one, own, other in zip(some, again, wanted, strict=True):
            listed = _ids(judged, other)
            yield Remade(listed, _covered(answered, own, one, listed), _ids(answered, own) == one.item_ids)


def stored_then(known: Known | None, kinds: Kinds, at: int, uses_time: bool) -> Stored | None:
    """What was held of a user before `at` (µs); None of somebody of whom nothing was."""
    if known is None:
        return None
    item_ids, times = known.item_ids, known.times
    if times is not None:
        before = [place for place, time in enumerate(times) if time < at]
        item_ids, times = [item_ids[place] for place in before], [times[place] for place in before]
    events = [event for event in known.events if event.timestamp < at]
    if not (item_ids or events or known.refused):
        return None
    return combined(replace(known, item_ids=item_ids, times=times, events=events), kinds, uses_time)


def _ids(release: Release, found: List) -> list[str]:
    return [release.ids[row - 1] for row in found.rows.tolist()]


def _covered(answered: Release, own: List, shown: Shown, listed: list[str]) -> list[bool] | None:
    """At a rank that is not left to chance, only what stood there."""
    if own.drew_from is None:
        return None
    drawn = {answered.ids[row - 1] for row in own.drew_from.tolist()}
    return [
        item_id == stood or (propensity < 1 and item_id in drawn)
        for item_id, stood, propensity in zip(listed, shown.item_ids, shown.propensities, strict=False)
    ]


def _arrays(answers: list[Shown], remade: list[Remade]) -> tuple[LoggedLists, Candidate, np.ndarray, np.ndarray]:
    """The log, the candidate, and the items of both, int [I, K]."""
    shape = len(answers), max(len(one.item_ids) for one in answers)
    reward, propensity = np.zeros(shape), np.ones(shape)
    target, mass, covered = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    item_IK, listed_IK = np.full(shape, NO_ITEM), np.full(shape, NO_ITEM)
    numbers: dict[str, int] = {}
    users: dict[str, int] = {}
    for row, (one, other) in enumerate(zip(answers, remade, strict=True)):
        num, num_listed = len(one.item_ids), len(other.listed)
        propensity[row, :num] = one.propensities
        reward[row, :num] = [item_id in one.chosen for item_id in one.item_ids]
        item_IK[row, :num] = [numbers.setdefault(item_id, len(numbers)) for item_id in one.item_ids]
        listed_IK[row, :num_listed] = [numbers.setdefault(item_id, len(numbers)) for item_id in other.listed]
        mass[row, :num_listed] = 1
        covered[row, :num_listed] = other.covered or 0
        users.setdefault(one.user_id, len(users))
    target[:] = (item_IK == listed_IK) & (item_IK != NO_ITEM)
    logged = LoggedLists(np.array([users[one.user_id] for one in answers]), reward, propensity, item_IK != NO_ITEM)
    is_known = all(other.covered is not None for other in remade)
    return logged, Candidate(target, mass, covered if is_known else None), item_IK, listed_IK
