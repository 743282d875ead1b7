"""The Bento: built from a bundle, served by `bentoml serve` with that bundle and nothing else."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from recops import bundle
from recops.errors import BundleError
from recops.ports import free_port
from recops.release import kubernetes
from recops.release.bento import PACKAGE, bento_folder, bento_tag, bentofile, build_bento
from recops.serving.keys import add_key
from tests.release.test_kubernetes import SHARED


def write_bundle(folder):
    """A bundle of two items that scores by popularity."""
    folder.mkdir()
    items = {"item_id": ["a", "b"], "title": ["A", "B"]}
    nulls = {name: [None, None] for name in ("categories", "price", "available", "published_at")}
    (folder / bundle.ITEMS).write_text(bundle.canonical_json({**items, **nulls}), encoding="utf-8")
    (folder / bundle.FALLBACK).write_text('{"scores": [1.0, 2.0]}', encoding="utf-8")
    (folder / bundle.PROFILE).write_text("{}", encoding="utf-8")
    np.save(folder / bundle.SCORES, np.array([0, 1, 2], np.float32))
    scoring = {"max_history": 1, "link_decay": None, "link_floor": 0, "link_window": None, "needs_history": False}
    bundle.write_manifest(folder, {"model": "most_popular", "scoring": scoring})
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of a Bento, and the environment and labels that it was built with the second time."""
    root = tmp_path_factory.mktemp("built")
    folder = write_bundle(root / "bundle")
    environment = {**os.environ, "BENTOML_HOME": str(root / "home")}
    labels = {"commit": "none", "data": "abc", "ndcg_at_10": "0.5"}
    tag = build_bento(folder, environment, {"commit": "older"})
    assert build_bento(folder, environment, labels) == tag == bento_tag(bundle.bundle_id(folder))
    return bento_folder(bundle.bundle_id(folder), environment), environment, labels


