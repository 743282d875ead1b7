"""`recops score-all`: the lists are those of /recommend, a kill loses no part, and what is wrong is told."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recops.errors import CallError, RefusedError
from recops.protocols import ServingParts
from recops.release.export import export_bundle
from recops.release.releases import Parts, promote
from recops.serving.local import recommend_once
from recops.stages.project import Project, open_project
from recops.stages.score_all import SCHEMA, score_all
from recops.store import open_store

NUM_ITEMS, NUM_USERS = 40, 30


def released(folder: Path, num_users: int = NUM_USERS) -> Project:
    """A table of users and items promoted in `folder`. The first ten users have no history, of all others each third
    turned an item down; one more has a history and no row in the table."""
    folder.mkdir()
    (folder / "params.yaml").touch()
    project = open_project(folder)
    rng = np.random.default_rng(0)
    ids = [f"i{row:02d}" for row in range(NUM_ITEMS)]
    users = [f"u{row:04d}" for row in range(num_users)]
    vectors, table = (rng.standard_normal((num + 1, 4)).astype(np.float32) for num in (NUM_ITEMS, num_users))
    vectors[0] = table[0] = 0
    vectors[5] = vectors[6]  # a tie in every list
    columns = ("title", "categories", "price", "available", "published_at")
    facts = dict.fromkeys(("params", "metrics", "validation", "inputs", "data_watermark"))
    export_bundle(
        ServingParts(item_vectors=vectors, user_table=table),
        project.bundle,
        items={"item_id": ids, **{column: [None] * NUM_ITEMS for column in columns}},
        users=users,
        fallback=np.arange(NUM_ITEMS + 1, dtype=np.float32),
        profile={},
        facts={"model": "matrix_factorization", "remove_seen": True, **facts},
        opset=20,
        max_links=1,
    )
    with_history = [*users[10:], "stranger"]
    promote(
        project.bundle,
        project.releases,
        open_store(project.store_url),
        Parts(
            [(user, rng.choice(ids, 7, replace=False).tolist(), None) for user in with_history],
            refused=[(user, [ids[n % NUM_ITEMS]], None) for n, user in enumerate(with_history[::3])],
        ),
        expected=None,
        now="2026-01-01T00:00:00+00:00",
    )
    return project


def test_every_user_gets_the_list_of_recommend(tmp_path: Path) -> None:
    project, out = released(tmp_path / "project"), tmp_path / "lists.parquet"
    environment = dict(os.environ)
    found = score_all(project, out, k=NUM_ITEMS, workers=1, users_a_part=8, say=lambda text: None)
    assert dict(os.environ) == environment  # a stage started from here is no worker of anybody
    assert (found.num_users, found.kept) == (NUM_USERS + 1, 0)
    frame = pl.read_parquet(out)
    assert frame.columns == SCHEMA.names
    assert frame["user_id"].to_list() == sorted(frame["user_id"][:21]) + [f"u{n:04d}" for n in range(10)]
    for user_id, item_ids, scores, source in frame.iter_rows():
        answer = recommend_once(project.releases, project.store_url, user_id, [], NUM_ITEMS)
        assert [item["item_id"] for item in answer["items"]] == item_ids
        # One user's product is summed in another order than that of many.
        assert [item["score"] for item in answer["items"]] == pytest.approx(scores, abs=1e-5)
        assert answer["source"] == source
    assert frame.filter(pl.col("user_id") == "stranger")["source"].to_list() == ["fallback"]
    assert pl.read_parquet_metadata(out)["release"] == found.release
    assert not list(tmp_path.glob(".lists*"))


CALL = """
import sys
from pathlib import Path
from recops.stages.project import open_project
from recops.stages.score_all import score_all
if __name__ == "__main__":
    print(score_all(open_project(Path(sys.argv[1])), Path(sys.argv[2]), 20, 2, users_a_part=20).kept)
"""


@pytest.mark.process
def test_a_call_goes_on_after_a_kill(tmp_path: Path) -> None:
    project, out = released(tmp_path / "project", 4000), tmp_path / "lists.parquet"
    script = tmp_path / "call.py"
    script.write_text(CALL)
    command = [sys.executable, script, project.root, out]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    parts = tmp_path / ".lists.parquet.parts"
    for _ in range(1000):
        if len(list(parts.glob("*.arrow"))) >= 3:
            break
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    num_parts = len(list(parts.glob("*.arrow")))
    assert 3 <= num_parts < 200 and not out.exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kept = int(done.stdout.split()[-1])
    assert 3 * 20 <= kept < 4000
    whole = tmp_path / "whole.parquet"
    assert score_all(project, whole, 20, 2, lambda text: None, 20).kept == 0
    assert pl.read_parquet(out).equals(pl.read_parquet(whole))


def test_parts_of_other_lists_are_made_anew(tmp_path: Path) -> None:
    project, out = released(tmp_path / "project"), tmp_path / "lists.parquet"
    parts = tmp_path / ".lists.parquet.parts"
    parts.mkdir()
    (parts / "000000.arrow").write_bytes(b"of another k")
    (parts / "state.json").write_text("{}")
    assert score_all(project, out, k=3, workers=1, say=lambda text: None).kept == 0
    assert pl.read_parquet(out)["item_id"].list.len().to_list() == [3] * (NUM_USERS + 1)


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    project = released(tmp_path / "project")
    with pytest.raises(CallError, match="it is a folder"):
        score_all(project, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CallError, match=r"file/lists\.parquet: cannot be written"):
        score_all(project, tmp_path / "file" / "lists.parquet")
    empty = Project(tmp_path / "empty")
    empty.root.mkdir()
    with pytest.raises(RefusedError, match="no release has been promoted yet"):
        score_all(empty, tmp_path / "lists.parquet")
    store = open_store(project.store_url)
    (release,) = (path.name for path in (project.releases / "main").iterdir() if path.is_dir())
    store.drop_release(release)
    with pytest.raises(RefusedError, match="holds no histories of release"):
        score_all(project, tmp_path / "lists.parquet")
