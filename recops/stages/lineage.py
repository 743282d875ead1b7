"""Where an answer, a release or what is held of a user came from, down to the source files; and back.

In: a project, its store and the records of its releases. Out: plain facts. Changes nothing.

A *data version* is a hash that stands in the record of a release: of all tables together (DVC's hash of `data/tables`,
ending in `.dir`), of one table, of a source file, or of a part of the feedback. The beginning of one is enough.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from recops.bundle import read_manifest, release_folder, verify
from recops.errors import BundleError, CallError
from recops.release import releases
from recops.serving.traffic.arms import REPORT
from recops.stages import audit, git
from recops.stages.project import Project
from recops.store import Store, open_store

KINDS = ("request", "release", "user")
ANSWERS_SHOWN = 10  # of a user, the newest
LEAST_PREFIX = 6  # letters of a data version, and of a release that is not kept or could be a user


class Version(NamedTuple):
    """A data version as one release's record names it: `kind` is `tables`, `table`, `source` or `feedback`."""

    hash: str
    kind: str
    name: str


def trace(project: Project, what: str, kind: str | None = None) -> dict[str, Any]:
    """Where a request id, a release (its id or the start of it) or a user's answers came from.

    Keys: `kind`; `answer` as logged, None but for a request; `user` None but for a user: `user_id`, how many `events`,
    `answers` and `histories` (by release) are held, and `newest` answers; `release` and its `chain` (None where it is
    not kept any more, with `gone` saying why), `manifest` and `record`. Raises CallError for what is nothing of them,
    or two of them.
    """
    decisions = audit.entries(project)
    with closing(open_store(project.store_url)) as store:
        found, release = _found(project, store, what, kind, decisions)
        if found == "user":
            held = {"user_id": what, **store.held_of(what)}
            newest = store.answers_of(what, ANSWERS_SHOWN)
            shown = [{key: answer[key] for key in ("request_id", "time", "release", "variant")} for answer in newest]
            return {"kind": found, "answer": None, "user": {**held, "newest": shown}, "release": None}
        answer = store.answer(what) if found == "request" else None
    traced: dict[str, Any] = {"kind": found, "answer": answer, "user": None, "release": release}
    of_release = [entry for entry in decisions if names_release(entry["facts"], release)]
    try:
        manifest = read_manifest(release_folder(project.releases, release))
        record = releases.read_record(project.releases, release)
    except BundleError as error:
        collected = [f"{e['what']} {e['time']}" for e in decisions if release in e["facts"].get("releases", ())]
        gone = "; ".join(collected) or str(error)
        return {**traced, "chain": None, "gone": gone, "decisions": of_release, "manifest": None, "record": None}
    chain = _chain(project, release, manifest, record)
    return {**traced, "chain": chain, "decisions": of_release, "manifest": manifest, "record": record}


def _found(
    project: Project, store: Store, what: str, kind: str | None, decisions: list[dict[str, Any]]
) -> tuple[str, str]:
    """What an id is of, and the release of it, empty for a user. A request before all else, since its id is made at
    random; a user before a release that only begins so with a few letters."""
    if kind not in (None, *KINDS):
        raise CallError(f"--kind {kind}: expected {', '.join(KINDS)}")
    if kind in (None, "request") and (answer := store.answer(what)) is not None:
        return "request", answer["release"]
    held = store.held_of(what)
    is_user = kind in (None, "user") and bool(held["events"] or held["answers"] or held["histories"])
    release = ""
    if kind in (None, "release") and not (is_user and len(what) < LEAST_PREFIX):
        try:
            release = _release(project, what, decisions)
        except CallError as error:
            if not is_user:
                begin = f"{what!r} is no request in the answer log and no user of whom anything is held, and "
                raise CallError(f"{begin if kind is None else ''}{error}") from None
    if release and is_user:
        raise CallError(f"{what!r} is a release and a user: say which by --kind release or --kind user")
    if not release and not is_user:
        raise CallError(f"{what!r} is no {kind} that is known here")
    return ("user", "") if is_user else ("release", release)


def _release(project: Project, prefix: str, decisions: list[dict[str, Any]]) -> str:
    """A release that is kept, or one that the audit log names. Raises CallError for neither."""
    try:
        return releases.find_release(prefix, project.releases)
    except CallError:
        about = [entry["facts"] for entry in decisions]
        named = {facts[key] for facts in about for key in ("release", "candidate", "from") if facts.get(key)}
        named |= {release for facts in about for release in facts.get("releases", ())}
        matching = [release for release in named if len(prefix) >= LEAST_PREFIX and release.startswith(prefix)]
        if len(matching) != 1:
            raise
        return matching[0]


