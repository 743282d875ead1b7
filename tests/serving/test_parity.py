"""Torch, ONNX Runtime and the service over HTTP give the same answers to 1,000 users."""

import os
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest

from recops.bundle import Pointer, load_bundle, release_folder, write_pointer
from recops.models.sasrec import Sasrec
from recops.ports import free_port
from recops.release.export import export_bundle, torch_scorer
from recops.release.parity import compare_lists
from recops.topk import top_k
from tests.release.small_bundles import facts, items

NUM_USERS, NUM_ITEMS, K = 1000, 500, 20
pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def parts():
    config = Sasrec.Config(embedding_dim=32, num_blocks=1, max_history=50)
    return Sasrec(config, num_users=1, num_items=NUM_ITEMS, seed=7).parts()


@pytest.fixture(scope="module")
def histories() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(1, NUM_ITEMS + 1, draw.integers(1, 80)) for _ in range(NUM_USERS)]


@pytest.fixture(scope="module")
def served(tmp_path_factory, parts):
    """A client of the service on a release with those weights, and its bundle."""
    root = tmp_path_factory.mktemp("parity")
    export_bundle(
        parts,
        root / "bundle",
        items=items(*(f"i{row:04d}" for row in range(1, NUM_ITEMS + 1))),
        fallback=np.zeros(NUM_ITEMS + 1, np.float32),
        profile={},
        facts=facts(model="sasrec"),
        opset=20,
        max_links=1,
    )
    release = load_bundle(root / "bundle").id
    target = release_folder(root / "releases", release)
    target.parent.mkdir(parents=True)
    (root / "bundle").rename(target)
    write_pointer(root / "releases", Pointer(release), expected=None)
    port = free_port()
    code = (
        "import os, sys; from pathlib import Path; from recops.serving.launch import serve; "
        "serve(Path(sys.argv[1]), None, sys.argv[2], '127.0.0.1', int(sys.argv[3]), 1, dict(os.environ))"
    )
    arguments = [str(root / "releases"), f"sqlite:///{root / 'store.sqlite'}", str(port)]
    environment = {**os.environ, "BENTOML_HOME": str(root / "bentoml")}
    with (
        (root / "log").open("w") as log,
        subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, stdout=log, stderr=log) as process,
    ):
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            for _ in range(600):
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                assert process.poll() is None, (root / "log").read_text()
                time.sleep(0.1)
            yield client, load_bundle(target)
        process.terminate()


def test_a_thousand_users_get_the_same_list_from_torch_onnx_and_the_service(parts, histories, served):
    client, bundle = served
    ids = bundle.items["item_id"]
    torch_BN = torch_scorer(parts).scores(histories)
    onnx_BN = bundle.scorer.scores(histories)
    assert np.abs(torch_BN[:, 1:] - onnx_BN[:, 1:]).max() <= 1e-4
    answers = []
    for start in range(0, NUM_USERS, 200):
        asked = [{"history": [ids[row - 1] for row in h], "k": K} for h in histories[start : start + 200]]
        answer = client.post("/recommend/batch", json={"requests": asked})
        assert answer.status_code == 200, answer.text
        answers += answer.json()["responses"]
    for row, history in enumerate(histories):
        torch_BN[row, history] = -np.inf
        best, scores = top_k(torch_BN[row : row + 1], K)
        shown = answers[row]["items"]
        assert not {item["item_id"] for item in shown} & {ids[r - 1] for r in history}, "a seen item was shown"
        served_scores = [item["score"] for item in shown]
        assert np.abs(scores[0] - served_scores).max() <= 1e-4
        expected = [ids[r - 1] for r in best[0]]
        assert compare_lists(expected, scores[0], [i["item_id"] for i in shown], served_scores) is None


def test_whoever_is_not_known_gets_the_fallback_and_says_so(served):
    client, _ = served
    for user in range(100):
        answer = client.post("/recommend", json={"user_id": f"nobody {user}", "k": K})
        assert (answer.status_code, answer.json()["source"], len(answer.json()["items"])) == (200, "fallback", K)
