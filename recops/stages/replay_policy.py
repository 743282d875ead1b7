"""One policy of a replay: its own project, asked each morning and told each evening, and trained when the policy says.

In: a project that was started on what came before the first day. Out: figures of each morning, and what the loop did
each night, as JSON beside per-user values. Every step is written down when it is done, and a call after a kill goes on
with the first that is not. Store, validation, drift, gate, promotion and the runtime are those of the product.
"""

import io
import json
import os
from collections.abc import Callable, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recops.bundle import bundle_id, canonical_json, read_manifest, read_pointer, release_folder, write_atomically
from recops.errors import RecopsError
from recops.evaluation.bootstrap import mean_intervals, paired_bootstrap
from recops.evaluation.metrics.hit_rate import HitRate
from recops.evaluation.metrics.ndcg import Ndcg
from recops.evaluation.protocol import ranked_lists
from recops.release.releases import read_record
from recops.serving.endpoints.events import columns
from recops.serving.local import as_served
from recops.serving.operation import json_bytes
from recops.serving.problems import Problem
from recops.serving.requests import Events, Recommend, parse
from recops.serving.retrieval import lists
from recops.serving.state import stored_of
from recops.stages import drift as drift_stage
from recops.stages import feedback, pipeline, promote
from recops.stages import retrain as retrain_stage
from recops.stages.project import Project
from recops.stages.replay_faults import Fault, rows_of
from recops.stages.replay_log import Asked, ReplayLog, write_items
from recops.store import Store, open_store

POLICIES = ("never", "nightly", "weekly", "drift")
STAGES = ("ingest", "validate", "split", "encode", "train", "evaluate", "export")
METRICS = ("ndcg@10", "hit_rate@10")
K = 10
ASKED_AT_ONCE = 256
TOLD_AT_ONCE = 1000  # events of one call of /events
SAMPLES = 1000


