"""Releases that are little more than manifest and record, and answers that were given with them."""

from contextlib import closing

from recops.bundle import canonical_json, release_folder, write_manifest
from recops.stages.project import Project
from recops.store import open_store

LOCK = """
stages:
  ingest:
    deps:
    - {path: .recops/feedback.json, md5: aaaaaaaa1}
    - {path: recops/schema.py, md5: aaaaaaaa2}
    - {path: /logs/events.csv, md5: 5ce00001}
    outs:
    - {path: data/tables, md5: tab1e001.dir}
"""


def kept(project: Project, num: int, tables: str, lock: str = LOCK) -> str:
    """A release, promoted as the `num`-th, whose bundle is one file and whose feedback one part."""
    folder = project.root / f"bundle{num}"
    folder.mkdir()
    (folder / "items.json").write_text(str(num))
    inputs = {"events.parquet": f"e5e5e50{num}", "train.parquet": "7777777"}
    validation = {"ok": True, "stopped": [], "warned": [{}], "skipped": []}
    facts = {"model": "m", "inputs": inputs, "validation": validation, "params": {"train": {"model": "m"}}}
    release = write_manifest(folder, {**facts, "data_watermark": "2026-01-01"})
    target = release_folder(project.releases, release)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)
    record = {"events_hash": tables, "dvc_lock": lock, "commit": "c0ffee", "run": {"flow_run_name": "calm-otter"}}
    record |= {"feedback": [{"file": f"{num}.parquet", "sha256": f"feedbac{num}"}], "promoted_at": f"2026-01-0{num}"}
    (target.parent / f"{release}.json").write_text(canonical_json({**record, "release": release}))
    return release


def answered(project: Project, request_id: str, user_id: str | None, release: str, variant: str = "main") -> None:
    items = [{"item_id": "a", "rank": 1, "score": 0.5}]
    row = {"request_id": request_id, "time": "2026-01-01T00:00:00Z", "user_id": user_id, "items": items}
    with closing(open_store(project.store_url)) as store:
        store.log_answers([{**row, "release": release, "variant": variant, "source": "model"}])
