"""A catalogue of six items small enough to work every answer out by hand, and the service over it in this process."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from recops import bundle
from recops.bundle import Pointer, release_folder, write_pointer
from recops.nearest import Nearness
from recops.serving.app import build_app
from recops.serving.settings import Settings
from recops.serving.state import State
from recops.store import open_store

ITEMS = {
    "item_id": ["a", "b", "c", "d", "e", "f"],
    "title": ["A", "B", "C", None, "E", "F"],
    "categories": [["x"], ["x", "y"], ["y"], None, [], ["x"]],
    "price": [1.0, 2.0, 3.0, None, 5.0, 6.0],
    "available": [True, False, True, None, True, True],
    "published_at": ["2020-01-01T00:00:00.000000", "2020-01-02T00:00:00.000000", None, None, None, None],
}
# History item -> neighbours with weights, as rows: a -> b .5, c .25; b -> c 1, d .125.
LINKS = {1: [(2, 0.5), (3, 0.25)], 2: [(3, 1.0), (4, 0.125)]}
SCORING = {"max_history": 200, "link_decay": None, "link_floor": 0.0, "link_window": None, "needs_history": True}


# a (1, 0), b (0, 1), c (1, 1), d (2, 0), e none, f (-1, 0).
VECTORS = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [2, 0], [0, 0], [-1, 0]], np.float32)


def write_encoder(path: Path, vectors: np.ndarray = VECTORS) -> None:
    """A network that adds up the vectors of the history."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "item_idx"], ["found"]),
            helper.make_node("ReduceSum", ["found", "axes"], ["user_vector"], keepdims=0),
        ],
        "encoder",
        [helper.make_tensor_value_info("item_idx", TensorProto.INT64, ["B", "L"])],
        [helper.make_tensor_value_info("user_vector", TensorProto.FLOAT, ["B", vectors.shape[1]])],
        [numpy_helper.from_array(vectors, "table"), numpy_helper.from_array(np.array([1]), "axes")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


# What the encoder `attributes` says: whether an item has category x, and y.
CONTENT = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0], [0, 0], [1, 0]], np.float16)