def names_release(facts: dict[str, Any], release: str) -> bool:
    """Whether a decision was about a release."""
    return release in (facts.get("release"), facts.get("candidate"), facts.get("from"))


def _chain(project: Project, release: str, manifest: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    state = {entry["release"]: entry["state"] for entry in releases.list_releases(project.releases)}.get(release)
    altered = None
    try:
        verify(release_folder(project.releases, release))
    except BundleError as error:
        altered = str(error)
    validation = manifest.get("validation") or {}
    commit = record.get("commit")
    return {
        "state": state,
        "promoted_at": record.get("promoted_at"),
        "bundle": {"files": manifest["files"], "altered": altered},
        "run": record.get("run"),
        "model": manifest.get("model"),
        "metrics": {name: figure for name, figure in (manifest.get("metrics") or {}).get("metrics", {}).items()},
        "commit": commit,
        "commit_is_here": commit is not None and git.run_git(project, "cat-file", "-e", commit).returncode == 0,
        "data": record.get("events_hash"),
        "data_watermark": manifest.get("data_watermark"),
        "erasures": (manifest.get("erasures") or {}).get("honoured", 0),
        "validation": {
            "ok": validation.get("ok"),
            **{outcome: len(validation.get(outcome) or ()) for outcome in ("stopped", "warned", "skipped")},
        },
        "versions": [version._asdict() for version in versions(manifest, record)],
    }


def versions(manifest: dict[str, Any], record: dict[str, Any]) -> Iterator[Version]:
    """Every data version that a release was made from, from the tables to the sources."""
    if tables := record.get("events_hash"):
        yield Version(tables, "tables", "data/tables")
    for name, digest in (manifest.get("inputs") or {}).items():
        if name in TABLE_FILES:
            yield Version(digest, "table", f"data/tables/{name}")
    yield from sources(record.get("dvc_lock"))
    for part in record.get("feedback") or ():
        yield Version(part["sha256"], "feedback", f"data/feedback/{part['file']}")


TABLE_FILES = ("events.parquet", "items.parquet", "users.parquet", "rejected.parquet")


def sources(dvc_lock: str | None) -> Iterator[Version]:
    """The source files that ingest read, as dvc.lock knows them: those outside of the project's own state and code."""
    stages = (yaml.safe_load(dvc_lock) or {}).get("stages", {}) if dvc_lock else {}
    for dep in stages.get("ingest", {}).get("deps", ()):
        own = dep["path"].startswith(".recops/") or (dep["path"].startswith("recops/") and not _is_data(dep["path"]))
        if not own and "md5" in dep:
            yield Version(dep["md5"], "source", dep["path"])


def _is_data(path: str) -> bool:
    return Path(path).suffix not in ("", ".py")


def resolve(project: Project, prefix: str) -> tuple[Version, list[str]]:
    """The data version that begins so, and the kept releases that were made from it; none where only what lies here now
    was. Raises CallError for an unknown one, several, and a beginning of fewer than LEAST_PREFIX letters."""
    if len(prefix) < LEAST_PREFIX:
        raise CallError(f"data version {prefix!r}: write at least {LEAST_PREFIX} letters of it")
    found: dict[str, Version] = {}
    reached: dict[str, list[str]] = {}
    for entry in releases.list_releases(project.releases):
        for version in made_from(project, entry["release"]):
            if version.hash.startswith(prefix):
                found.setdefault(version.hash, version)
                if entry["release"] not in reached.setdefault(version.hash, []):
                    reached[version.hash].append(entry["release"])
    for version in present(project):
        if version.hash.startswith(prefix):
            found.setdefault(version.hash, version)
    if not found:
        raise CallError(
            f"no release was made from a data version {prefix!r}; `recops trace RELEASE` lists those of one"
        )
    if len(found) > 1:
        several = ", ".join(f"{v.hash[:12]} ({v.name})" for v in found.values())
        raise CallError(f"data version {prefix!r} fits several: {several}; write more of it")
    (version,) = found.values()
    return version, reached.get(version.hash, [])


def made_from(project: Project, release: str) -> list[Version]:
    """The data versions of a kept release; empty where neither manifest nor record can be read."""
    manifest: dict[str, Any] = {}
    record: dict[str, Any] = {}
    with suppress(BundleError):
        record = releases.read_record(project.releases, release)
        manifest = read_manifest(release_folder(project.releases, release))
    return list(versions(manifest, record))


def present(project: Project) -> list[Version]:
    """The data versions of what lies in the project now, released or not."""
    feedback = json.loads(project.feedback.read_text(encoding="utf-8")) if project.feedback.exists() else {}
    lock = project.root / "dvc.lock"
    text = lock.read_text(encoding="utf-8") if lock.exists() else None
    tables = (yaml.safe_load(text) or {}).get("stages", {}).get("ingest") if text else None
    record = {"events_hash": tables and tables["outs"][0]["md5"], "dvc_lock": text, "feedback": counted(feedback)}
    return list(versions({}, record))


def counted(feedback: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of the list of sealed feedback, the parts that are trained on: those that are not in quarantine."""
    return [dict(part) for part in feedback.get("parts", ()) if not part.get("quarantined")]


def impact(project: Project, prefix: str) -> dict[str, Any]:
    """What a data version reached: `version`, `kind`, `name`, and `releases`, last promoted first: `release`, `state`,
    `promoted_at`, `model`, `answers` and `users` that got any, and `challenger`, its name where it is one now."""
    version, reached = resolve(project, prefix)
    with closing(open_store(project.store_url)) as store:
        given = {release: store.answers_by(release) for release in reached}
        arms = {arm["release"]: arm["name"] for arm in (store.report(REPORT) or {}).get("arms", ())}
    entries = [entry for entry in releases.list_releases(project.releases) if entry["release"] in reached]
    return {
        "version": version.hash,
        "kind": version.kind,
        "name": version.name,
        "releases": [
            {
                **{key: entry[key] for key in ("release", "state", "promoted_at", "model")},
                "answers": given[entry["release"]][0],
                "users": given[entry["release"]][1],
                "challenger": arms.get(entry["release"]),
            }
            for entry in entries
        ],
    }


def trace_rows(found: dict[str, Any]) -> list[list[str]]:
    """What `trace` found as rows of two columns, from the answer down to the source files."""
    rows: list[list[str]] = []
    if (answer := found["answer"]) is not None:
        shown = ", ".join(item["item_id"] for item in answer["items"][:5])
        rows.append(["request", f"{answer['request_id']} at {answer['time']}, user {answer['user_id'] or 'not named'}"])
        rows.append(["answer", f"{len(answer['items'])} items ({shown}{', …' * (len(answer['items']) > 5)})"])
        rows.append(["variant", f"{answer['variant']}, source {answer['source']}"])
    if (user := found["user"]) is not None:
        held = ", ".join(f"{release[:12]}: {num}" for release, num in user["histories"].items())
        rows.append(["user", user["user_id"]])
        rows.append(["held", f"{user['events']} events, {user['answers']} answers; length of the history by {held}"])
        rows += [["answer", f"{a['request_id']} at {a['time']}, release {a['release'][:12]}"] for a in user["newest"]]
        return rows
    chain = found["chain"]
    if chain is None:
        return [*rows, ["release", f"{found['release']}: not kept any more ({found['gone']})"]]
    rows.append(["release", f"{found['release']} ({chain['state']}), promoted {chain['promoted_at'] or 'never'}"])
    rows += [
        ["decided", f"{entry['time']} {entry['what']}: {audit.summary(entry['facts'])}"] for entry in found["decisions"]
    ]
    whole = chain["bundle"]["altered"] or "each as its hash says"
    rows.append(["bundle", f"{len(chain['bundle']['files'])} files, {whole}"])
    run = chain["run"] or {}
    rows.append(["training run", ", ".join(f"{key} {value}" for key, value in run.items()) or "not recorded"])
    rows.append(["model", f"{chain['model']}, {_metric(found['manifest'])}"])
    rows.append(
        ["params", f"train: {found['manifest']['params'].get('train')}" if found["manifest"].get("params") else ""]
    )
    here = "" if chain["commit_is_here"] or chain["commit"] is None else " (not in this repository)"
    rows.append(["git commit", f"{chain['commit'] or 'none: no git'}{here}"])
    rows.append(["data version", f"{chain['data']}, up to {chain['data_watermark'] or 'no time'}"])
    verdict = chain["validation"]
    counts = ", ".join(f"{verdict[outcome]} {outcome}" for outcome in ("stopped", "warned", "skipped"))
    rows.append(["validation", f"{'passed' if verdict['ok'] else 'not recorded as passed'}: {counts}"])
    rows.append(["erasures", f"{chain['erasures']} honoured"])
    named = {"tables": "tables", "table": "table", "source": "source file", "feedback": "feedback part"}
    return rows + [[named[v["kind"]], f"{v['name']} {v['hash']}"] for v in chain["versions"]]


def _metric(manifest: dict[str, Any]) -> str:
    return releases.metric_of(manifest) or "no metric"
