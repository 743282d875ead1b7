"""After the DVC stages: the gate judges the bundle against the champion, and a passing one is promoted.

Not a DVC stage: what is served is never an output that DVC may delete.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import polars as pl

from recops.bundle import (
    Pointer,
    bundle_id,
    canonical_json,
    read_manifest,
    read_pointer,
    release_folder,
    write_atomically,
)
from recops.data.dislikes import refused_pairs, without_turned_down
from recops.data.feedback import Feedback
from recops.data.split import with_signal
from recops.errors import CallError
from recops.release import gate, releases
from recops.stages import audit, git, lineage, pipeline, quarantine, quarantine_list
from recops.stages.feedback import check_erased, name_of
from recops.stages.package import git_commit
from recops.stages.project import Project
from recops.store import Store, open_store, refused_in


def histories(project: Project) -> Iterator[tuple[str, list[str], list[int] | None]]:
    """Per user of the log: item ids of the positives, oldest first, and their times in µs (None: no times)."""
    path = project.tables / "events.parquet"
    events = pl.read_parquet(path, columns=["user_id", "item_id", "timestamp", "event", "value"])
    kinds = project.params.kinds
    events = without_turned_down(with_signal(events, kinds, path), kinds, is_past=True)
    events = events.filter(pl.col("signal") == "positive")
    timed = events["timestamp"].null_count() == 0
    lists = events.group_by("user_id", maintain_order=True).agg("item_id", pl.col("timestamp").cast(pl.Int64))
    for user_id, item_ids, times in lists.iter_rows():
        yield user_id, item_ids, times if timed else None


def refused(project: Project) -> Iterator[tuple[str, list[str], None]]:
    """Per user: ids of the items that are not to be recommended to that user (turned down, or the user's own)."""
    events = pl.read_parquet(
        project.tables / "events.parquet", columns=["user_id", "item_id", "timestamp", "event", "value"]
    )
    params = project.params
    pairs = refused_pairs(events, events, params.kinds, params.split.pairs == "undirected")
    for user_id, item_ids in pairs.group_by("user_id", maintain_order=True).agg("item_id").iter_rows():
        yield user_id, item_ids, None


def events_until(project: Project, store: Store) -> int:
    """The place of the last event of the store that the tables hold; 0 where they hold none of this store."""
    counts = json.loads((project.tables / "counts.json").read_text(encoding="utf-8"))
    return counts["events_until"] if counts.get("store") == name_of(store) else 0


def move_in(project: Project, url: str) -> list[str]:
    """Puts the histories of the log into a store that never had any of the served release or the one before, as one
    that has only just been named. Returns those of the two that still have none, since `data/tables` is not here.

    Raises CallError where the store does not know the users who were erased.
    """
    pointer = read_pointer(project.releases)
    with closing(open_store(url)) as store:
        served = () if pointer is None else (pointer.release, *pointer.history[-1:])
        without = [release for release in served if store.num_histories(release) is None]
        if not without or not (project.tables / "events.parquet").exists():
            return without
        check_erased(project, Feedback.read(project.feedback), len(store.erasures()))
        for release in without:
            store.put_histories(refused_in(release), refused(project))
            store.put_histories(release, histories(project), events_until(project, store))
    return []


def refresh_accepted(project: Project) -> None:
    """Makes the profile of the served release's data the one that new data is judged against; where that release is in
    quarantine, of the last before it that is not.

    Called between ingest and validate. While the data is the served release's own nothing changes, so that a run
    with nothing new has nothing to do. Raises RefusedError for data in quarantine.
    """
    quarantine.refuse_data(project)
    pointer = read_pointer(project.releases)
    if pointer is None:
        return
    served = (pointer.release, *quarantine_list.served_before(project))
    good = next((release for release in served if quarantine_list.of_release(project, release) is None), None)
    if good is None:
        write_atomically(project.accepted, canonical_json({}))
        return
    record = releases.read_record(project.releases, good)
    if record["events_hash"] != pipeline.events_hash(project):
        text = canonical_json({"profile": record["profile"]})
        if text != project.accepted.read_text(encoding="utf-8"):
            write_atomically(project.accepted, text)


def decide(project: Project) -> dict[str, Any]:
    """Judges bundle/ against the champion and writes .recops/decision.json: verdict, reasons, figures, champion."""
    candidate = bundle_id(project.bundle)
    pointer = read_pointer(project.releases)
    champion = pointer.release if pointer else None
    if candidate == champion:
        decision: dict[str, Any] = {"verdict": "served", "reasons": ["this very bundle is what is served"]}
    else:
        from recops.stages.judge import IncomparableError, judge_both

        try:
            judged, opponent = judge_both(project, champion)
            decision = gate.decide(judged, opponent, project.params.gate).to_json()
        except IncomparableError as error:
            decision = gate.Decision("undecided", [str(error)], {}).to_json()
    decision |= {"candidate": candidate, "champion": champion}
    write_atomically(project.state / "decision.json", canonical_json(decision))
    if decision["verdict"] != "served":
        audit.log(project, "gate", {**decision, "by": "gate"})
    if decision["verdict"] in ("keep", "undecided"):
        from recops.stages import alerts

        alerts.not_promoted(project, decision)
    return decision


def promote(
    project: Project, *, expected: str | None, now: str, run: dict[str, Any], by: str = "gate", why: str = ""
) -> str:
    """Promotes bundle/ if the champion is still `expected`; returns the release. `run` are facts of the run; `by` and
    `why` go to the audit log.

    A project's settings and dvc.lock are committed first, so that the release names the commit that holds them.
    """
    with closing(open_store(project.store_url)) as store:
        parts = _parts(project, store, run)
        release = releases.promote(project.bundle, project.releases, store, parts, expected=expected, now=now)
    if release != expected:
        facts = {"release": release, "from": expected, "by": by, "why": why, "run": run}
        audit.log(project, "promoted", {**facts, "data": parts.record["events_hash"], "commit": parts.record["commit"]})
    return release


def keep(project: Project, run: dict[str, Any]) -> str:
    """Makes bundle/ a release beside the one that is served, so that it can challenge it; returns the release."""
    with closing(open_store(project.store_url)) as store:
        return releases.keep(project.bundle, project.releases, store, _parts(project, store, run))


def _parts(project: Project, store: Store, run: dict[str, Any]) -> releases.Parts:
    quarantine.refuse_bundle(project)
    git.commit(project, f"Release {bundle_id(project.bundle)[:12]}")
    record = {
        "commit": git_commit(project),
        "dvc_lock": pipeline.lock_text(project),
        "params": project.params_file.read_text(encoding="utf-8"),
        "events_hash": pipeline.events_hash(project),
        "feedback": lineage.counted(vars(Feedback.read(project.feedback))),
        "profile": json.loads((project.reports / "validation.json").read_text(encoding="utf-8"))["profile"],
        "package": json.loads((project.reports / "package.json").read_text(encoding="utf-8")),
        "run": run,
    }
    return releases.Parts(histories(project), record, refused(project), events_until(project, store))


def promote_by_hand(project: Project, release: str, now: str, by: str, why: str = "", force: bool = False) -> str:
    """Serves `candidate` (the bundle here) or a kept release, whatever the gate said. `by` whom and `why`: for the
    audit log. Raises RefusedError for what was made from data in quarantine, a kept release only without `force`."""
    pointer = read_pointer(project.releases)
    expected = pointer.release if pointer else None
    if release == "candidate":
        return promote(project, expected=expected, now=now, run={"by": "hand"}, by=by, why=why)
    if not force:
        quarantine_list.refuse_release(project, releases.find_release(release, project.releases))
    served = releases.point_to(project.releases, release, expected=expected).release
    if served != expected:
        audit.log(project, "promoted", {"release": served, "from": expected, "by": by, "why": why, "forced": force})
    return served


def outcome(project: Project) -> dict[str, Any] | None:
    """What the last run came to, for the table of results; None when the bundle here was not judged yet."""
    decision_file, package = project.state / "decision.json", project.reports / "package.json"
    if not (decision_file.exists() and package.exists() and project.bundle.exists()):
        return None
    decision = json.loads(decision_file.read_text(encoding="utf-8"))
    pointer = read_pointer(project.releases)
    if decision["candidate"] != bundle_id(project.bundle) or not is_settled(decision, pointer):
        return None
    metrics = json.loads((project.reports / "metrics.json").read_text(encoding="utf-8"))
    users = pl.scan_parquet(project.split / "train.parquet").select("user_id").head(1).collect()
    return {
        "metrics": metrics,
        "gate": f"{decision['verdict']}: {'; '.join(decision['reasons'])}",
        "release": pointer.release if pointer else None,
        "bento": json.loads(package.read_text(encoding="utf-8"))["tag"],
        "example_user": users["user_id"][0],
    }


def is_settled(decision: dict[str, Any], pointer: Pointer | None) -> bool:
    """Whether a decision was carried out: a promoted candidate was served at some time, or is on its way by canary; the
    others need nothing."""
    if decision["verdict"] not in ("promote", "served") or decision.get("is_rolled_out"):
        return True
    return pointer is not None and decision["candidate"] in (pointer.release, *pointer.history, pointer.rolled_back)


def served_manifest(project: Project) -> dict[str, Any]:
    """The manifest of what is served. Raises CallError before the first promotion."""
    pointer = read_pointer(project.releases)
    if pointer is None:
        raise CallError(f"{project.releases}: nothing is released yet; run: recops run")
    return read_manifest(release_folder(project.releases, pointer.release))
