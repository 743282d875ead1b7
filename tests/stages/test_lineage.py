"""An answer, a release and a user are traced to what they came from, and a data version to what it reached."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from recops.bundle import release_folder
from recops.errors import CallError
from recops.release import releases
from recops.stages import audit, lineage
from recops.stages.project import Project, open_project
from recops.store import open_store
from tests.stages.kept_releases import LOCK, answered, kept


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "params.yaml").touch()
    return open_project(tmp_path)


def test_a_request_is_traced_to_its_source_files(project: Project) -> None:
    release = kept(project, 1, "tab1e001.dir")
    answered(project, "q1", "u1", release, "canary")
    audit.log(project, "promoted", {"release": release, "from": None, "by": "me", "why": "first"})
    audit.log(project, "promoted", {"release": "another", "by": "me"})
    found = lineage.trace(project, "q1")
    assert (found["kind"], found["release"], found["answer"]["variant"]) == ("request", release, "canary")
    assert [entry["facts"]["why"] for entry in found["decisions"]] == ["first"]
    chain = found["chain"]
    assert chain["bundle"]["altered"] is None and chain["data"] == "tab1e001.dir" and not chain["commit_is_here"]
    assert chain["validation"] == {"ok": True, "stopped": 0, "warned": 1, "skipped": 0}
    assert [(v["kind"], v["name"], v["hash"]) for v in chain["versions"]] == [
        ("tables", "data/tables", "tab1e001.dir"),
        ("table", "data/tables/events.parquet", "e5e5e501"),
        ("source", "/logs/events.csv", "5ce00001"),
        ("feedback", "data/feedback/1.parquet", "feedbac1"),
    ]
    rows = dict(reversed(lineage.trace_rows(found)))
    assert rows["request"] == "q1 at 2026-01-01T00:00:00.000000+00:00, user u1"
    assert rows["decided"].endswith("promoted: why first; release " + release[:12])
    assert rows["training run"] == "flow_run_name calm-otter" and rows["source file"] == "/logs/events.csv 5ce00001"
    assert rows["validation"] == "passed: 0 stopped, 1 warned, 0 skipped"
    assert rows["git commit"] == "c0ffee (not in this repository)"


def test_a_release_that_was_altered_or_is_gone_is_told(project: Project) -> None:
    release = kept(project, 1, "tab1e001.dir")
    answered(project, "q1", None, release)
    (release_folder(project.releases, release) / "items.json").write_text("else")
    found = lineage.trace(project, release[:8])
    assert found["kind"] == "release" and "altered" in found["chain"]["bundle"]["altered"]
    (release_folder(project.releases, release) / "manifest.json").unlink()
    audit.log(project, "collected", {"releases": [release], "by": "me"})
    found = lineage.trace(project, "q1")
    assert found["chain"] is None and found["gone"].startswith("collected 20")
    assert "not kept any more (collected" in lineage.trace_rows(found)[-1][1]
    shutil.rmtree(release_folder(project.releases, release))
    assert lineage.trace(project, release[:8])["gone"] == found["gone"]
    with pytest.raises(CallError, match="no release"):
        lineage.trace(project, release[:5])


def test_a_user_is_traced_and_never_taken_for_a_release(project: Project) -> None:
    release = kept(project, 1, "tab1e001.dir")
    short, user = release[:4], release[:7]  # ids that a release begins with
    with closing(open_store(project.store_url)) as store:
        store.put_histories(release, [(user, ["a", "b"], None), (short, ["a"], None)])
    answered(project, "q1", user, release)
    answered(project, "q1~x", user, release, "shadow:x")
    with pytest.raises(CallError, match="is a release and a user"):
        lineage.trace(project, user)
    assert lineage.trace(project, user, "release")["release"] == release
    assert lineage.trace(project, short)["kind"] == "user" and lineage.trace(project, release[:5])["kind"] == "release"
    found = lineage.trace(project, user, "user")
    assert [answer["request_id"] for answer in found["user"]["newest"]] == ["q1"]
    assert found["user"]["histories"] == {release: 2} and found["release"] is None
    assert lineage.trace_rows(found)[1] == ["held", f"0 events, 2 answers; length of the history by {release[:12]}: 2"]
    for what, kind, said in (("none", None, "no request"), ("none", "user", "no user"), ("q1", "way", "--kind")):
        with pytest.raises(CallError, match=said):
            lineage.trace(project, what, kind)


def test_impact_names_the_releases_a_data_version_reached(project: Project) -> None:
    one, two = kept(project, 1, "tab1e001.dir"), kept(project, 2, "tab1e002.dir")
    for request_id, user_id in (("q1", "u1"), ("q2", "u1"), ("q3", None)):
        answered(project, request_id, user_id, one)
    found = lineage.impact(project, "tab1e001")
    assert (found["version"], found["kind"]) == ("tab1e001.dir", "tables")
    assert [(r["release"], r["answers"], r["users"]) for r in found["releases"]] == [(one, 3, 1)]
    # The log was the same for both; each had a part of the feedback of its own.
    assert [r["release"] for r in lineage.impact(project, "5ce00001")["releases"]] == [two, one]
    assert [r["release"] for r in lineage.impact(project, "feedbac2")["releases"]] == [two]
    for prefix, said in (("tab1e0", "fits several"), ("tab", "at least 6"), ("ffffff", "no release was made")):
        with pytest.raises(CallError, match=said):
            lineage.impact(project, prefix)


def test_state_and_code_are_no_sources() -> None:
    assert [version.name for version in lineage.sources(LOCK)] == ["/logs/events.csv"]
    assert list(lineage.sources(None)) == []
    assert releases.metric_of({}) is None