@contextmanager
def started(command, port, environment, folder, limit_s=30):
    """The service as it answers; told to end afterwards, which it does within `limit_s`."""
    process = subprocess.Popen(command, env=environment, cwd=folder)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)
    try:
        for _ in range(600):
            try:
                if client.get("/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert process.poll() is None
            time.sleep(0.1)
        yield client
    finally:
        client.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(limit_s) == 0


def test_the_bentofile_asks_only_for_what_the_service_needs():
    wanted = yaml.safe_load(bentofile().read_text(encoding="utf-8"))
    names = {package.split(">")[0] for package in wanted["python"]["packages"]}
    optional = {"faiss-cpu", "pillow", "scipy", "soundfile", "tokenizers"}
    own = {
        *{"bentoml", "cryptography", "numpy", "onnxruntime", "opentelemetry-exporter-otlp-proto-http"},
        *{"prometheus-client", "psycopg[binary,pool]", "pydantic", "pyyaml", "starlette", "uvicorn"},
    }
    assert names - optional == own
    assert not any("training" in line or "models" in line or "data" in line for line in wanted["include"])


def test_the_bentofile_holds_all_that_the_service_imports(tmp_path):
    """Every part of the service loads from nothing but what is included, as it does where recops is not installed."""
    for line in yaml.safe_load(bentofile().read_text(encoding="utf-8"))["include"]:
        source, target = PACKAGE.parent / line, tmp_path / line
        if line.startswith("recops/"):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import recops
assert recops.__file__.startswith(sys.argv[1])
from recops import plugins
from recops.serving import app, service
app.operations()
for name in plugins.names("encoders"):
    plugins.load("encoders", name)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_bentofile_asks_for_all_that_the_service_imports():
    """Also inside of functions, where loading a part does not show it."""
    wanted = yaml.safe_load(bentofile().read_text(encoding="utf-8"))
    packages = {package.split(">")[0].replace("-", "_") for package in wanted["python"]["packages"]}
    found = set()
    for line in wanted["include"]:
        if line.startswith("recops/"):
            path = PACKAGE.parent / line
            for file in path.rglob("*.py") if path.is_dir() else [path]:
                for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                    names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                    names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                    found |= {name.partition(".")[0] for name in names}
    of_their_own = {"PIL": "pillow", "faiss": "faiss_cpu", "pydantic_core": "pydantic", "yaml": "pyyaml"}
    of_their_own |= dict.fromkeys(("psycopg", "psycopg_pool"), "psycopg[binary,pool]")
    of_their_own["opentelemetry"] = "opentelemetry_exporter_otlp_proto_http"
    found = {of_their_own.get(name, name) for name in found} - sys.stdlib_module_names - {"recops"}
    # `protocols` names the types of other layers for the type checker alone.
    assert found - {"torch", "duckdb", "polars"} == packages


def test_a_damaged_bundle_is_not_packaged(tmp_path):
    folder = write_bundle(tmp_path / "bundle")
    (folder / bundle.SCORES).unlink()
    with pytest.raises(BundleError, match="item_scores"):
        build_bento(folder, {"BENTOML_HOME": str(tmp_path / "home")}, {})


@pytest.mark.process
def test_the_bento_serves_its_bundle(built, tmp_path):
    bento, environment, labels = built
    facts = yaml.safe_load((bento / "bento.yaml").read_text(encoding="utf-8"))
    assert facts["labels"] == labels
    assert not (bento / "src" / "recops" / "models").exists()
    assert list(bento.parents[2].glob("build-*")) == []
    # Away from the checkout, without any RECOPS_ setting.
    port, tag = free_port(), f"{facts['name']}:{facts['version']}"
    command = [sys.executable, "-m", "bentoml", "serve", tag, "--port", str(port)]
    with started(command, port, environment, tmp_path) as client:
        assert client.get("/readyz").json() == {"ready": True, "release": bundle.bundle_id(bento / "src" / "bundle")}
        answer = client.post("/recommend", json={"user_id": "u"})
        assert [i["item_id"] for i in answer.json()["items"]] == ["b", "a"]


@pytest.mark.process
def test_a_pod_serves_the_bento_as_its_dockerfile_and_its_manifest_say(built, tmp_path):
    """Without a container: the entry point, arguments and variables of the two, in the Bento's own folder."""
    bento = built[0]
    instructions = read_dockerfile((bento / "env" / "docker" / "Dockerfile").read_text(encoding="utf-8"))
    said = dict(instructions)
    sources = [word for name, value in instructions if name == "COPY" for word in value.split()[1:-1]]
    assert sources and all((bento / source).exists() for source in sources)
    assert [value.split()[0] for name, value in instructions if name == "FROM"] == ["python:3.11-slim"]
    assert ("EXPOSE", str(kubernetes.PORT)) in instructions and said["USER"] not in ("root", "0")
    arguments = {value.partition("=")[::2] for name, value in instructions if name == "ARG"}
    assert {("BENTO_USER", said["USER"]), ("BENTO_USER_UID", str(kubernetes.USER))} <= arguments
    home = dict(arguments)["BENTO_PATH"] + "/"
    (entry_point,) = json.loads(said["ENTRYPOINT"])
    assert entry_point.startswith(home)

    pod = kubernetes.pod(replace(SHARED, workers=2))
    (container,) = pod["containers"]
    keys, port = tmp_path / "keys.json", free_port()
    key = add_key(keys, "shop", "read")
    plain = {e["name"]: e["value"] for e in container["env"] if "value" in e}
    moved = {"RECOPS_KEYS_FILE": str(keys), "BENTOML_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}
    assert set(moved) <= set(plain)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**plain, **moved, "BENTO_PATH": str(bento), "PATH": path}
    words = [str(port) if word == str(kubernetes.PORT) else word for word in container["args"]]
    command = ["bash", str(bento / entry_point.removeprefix(home)), *words]
    with started(command, port, environment, bento, pod["terminationGracePeriodSeconds"]) as client:
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert client.get(container[name]["httpGet"]["path"]).status_code == 200
        assert client.get("/release").status_code == 401
        client.headers["authorization"] = f"Bearer {key}"
        until = time.monotonic() + 20
        while "recops_workers_ready 2.0" not in client.get("/metrics").text:
            assert time.monotonic() < until
            time.sleep(0.1)


def read_dockerfile(text):
    """(instruction, the rest) of each; a backslash goes on with the next line."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in whole]
