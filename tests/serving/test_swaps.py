"""What is served stays whole while releases come, go and are broken: two workers, fifty calls a second all the while.

The calls are answered by the release that they name, as that release answers when it is loaded here.
"""

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from recops import bundle
from recops.bundle import read_pointer, release_folder, write_manifest
from recops.release.releases import point_to
from recops.serving.loading import load_release
from recops.serving.requests import Recommend, Score, Similar
from recops.serving.retrieval import Stored, recommend, score, similar
from recops.serving.state import RETRY_S
from recops.store import open_store
from tests.serving.conftest import VECTORS, write_bundle, write_encoder
from tests.serving.load import Load
from tests.serving.test_process import Server

pytestmark = pytest.mark.process
NUM_ITEMS, NUM_RELEASES, SWAPS, PER_SECOND = 6000, 4, 40, 50
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("/recommend", {"user_id": "u1"}),
    ("/recommend", {"history": ["i5", "i900"], "k": 20}),
    ("/recommend", {"user_id": "nobody"}),
    ("/recommend", {"user_id": "nobody", "filters": {"categories": ["c3"]}}),
    ("/recommend", {"history": ["i7"], "explain": True, "k": 3}),
    ("/similar", {"item_id": "i42"}),
    ("/score", {"user_id": "nobody", "item_ids": ["i1", "i2", "i3"]}),
]


def make_catalogue(folder: Path, **facts: Any) -> str:
    """A bundle large enough that a release which is not let go of is seen in memory; of links made by chance."""
    chance = np.random.default_rng(len(facts["metrics"]["seed"]))
    indptr = np.concatenate([[0], np.arange(NUM_ITEMS + 1) * 8]).astype(np.int64)
    weights = chance.random(indptr[-1]).astype(np.float32)
    indices = chance.integers(1, NUM_ITEMS + 1, len(weights)).astype(np.int32)
    items = {
        "item_id": ["a", *(f"i{n}" for n in range(1, NUM_ITEMS))],
        "title": [f"Item of the number {n}" for n in range(NUM_ITEMS)],
        "categories": [[f"c{n % 20}"] for n in range(NUM_ITEMS)],
        "price": [float(n) for n in range(NUM_ITEMS)],
        "available": [True] * NUM_ITEMS,
        "published_at": [None] * NUM_ITEMS,
    }
    arrays = dict(zip(bundle.LINKS.values(), (indptr, indices, weights), strict=True))
    fallback = chance.permutation(NUM_ITEMS).astype(float).tolist()
    return write_bundle(folder, items=items, arrays=arrays, fallback=fallback, **facts)


def shown(answer: dict[str, Any]) -> list[tuple[str, float]]:
    return [(item["item_id"], item["score"]) for item in answer["items" if "items" in answer else "scores"]]


class Swapping(Server):
    """Over NUM_RELEASES releases in a folder that is a project as well; `oracle`: what each answers to CALLS."""

    def __init__(self, root: Path) -> None:
        seeds = ("s" * number for number in itertools.count())

        def make(folder: Path, **facts: Any) -> str:
            return make_catalogue(folder, metrics={"seed": next(seeds)})

        super().__init__(root, make, workers=2)
        self.ids += [self.add(make) for _ in range(NUM_RELEASES - len(self.ids))]
        store = open_store(self.store_url)
        for release in self.ids[2:]:
            store.put_histories(release, [("u1", ["a"], None)])
        store.close()
        self.oracle = {release: self._answers(release) for release in self.ids}
        for answers in itertools.combinations(self.oracle.values(), 2):
            assert all(one != other for one, other in zip(*answers, strict=True))  # else nothing would be seen

    def _answers(self, release: str) -> list[list[tuple[str, float]]]:
        loaded, found = load_release(release_folder(self.releases, release), release), []
        for path, body in CALLS:
            stored = Stored(["a"]) if body.get("user_id") == "u1" else None
            if path == "/recommend":
                found.append(recommend(loaded, Recommend.model_validate(body), stored))
            elif path == "/score":
                found.append(score(loaded, Score.model_validate(body), stored))
            else:
                found.append(similar(loaded, Similar.model_validate(body)))
        return [shown(answer) for answer in found]

    def load(self) -> Load:
        return Load(self.port, CALLS, PER_SECOND)

    def check(self, load: Load) -> None:
        """No call failed, and each answer is what the release that it names answers."""
        assert [one for one in load.answers if one.status != 200] == []
        wrong = [one for one in load.answers if shown(one.body) != self.oracle[one.body["release"]][one.call]]
        assert wrong == []
        assert len(load.answers) >= 0.9 * PER_SECOND * load.took_s

    def loads(self, outcome: str) -> float:
        return self.figure(f'recops_release_loads_total{{outcome="{outcome}"}}')

    def until_loads(self, outcome: str, num: float) -> None:
        until = time.monotonic() + 20
        while self.loads(outcome) < num:
            assert time.monotonic() < until, self.log.read_text()[-2000:]
            time.sleep(0.05)

    @property
    def pointed_at(self) -> str:
        return read_pointer(self.releases).release

    def swap(self, release: str) -> None:
        """Both workers serve it once this returns."""
        before = self.loads("loaded")
        self.point(release, self.pointed_at)
        self.until_loads("loaded", before + self.workers)

    def memory(self) -> int:
        """Bytes of both workers; what they share counts once."""
        return sum(process.memory_full_info().pss for process in self.workers_now())


