"""Stage package: the bundle, the catalogue and the service become one Bento that BentoML can serve anywhere."""

import subprocess
from typing import Any

from recops.bundle import bundle_id, canonical_json, read_manifest, write_atomically
from recops.release.bento import build_bento
from recops.stages.project import Project


def package(project: Project) -> dict[str, Any]:
    """Builds the Bento in the project's own Bento home and writes reports/package.json (tag and release)."""
    manifest = read_manifest(project.bundle)
    labels = {
        "commit": git_commit(project) or "none",
        "data": manifest["inputs"]["events.parquet"],
        "model": manifest["model"],
        **metric_labels(manifest),
    }
    tag = build_bento(project.bundle, project.environment(), labels)
    facts = {"tag": tag, "release": bundle_id(project.bundle)}
    write_atomically(project.reports / "package.json", canonical_json(facts))
    return facts


def metric_labels(manifest: dict[str, Any]) -> dict[str, str]:
    """The test metrics as short labels, such as ndcg_at_10: 0.1234."""
    return {
        name.replace("@", "_at_"): f"{figure['value']:.4f}"
        for name, figure in manifest["metrics"]["metrics"].items()
        if figure["value"] is not None
    }


def git_commit(project: Project) -> str | None:
    """The commit of the project, or None without git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(project.root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