@dataclass(frozen=True)
class Played:
    """A policy at work in `project` on `log`, from day `first` to day `last`; `users` are asked for a day."""

    policy: str
    project: Project
    log: ReplayLog
    first: int
    last: int
    users: int
    seed: int
    faults: tuple[Fault, ...]

    @property
    def folder(self) -> Path:
        return self.project.root / "replay"

    def play(self, day: int) -> dict[str, Any]:
        """The morning and the night of a day."""
        found = {"day": day, "date": self.log.morning(day).date().isoformat()}
        found["morning"] = self._once(day, "morning", lambda: self._morning(day))
        if day < self.last:  # what is learnt in the last night nobody sees
            found["night"] = self._night(day)
        return found

    def values(self, day: int) -> pl.DataFrame:
        """user_id and the value of each metric, of those asked on a day that was played."""
        return pl.read_parquet(self.folder / f"{day:04}-users.parquet")

    def _once(self, day: int, step: str, make: Callable[[], Any]) -> Any:
        """What a step came to: made now, or read where an earlier call made it."""
        path = self.folder / f"{day:04}-{step}.json"
        if not path.exists():
            self.folder.mkdir(exist_ok=True)
            write_atomically(path, canonical_json(make()))
        return json.loads(path.read_text(encoding="utf-8"))

    # The morning

    def _morning(self, day: int) -> dict[str, Any]:
        asked = self.log.asked(day, self.users, self.seed, self.project.params.recommend.remove_seen)
        release = served(self.project)
        values_UM, sources = self._judged(release, asked, day)
        frame = pl.DataFrame({"user_id": asked.users, **dict(zip(METRICS, values_UM.T, strict=True))})
        frame.write_parquet(self.folder / f"{day:04}-users.parquet")
        found = {
            "release": release,
            "trained_until": read_manifest(release_folder(self.project.releases, release))["data_watermark"],
            "users": len(asked.users),
            "new_share": round(asked.new_share, 4),
            "sources": sources,
            "metrics": intervals(values_UM, self.seed),
        }
        good = self._last_good(day)
        if good is not None and good != release:
            theirs_UM, _ = self._judged(good, asked, day)
            pairs = zip(METRICS, values_UM.T, theirs_UM.T, strict=True)
            differences = {name: paired_bootstrap(a, b, SAMPLES, self.seed) for name, a, b in pairs}
            found["last_good"] = {"release": good, "difference": {name: list(d) for name, d in differences.items()}}
        return found

    def _last_good(self, day: int) -> str | None:
        """What was served before the latest planted fault; None before any."""
        planted = [fault.day for fault in self.faults if fault.day < day]
        if not planted:
            return None
        path = self.folder / f"{max(planted):04}-morning.json"
        return json.loads(path.read_text(encoding="utf-8"))["release"] if path.exists() else None

    def _judged(self, release_id: str, asked: Asked, day: int) -> tuple[np.ndarray, dict[str, int]]:
        """float64 [U, M]: each metric of the list that each user gets that morning; and what lists were made from."""
        moment = int(self.log.morning(day).timestamp() * 1_000_000)
        found_UK = np.zeros((len(asked.users), K), np.int32)
        sources: dict[str, int] = {}
        with closing(open_store(self.project.store_url)) as store:
            release, _ = as_served(self.project.releases, release_id, store, None)
            for start in range(0, len(asked.users), ASKED_AT_ONCE):
                some = asked.users[start : start + ASKED_AT_ONCE]
                calls = [Recommend.model_construct(user_id=user, k=K) for user in some]
                requests = list(zip(calls, stored_of(store, release, some), strict=True))
                for row, one in enumerate(lists(release, requests, moments=[moment] * len(some)), start):
                    found_UK[row, : len(one.rows)] = one.rows
                    sources[one.someone.source] = sources.get(one.someone.source, 0) + 1
        targets = [[release.row_of.get(item, 0) for item in items] for items in asked.targets]  # 0: not known to it
        ranked = ranked_lists(found_UK, targets, item_counts=np.zeros(len(release.ids) + 1, np.int64))
        return np.stack([metric().compute(ranked, K) for metric in (Ndcg, HitRate)], axis=1), sources

    # The night

    def _night(self, day: int) -> dict[str, Any]:
        with closing(open_store(self.project.store_url)) as store:
            place = self._once(day, "place", store.last_place)
            told = self._once(day, "told", lambda: self._tell(store, day, place))
        due = self._once(day, "due", lambda: self._due(day, told["stored"]))
        found = {"told": told, "due": due}
        if due["retrain"]:
            judged = self._once(day, "judged", lambda: self._train(day))
            if judged["verdict"] == "promote":
                judged["cpu_s"] += self._once(day, "promoted", lambda: self._promote(day, judged))["cpu_s"]
            found["judged"] = judged
        return found

    def _tell(self, store: Store, day: int, place: int) -> dict[str, Any]:
        """Posts the events of the day: parsed as POST /events parses them, and put into the store."""
        frame = self.log.of(day)
        planted = [fault for fault in self.faults if fault.day == day]
        rows = planted[0].apply(frame, self.seed) if planted else rows_of(frame)
        refused, reason = 0, ""
        for start in range(0, len(rows), TOLD_AT_ONCE):
            some = rows[start : start + TOLD_AT_ONCE]
            try:
                call = parse(Events, json_bytes({"events": some}))
            except Problem as problem:
                refused, reason = refused + len(some), f"{problem.field}: {problem.message}"
                continue
            # As if told at once: a clock of today in the tables would make every replay another release.
            store.put_events([{**columns(event), "received_at": event.timestamp} for event in call.events])
        stored = sum(1 for _ in store.events(place))
        told = {"events": len(rows), "stored": stored, "refused": refused, "repeated": len(rows) - refused - stored}
        return {**told, "reason": reason, "fault": planted[0].kind if planted else None}

    def _due(self, day: int, num_new: int) -> dict[str, Any]:
        """Whether the policy trains this night, and why: never where nothing is new, as DVC then finds nothing to do.
        Drift is looked at where it decides, or where a fault is planted."""
        due = {
            "never": (False, "never"),
            "nightly": (True, "every night"),
            "weekly": ((day - self.first + 1) % 7 == 0, "every seventh night"),
            "drift": (False, ""),
        }
        retrain, reason = due[self.policy]
        found = {"retrain": retrain, "reason": reason, "drift": None, "cpu_s": 0.0}
        if self.policy == "drift" or self.faults:
            started = cpu_seconds()
            found["drift"] = self._watch(day)
            if self.policy == "drift":
                now = self.log.morning(day + 1)
                decision = retrain_stage.decide(self.project, now)
                found["retrain"], found["reason"] = decision.is_wanted, decision.reason
                if decision.is_wanted and num_new:
                    retrain_stage.remember(self.project, now, decision)
                    retrain_stage.end(self.project, now, "replayed")
            found["cpu_s"] = cpu_seconds() - started
        return {**found, "retrain": False, "reason": "nothing new"} if num_new == 0 else found

    def _watch(self, day: int) -> dict[str, Any]:
        """The drift verdict on the day; where that cannot be made, why."""
        try:
            with self._quietly(day):
                self._sealed(day)
                pipeline.run_stage(self.project, "ingest")
                since, until = (self.log.morning(d).isoformat() for d in (day, day + 1))
                verdict = drift_stage.drift(self.project, since, until)
        except RecopsError as error:
            return {"verdict": "no verdict", "features": [], "reason": str(error)}
        return {key: verdict[key] for key in ("verdict", "features", "reason")}

    def _sealed(self, day: int) -> None:
        feedback.seal(self.project)
        write_items(self.log, day + 1, self.project.root / self.project.params.source.path)  # type: ignore[operator]

    def _train(self, day: int) -> dict[str, Any]:
        started = cpu_seconds()
        with self._quietly(day):
            self._sealed(day)
            judged = train_and_judge(self.project)
        return {**judged, "cpu_s": cpu_seconds() - started}

    def _promote(self, day: int, judged: dict[str, Any]) -> dict[str, float]:
        started = cpu_seconds()
        if served(self.project) != judged["candidate"]:  # a kill may have come right after it
            now = self.log.morning(day + 1).isoformat()
            promote_bundle(self.project, judged["champion"], now)
        return {"cpu_s": cpu_seconds() - started}

    def _quietly(self, day: int) -> "Quiet":
        return Quiet(self.folder / f"{day:04}.log")