def write_content(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The encoder of CONTENT into `folder`; arrays and scoring of links by content: a votes for f, and f for a, with 1,
    both and b for each other with the root of a half, as b and c."""
    from recops.encoders.attributes import Attributes
    from recops.models._links import pack_links

    (folder / bundle.ENCODER_FOLDER / "attributes").mkdir(parents=True)
    settings = {
        "columns": [["category", "", "x"], ["category", "", "y"]],
        "mean": [0.0, 0.0],
        "std": [1.0, 1.0],
        "dim": 2,
        "sha256": "made",
        "options": Attributes.Options().model_dump(),
    }
    (folder / bundle.ENCODER_FOLDER / "attributes" / "settings.json").write_text(json.dumps(settings))
    nearness = Nearness(50, 1.0, np.zeros(2, np.float32), (2,))
    unit = nearness.unit([CONTENT])
    links = pack_links(nearness.of(unit, unit))  # what a and b say of each other is the same
    arrays = dict(zip(bundle.LINKS.values(), links, strict=True))
    arrays |= {bundle.LINKS_MEAN: nearness.mean, "content_0.npy": CONTENT}
    scoring = {
        "encoders": ["attributes"],
        "nearness": {"num_neighbors": 50, "power": 1.0, "dims": [2]},
        "content": [{"name": "attributes", "dim": 2, "version": "1", "sha256": "made", "file": "content_0.npy"}],
    }
    return arrays, scoring


def write_bundle(
    folder: Path,
    *,
    content: bool = False,
    items: dict[str, list[Any]] = ITEMS,
    fallback: Sequence[float] = (6.0, 5.0, 4.0, 3.0, 2.0, 1.0),
    arrays: dict[str, np.ndarray] | None = None,
    encoder: bool = False,
    scoring: dict[str, Any] | None = None,
    prefix: str = "",
    **facts: Any,
) -> str:
    """A bundle of `items`, their ids behind a `prefix`, that scores by LINKS, by `arrays`, by CONTENT, or by an encoder
    and VECTORS; its release id."""
    folder.mkdir(parents=True, exist_ok=True)
    if content:
        arrays, scoring = write_content(folder)
    if encoder:
        write_encoder(folder / bundle.ENCODER)
        arrays = {bundle.VECTORS: VECTORS}
    items = {**items, "item_id": [prefix + item_id for item_id in items["item_id"]]}
    (folder / bundle.ITEMS).write_text(json.dumps(items), encoding="utf-8")
    (folder / bundle.FALLBACK).write_text(json.dumps({"scores": list(fallback)}), encoding="utf-8")
    (folder / bundle.PROFILE).write_text("{}", encoding="utf-8")
    if arrays is None:
        pairs = [pair for row in range(7) for pair in LINKS.get(row, [])]
        arrays = {
            bundle.LINKS["indptr"]: np.cumsum([0] + [len(LINKS.get(row, [])) for row in range(7)]).astype(np.int64),
            bundle.LINKS["indices"]: np.array([row for row, _ in pairs], np.int32),
            bundle.LINKS["weights"]: np.array([weight for _, weight in pairs], np.float32),
        }
    for name, array in arrays.items():
        np.save(folder / name, array)
    facts = {"model": "item_knn", "remove_seen": True, "metrics": {"ndcg@10": 0.5}, "data_watermark": None, **facts}
    return bundle.write_manifest(folder, {**facts, "scoring": {**SCORING, **(scoring or {})}})


class Client:
    """Calls an ASGI app in this process, one request at a time or several at once."""

    def __init__(self, app: Any, address: str = "127.0.0.1") -> None:
        self.transport = httpx.ASGITransport(app=app, client=(address, 1))

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.at_once([(method, path, options)])[0]

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def at_once(self, requests: list[tuple[str, str, dict[str, Any]]]) -> list[httpx.Response]:
        async def send() -> list[httpx.Response]:
            async with httpx.AsyncClient(transport=self.transport, base_url="http://127.0.0.1") as client:
                return await asyncio.gather(*(client.request(m, p, **options) for m, p, options in requests))

        return asyncio.run(send())


class Served:
    """The service in this process: `client` calls it, `state` is what stands behind it."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.app = build_app(state)
        self.client = Client(self.app)

    def post(self, path: str, **body: Any) -> Any:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def samples(self) -> list[Sample]:
        """What GET /metrics says now."""
        answer = self.client.get("/metrics")
        assert answer.status_code == 200, answer.text
        families = text_string_to_metric_families(answer.text)
        return [sample for family in families for sample in family.samples if not sample.name.endswith("_created")]

    def figures(self, name: str) -> dict[tuple[str, ...], float]:
        """The values of one metric, by those of its labels in the order of their names."""
        found = (sample for sample in self.samples() if sample.name == name)
        return {tuple(value for _, value in sorted(sample.labels.items())): sample.value for sample in found}

    def ids(self, **body: Any) -> list[str]:
        return [item["item_id"] for item in self.post("/recommend", **body)["items"]]


@contextmanager
def serving(root: Path) -> Iterator[Callable[..., Served]]:
    """Serves a bundle (by default the links of this file) with user `u1`, who has seen `a`, and `u2`, who has not."""
    started: list[State] = []

    def start(settings: dict[str, Any] | None = None, **options: Any) -> Served:
        folder = root / f"bundle-{len(started)}"
        release = write_bundle(folder, **options)
        url = f"sqlite:///{root / 'store.sqlite'}"
        store = open_store(url)
        store.put_histories(release, [("u1", ["a"], None), ("u2", [], None), ("u3", ["gone"], None)])
        store.close()
        state = State(Settings(bundle=folder, store=url, **(settings or {})))
        state.poll()  # at once, so that the polling thread has nothing to do
        state.start()
        started.append(state)
        assert state.release is not None, state.reason
        return Served(state)

    yield start
    for state in started:
        state.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    with serving(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all tests of a file: calls change nothing but the log of answers and the counters."""
    with serving(tmp_path_factory.mktemp("served")) as start:
        yield start()


@pytest.fixture
def connect() -> type[Client]:
    return Client


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., str]:
    return write_bundle


@pytest.fixture
def releases(tmp_path, make_bundle):
    """A folder with two releases, `first` promoted; the ids as attributes."""

    class Releases:
        folder = tmp_path / "releases"

        def add(self, **options):
            release = make_bundle(tmp_path / "new", **options)
            release_folder(self.folder, release).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "new").rename(release_folder(self.folder, release))
            return release

        def point(self, release, expected):
            write_pointer(self.folder, Pointer(release), expected=expected)

    found = Releases()
    found.first, found.second = found.add(), found.add(remove_seen=False)
    found.point(found.first, None)
    return found
