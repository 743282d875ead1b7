"""Bad data is taken out of training, and what was made from it is not served again unless forced."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recops.bundle import Pointer, read_pointer, write_pointer
from recops.data.feedback import Feedback, relation, settle
from recops.errors import CallError, RefusedError
from recops.release import releases
from recops.serving.traffic import control
from recops.serving.traffic.arms import Arm
from recops.stages import audit, feedback, promote, quarantine, quarantine_list
from recops.stages.project import Project, open_project
from recops.stages.rollback import rollback
from recops.store import open_store
from tests.stages.kept_releases import LOCK, kept

NOW = "2026-02-01T00:00:00+00:00"
PUT = {"now": NOW, "by": "me", "why": "a crawler"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "params.yaml").touch()
    monkeypatch.setattr(releases, "load_bundle", lambda folder: None)
    return open_project(tmp_path)


def served(project: Project, *order: str) -> None:
    """Releases were promoted in this order."""
    write_pointer(project.releases, Pointer(order[-1], order[:-1]), expected=None)


def parts(*names: str) -> tuple[dict, ...]:
    return tuple({"file": f"{name}.parquet", "sha256": f"feedbac{name}", "rows": 1} for name in names)


def test_what_came_with_bad_tables_is_taken_out(project: Project) -> None:
    one, two = kept(project, 1, "tab1e001.dir"), kept(project, 2, "tab1e002.dir")
    Feedback(parts=parts("1", "2")).write(project.feedback)
    entry = quarantine.put(project, "tab1e002", **PUT)
    # The log was the same for both, so that it is not what was bad.
    assert entry.parts == ("2.parquet",) and set(entry.hashes) == {"tab1e002.dir", "e5e5e502", "feedbac2"}
    assert [part.get("quarantined", False) for part in Feedback.read(project.feedback).parts] == [False, True]
    assert quarantine_list.of_release(project, one) is None
    assert quarantine_list.of_release(project, two) == entry == quarantine_list.read(project)[0]
    assert [release["release"] for release in quarantine_list.reached(project)] == [two]
    (logged,) = audit.entries(project)
    assert (logged["what"], logged["facts"]["why"], logged["facts"]["releases"]) == ("quarantined", "a crawler", [two])
    with pytest.raises(CallError, match="in quarantine already"):
        quarantine.put(project, "tab1e002", **PUT)

    quarantine.lift(project, "tab1", "me", "was right")
    assert Feedback.read(project.feedback).parts == parts("1", "2") and quarantine_list.read(project) == []
    with pytest.raises(CallError, match="fits 0 of those in quarantine"):
        quarantine.lift(project, "tab1", "me", "")


def test_of_the_first_release_nothing_is_known_to_have_come_with_it(project: Project) -> None:
    kept(project, 1, "tab1e001.dir")
    assert set(quarantine.put(project, "tab1e001", **PUT).hashes) == {"tab1e001.dir", "e5e5e501"}


def test_a_bad_source_file_reaches_all_that_read_it_and_is_refused_while_it_is_there(project: Project) -> None:
    clean = LOCK.replace("5ce00001", "5ce00000")
    one, two, three = kept(project, 1, "tab1e001.dir", clean), *(kept(project, n, f"tab1e00{n}.dir") for n in (2, 3))
    (project.root / "dvc.lock").write_text(LOCK)
    quarantine.put(project, "5ce00001", **PUT)
    assert [quarantine_list.of_release(project, release) is None for release in (one, two, three)] == [
        True,
        False,
        False,
    ]
    for check in (quarantine.refuse_data, promote.refresh_accepted):
        with pytest.raises(RefusedError, match=r"events.csv 5ce00001 is in quarantine since .* by me: a crawler, and"):
            check(project)
    (project.root / "dvc.lock").write_text(clean)
    quarantine.refuse_data(project)


def test_a_release_in_quarantine_is_not_rolled_back_to(project: Project) -> None:
    one, two, three = (kept(project, n, f"tab1e00{n}.dir") for n in (1, 2, 3))
    served(project, one, two, three)
    quarantine.put(project, "feedbac2", **PUT)
    with pytest.raises(RefusedError, match=rf"made from bad data: .*a crawler; `recops promote {one[:12]}` serves"):
        rollback(project, "me")
    with pytest.raises(RefusedError, match="made from bad data"):
        promote.promote_by_hand(project, two, NOW, "me")
    assert read_pointer(project.releases) == Pointer(three, (one, two))
    assert rollback(project, "me", "nothing else", force=True).release == two
    assert audit.entries(project)[-1]["facts"]["forced"] is True
    assert promote.promote_by_hand(project, one, NOW, "me", "good") == one
    assert audit.entries(project)[-1]["facts"] == {
        "release": one,
        "from": two,
        "by": "me",
        "why": "good",
        "forced": False,
    }


def test_new_data_is_judged_by_the_last_good_release(project: Project) -> None:
    one, two = kept(project, 1, "tab1e001.dir"), kept(project, 2, "tab1e002.dir")
    for release in (one, two):
        path = project.releases / "main" / f"{release}.json"
        path.write_text(path.read_text().replace("{", f'{{"profile": "of {release[:3]}",', 1))
    served(project, one, two)
    promote.refresh_accepted(project)
    assert f"of {two[:3]}" in project.accepted.read_text()
    quarantine.put(project, "feedbac2", **PUT)
    promote.refresh_accepted(project)
    assert f"of {one[:3]}" in project.accepted.read_text()
    quarantine.put(project, "feedbac1", **PUT)
    promote.refresh_accepted(project)
    assert project.accepted.read_text() == "{}\n"


def test_a_challenger_in_quarantine_is_taken_off(project: Project) -> None:
    one, two = kept(project, 1, "tab1e001.dir"), kept(project, 2, "tab1e002.dir")
    with closing(open_store(project.store_url)) as store:
        for name, release in (("old", one), ("new", two)):
            control.put(store, Arm(name=name, release=release, mode="ab", share=0.1), "a test")
        quarantine.put(project, "feedbac2", **PUT)
        assert [arm.name for arm in control.read(store).arms] == ["old"]


def test_a_part_in_quarantine_is_left_out_and_still_reached_by_an_erasure(project: Project) -> None:
    told = {"item_id": "a", "timestamp": 1, "event": "click"}
    with closing(open_store(project.store_url)) as store:
        for user in ("u1", "u2"):
            store.put_events([{**told, "event_id": f"e{user}", "user_id": user}])
            feedback.seal_from(project, store)
        (first, second) = Feedback.read(project.feedback).parts
        quarantine.put(project, second["sha256"][:8], **PUT)
        found = Feedback.read(project.feedback)
        sql = relation(project.feedback_parts, found.parts, keeps_made_ids=False)
        assert sql is not None and first["file"] in sql and second["file"] not in sql
        store.erase_user("u2", datetime.now(UTC))
        after = feedback.seal_from(project, store).parts
    assert [(part["rows"], part.get("quarantined")) for part in after] == [(1, None), (0, True)]
    settle(project.feedback_parts, after)
    assert relation(project.feedback_parts, after[1:], keeps_made_ids=False) is None


def test_a_list_that_cannot_be_read_serves_nothing_by_mistake(project: Project) -> None:
    project.quarantine.write_text('{"versions": [{}]}')
    with pytest.raises(CallError, match="not a readable list of quarantined data"):
        quarantine_list.read(project)