class Quiet:
    """What stages print goes to a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.text = path, io.StringIO()

    def __enter__(self) -> None:
        self.both = redirect_stdout(self.text), redirect_stderr(self.text)
        for one in self.both:
            one.__enter__()

    def __exit__(self, *error: Any) -> None:
        for one in reversed(self.both):
            one.__exit__(*error)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self.text.getvalue())


def train_and_judge(project: Project) -> dict[str, Any]:
    """The stages from ingest to export and the gate, in this process. A refusal is a verdict as well. `stopped` and
    `warned` are the rules of validation that failed, by name, with what was found."""
    stage = "ingest"
    rules: dict[str, dict[str, str]] = {"stopped": {}, "warned": {}}
    try:
        for stage in STAGES:
            try:
                pipeline.run_stage(project, stage)
            finally:
                if stage == "validate":
                    rules = failed_rules(project)
        stage = "gate"
        decision = promote.decide(project)
    except RecopsError as error:
        return {"verdict": "refused", "stage": stage, "reasons": [str(error)], **rules}
    kept = {key: decision[key] for key in ("verdict", "reasons", "candidate", "champion")}
    return {**kept, "stage": stage, "model": read_manifest(project.bundle)["model"], **rules}


def failed_rules(project: Project) -> dict[str, dict[str, str]]:
    """What was found, by table and rule, of the rules that the last validation said `stopped` and `warned`."""
    report = json.loads((project.reports / "validation.json").read_text(encoding="utf-8"))
    return {
        outcome: {f"{rule['table']}: {rule['rule']}": str(rule["observed"]) for rule in report[outcome]}
        for outcome in ("stopped", "warned")
    }


def promote_bundle(project: Project, expected: str | None, now: str) -> None:
    """Serves bundle/, whose data is what new data is judged against from then on. A replay builds no Bento."""
    package = {"tag": None, "release": bundle_id(project.bundle)}
    write_atomically(project.reports / "package.json", canonical_json(package))
    release = promote.promote(project, expected=expected, now=now, run={"by": "replay"})
    profile = read_record(project.releases, release)["profile"]
    write_atomically(project.accepted, canonical_json({"profile": profile}))


def served(project: Project) -> str:
    pointer = read_pointer(project.releases)
    assert pointer is not None, "a replay starts with a release"
    return pointer.release


def intervals(values_UM: np.ndarray, seed: int) -> dict[str, list[float | None]]:
    """By metric the mean and its 95 % interval over users; None where nobody was asked."""
    found = mean_intervals(values_UM, SAMPLES, seed)[:, :3]
    rows: Sequence[list[float]] = found.tolist()
    return {name: [None if np.isnan(v) else v for v in row] for name, row in zip(METRICS, rows, strict=True)}


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
