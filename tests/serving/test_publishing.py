"""A publication that is killed, from the first file of the export to the pointer: what is served afterwards is whole.

Each kill is of a real process, in a project of its own; a service that is started afterwards has them all as tenants.
"""

import json
import shutil
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest

from recops.bundle import bundle_id, load_bundle, read_pointer, release_folder, verify
from recops.protocols import ServingParts
from recops.release.export import export_bundle
from recops.release.releases import Parts, promote
from recops.serving.keys import add_key
from recops.store import open_store
from tests.killed import in_a_child
from tests.release.small_bundles import facts, items
from tests.serving.test_process import Server

pytestmark = pytest.mark.process
OLD, NEW = (3.0, 2.0, 1.0), (1.0, 2.0, 3.0)  # what items a, b and c are scored
BEST = {OLD: ["a", "b", "c"], NEW: ["c", "b", "a"]}
NUM_KILLS = 16


def publish(project: Path, scores: tuple[float, ...], step=lambda: None) -> str:
    """Exports a bundle to `project`/bundle, makes it a release, and moves the pointer; the release."""
    item_scores = np.array([0, *scores], np.float32)
    export_bundle(
        ServingParts(item_scores=item_scores, needs_history=False),
        project / "bundle",
        items=items("a", "b", "c"),
        fallback=item_scores,
        profile={},
        facts=facts(),
        opset=20,
        max_links=10,
    )

    def histories():
        for user in ("u1", "u2"):
            step()
            yield user, ["a"], None

    pointer = read_pointer(project / "releases")
    with closing(open_store(f"sqlite:///{project}/store.sqlite")) as store:
        served = pointer and pointer.release
        parts = Parts(histories())
        return promote(project / "bundle", project / "releases", store, parts, expected=served, now="now")


def publish_in_a_child(project: Path, kill_at: int) -> tuple[bool, int]:
    return in_a_child(lambda step: publish(project, NEW, step) and None, kill_at)


def check_whole(project: Path, known: set[str]) -> str:
    """Nothing that can be seen is half there; what the pointer names, with its histories."""
    for folder in (project / "releases" / "main").iterdir():
        if folder.is_dir() and not folder.name.startswith("."):
            verify(folder)
            assert bundle_id(folder) == folder.name in known
    if (project / "bundle").exists():
        verify(project / "bundle")
    release = read_pointer(project / "releases").release
    assert load_bundle(release_folder(project / "releases", release)).id == release
    with closing(open_store(f"sqlite:///{project}/store.sqlite")) as store:
        assert store.num_histories(release) == 2
    return release


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, tuple[float, ...]]]:
    """Projects by a name for the step before which their second publication was killed, and the scores of releases."""
    root = tmp_path_factory.mktemp("killed")
    start = root / "start"
    start.mkdir()
    scores = {publish(start, OLD): OLD}
    shutil.copytree(start, root / "whole")
    is_killed, num_steps = publish_in_a_child(root / "whole", kill_at=-1)
    assert not is_killed
    scores[read_pointer(root / "whole" / "releases").release] = NEW
    # Spread over all, and the last ones, where the pointer moves.
    spread = np.linspace(0, num_steps - 1, NUM_KILLS - 3).astype(int).tolist()
    kills = sorted({*spread, *range(num_steps - 4, num_steps)})
    projects = {}
    for kill_at in kills:
        projects[f"k{kill_at}"] = project = root / f"k{kill_at}"
        shutil.copytree(start, project)
        is_killed, _ = publish_in_a_child(project, kill_at)
        assert is_killed, kill_at
    return projects, scores


def test_after_a_kill_the_pointer_names_a_whole_release(killed) -> None:
    projects, scores = killed
    assert len(projects) >= 12
    served = [scores[check_whole(project, set(scores))] for project in projects.values()]
    bundles = [project / "bundle" for project in projects.values()]
    exported = [scores[bundle_id(folder)] if folder.exists() else None for folder in bundles]
    # In the export, between it and the pointer, and after.
    assert {(OLD, OLD), (NEW, OLD), (NEW, NEW)} <= set(zip(exported, served, strict=True))


def test_a_service_started_after_a_kill_serves_a_whole_release(killed, tmp_path, make_bundle) -> None:
    projects, scores = killed
    tenants = {
        name: {"releases": str(project / "releases"), "store": f"sqlite:///{project}/store.sqlite"}
        for name, project in projects.items()
    }
    file = tmp_path / "keys.json"
    keys = {name: add_key(file, name, "read", tenant=name) for name in projects}
    server = Server(tmp_path, make_bundle, RECOPS_TENANTS=json.dumps(tenants), RECOPS_KEYS_FILE=str(file))
    for name, project in projects.items():
        answer = httpx.post(
            f"{server.client.base_url}/recommend",
            json={"user_id": "nobody"},
            headers={"authorization": f"Bearer {keys[name]}"},
            timeout=20,
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        release = answer.json()["release"]
        assert release == read_pointer(project / "releases").release
        assert [item["item_id"] for item in answer.json()["items"]] == BEST[scores[release]], name
    assert server.stop() == 0
    assert "refused" not in server.log.read_text()


def test_the_same_publication_goes_on_after_a_kill(killed) -> None:
    """Last, since it changes the projects. Nothing of the killed one is left lying about."""
    projects, scores = killed
    for project in projects.values():
        release = publish(project, NEW)
        assert read_pointer(project / "releases").release == release == check_whole(project, set(scores))
        left = [path.name for path in (*project.iterdir(), *(project / "releases" / "main").iterdir())]
        assert not [name for name in left if "copying" in name or name.startswith(".bundle")], left