@pytest.fixture(scope="module")
def swapping(tmp_path_factory: pytest.TempPathFactory):
    server = Swapping(tmp_path_factory.mktemp("swapping"))
    yield server
    assert server.stop() == 0


def changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def flipped(data: bytes) -> bytes:
    """One bit of a weight, which ONNX Runtime would load without a word."""
    at = data.index(VECTORS.tobytes()) + 9
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def weights_elsewhere(folder: Path) -> None:
    model = onnx.load(folder / bundle.ENCODER)
    (table,) = [tensor for tensor in model.graph.initializer if tensor.name == "table"]
    (folder.parent / "outside.bin").write_bytes(table.raw_data)
    table.ClearField("raw_data")
    table.data_location = onnx.TensorProto.EXTERNAL
    entry = table.external_data.add()
    entry.key, entry.value = "location", "../outside.bin"
    (folder / bundle.ENCODER).write_bytes(model.SerializeToString())


def one_nan(folder: Path) -> None:
    vectors = VECTORS.copy()
    vectors[-1, 0] = np.nan
    write_encoder(folder / bundle.ENCODER, vectors)


# What is done to a bundle, whether its hashes are made right again, and what the log says of it.
BROKEN: dict[str, tuple[Callable[[Path], Any], bool, str]] = {
    "empty": (changed(bundle.ENCODER, lambda data: b""), False, "altered or cut short"),
    "truncated by half": (changed(bundle.ENCODER, lambda data: data[: len(data) // 2]), False, "altered or cut short"),
    "one byte short": (changed(bundle.VECTORS, lambda data: data[:-1]), False, "altered or cut short"),
    "zeros": (changed(bundle.VECTORS, lambda data: bytes(len(data))), False, "altered or cut short"),
    "one flipped bit of a weight": (changed(bundle.ENCODER, flipped), False, "altered or cut short"),
    "missing map": (lambda folder: (folder / bundle.ITEMS).unlink(), False, "named in the manifest but missing"),
    "wrong width": (
        lambda folder: write_encoder(folder / bundle.ENCODER, np.ones((7, 3), np.float32)),
        True,
        "cannot score",
    ),
    "a weight that is no number": (one_nan, True, "weights that are no numbers"),
    "wrong manifest": (changed(bundle.MANIFEST, lambda data: data + b"\n"), False, "holds release"),
    "weights at a path outside": (weights_elsewhere, True, "weights that lie outside"),
}


def add_broken(server: Server, name: str) -> str:
    spoil, is_signed_again, _ = BROKEN[name]
    release = server.add(write_bundle, encoder=True, metrics={"broken": name})
    folder = release_folder(server.releases, release)
    spoil(folder)
    if is_signed_again:
        facts = json.loads((folder / bundle.MANIFEST).read_text())
        del facts["files"], facts["format_version"]
        release = write_manifest(folder, facts)
        folder.rename(folder.with_name(release))
    return release


def refuse_all(server: Swapping, broken: list[str]) -> Load:
    """Points at each, until both workers have refused it."""
    served, before = server.pointed_at, server.loads("failed")
    with server.load() as load:
        for number, release in enumerate(broken, start=1):
            server.point(release, server.pointed_at)
            server.until_loads("failed", before + number * server.workers)
        server.point(served, server.pointed_at)
    assert {one.body["release"] for one in load.answers} == {served}
    return load


@pytest.fixture(scope="module")
def refused(swapping: Swapping) -> tuple[list[str], Load, float]:
    """Ten broken releases, what was answered while each was promoted, and when that was over."""
    broken = [add_broken(swapping, name) for name in BROKEN]
    return broken, refuse_all(swapping, broken), time.monotonic()


def test_a_bad_model_never_serves(swapping: Swapping, refused) -> None:
    broken, load, _ = refused
    assert len(set(broken)) == len(BROKEN) == 10
    swapping.check(load)
    assert swapping.loads("failed") == 10 * swapping.workers  # each worker tries each once
    log = swapping.log.read_text()
    for release, (_, _, why) in zip(broken, BROKEN.values(), strict=True):
        refusals = re.findall(rf"release refused: .*{release}.*{why}", log)
        assert len(refusals) == swapping.workers, (release, why)


def test_forty_swaps_under_load(swapping: Swapping) -> None:
    """Every answer is whole and of the release that it names, and releases that are gone leave no memory behind."""
    order = itertools.cycle(swapping.ids)
    next(order)
    memory = {}
    with swapping.load() as load:
        for number in range(1, SWAPS + 1):
            swapping.swap(next(order))
            if number in (2, SWAPS):
                time.sleep(0.5)
                memory[number] = swapping.memory()
    swapping.check(load)
    assert {one.body["release"] for one in load.answers} == set(swapping.ids)
    assert memory[SWAPS] <= 1.3 * memory[2], memory


def test_the_same_bad_models_are_refused_again(swapping: Swapping, refused) -> None:
    broken, _, over_at = refused
    time.sleep(max(over_at + RETRY_S - time.monotonic(), 0))
    before = swapping.loads("failed")
    swapping.check(refuse_all(swapping, broken))
    assert swapping.loads("failed") == before + 10 * swapping.workers


# Python looks for this module when it starts: what asks the network is written down.
WATCH = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{event} {arguments!r}\\n")
sys.addaudithook(watch)
open(os.environ["WATCHED"], "a").write("watched\\n")
"""


def test_one_command_rolls_back_every_worker_at_once(swapping: Swapping, tmp_path: Path) -> None:
    """Without a network, Prefect and the remote: one command, no failed call, at most 5 s. Called twice, it leaves what
    it left the first time: going back further would be a promotion."""
    old = swapping.pointed_at
    new = next(release for release in swapping.ids if release != old)
    before = swapping.loads("loaded")
    point_to(swapping.releases, new, expected=old)
    swapping.until_loads("loaded", before + swapping.workers)
    (swapping.root / "params.yaml").write_text("")
    (swapping.root / ".dvc").mkdir(exist_ok=True)
    (swapping.root / ".dvc" / "config").write_text("[core]\nremote = gone\n['remote \"gone\"']\nurl = s3://nowhere/x\n")
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    watched = tmp_path / "watched"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])),
        "WATCHED": str(watched),
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
    }

    def roll_back() -> str:
        words = [sys.executable, "-c", "from recops.cli import main; main()", "rollback", "-C", str(swapping.root)]
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    pointer_file = swapping.releases / "main" / bundle.POINTER
    with swapping.load() as load:
        time.sleep(0.5)
        start = time.monotonic()
        assert roll_back() == f"Serving {old}\n"
        time.sleep(2)
        pointer = pointer_file.read_bytes()
        assert roll_back() == f"Serving {old}\n"
        assert pointer_file.read_bytes() == pointer
        time.sleep(1)
    swapping.check(load)
    of_new = [one.started_at for one in load.answers if one.body["release"] == new]
    assert min(of_new) < start and max(of_new) < start + 5
    assert {one.body["release"] for one in load.answers if one.started_at > max(of_new)} == {old}
    assert watched.read_text() == "watched\n" * 2
