"""The Bento: built from a bundle, served by `bentoml serve` with that bundle and nothing else."""

import ast
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest
import yaml

from recops import bundle
from recops.errors import BundleError
from recops.release.bento import PACKAGE, bento_tag, bentofile, build_bento


@pytest.fixture
def folder(tmp_path):
    """A bundle of two items that scores by popularity."""
    folder = tmp_path / "bundle"
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


def test_the_bentofile_asks_only_for_what_the_service_needs():
    wanted = yaml.safe_load(bentofile().read_text(encoding="utf-8"))
    names = {package.split(">")[0] for package in wanted["python"]["packages"]}
    optional = {"faiss-cpu", "pillow", "scipy", "soundfile", "tokenizers"}
    own = {
        *{"bentoml", "cryptography", "numpy", "onnxruntime", "opentelemetry-exporter-otlp-proto-http"},
        *{"prometheus-client", "psycopg[binary,pool]", "pydantic", "pyyaml", "starlette"},
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


def test_a_damaged_bundle_is_not_packaged(folder, tmp_path):
    (folder / bundle.SCORES).unlink()
    with pytest.raises(BundleError, match="item_scores"):
        build_bento(folder, {"BENTOML_HOME": str(tmp_path / "home")}, {})


@pytest.mark.process
def test_the_bento_serves_its_bundle(folder, tmp_path):
    environment = {**os.environ, "BENTOML_HOME": str(tmp_path / "home")}
    labels = {"commit": "none", "data": "abc", "ndcg_at_10": "0.5"}
    tag = build_bento(folder, environment, {"commit": "older"})
    assert build_bento(folder, environment, labels) == tag == bento_tag(bundle.bundle_id(folder))
    bento = tmp_path / "home" / "bentos" / "recops" / tag.partition(":")[2]
    assert yaml.safe_load((bento / "bento.yaml").read_text(encoding="utf-8"))["labels"] == labels
    assert not (bento / "src" / "recops" / "models").exists()
    assert list((tmp_path / "home").glob("build-*")) == []

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Away from the checkout, without any RECOPS_ setting.
    process = subprocess.Popen(
        [sys.executable, "-m", "bentoml", "serve", tag, "--port", str(port)], env=environment, cwd=tmp_path
    )
    try:
        for _ in range(600):
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False, timeout=10)
                if answer.status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert process.poll() is None
            time.sleep(0.1)
        assert answer.json() == {"ready": True, "release": bundle.bundle_id(folder)}
        answer = httpx.post(f"http://127.0.0.1:{port}/recommend", json={"user_id": "u"}, trust_env=False, timeout=10)
        assert [i["item_id"] for i in answer.json()["items"]] == ["b", "a"]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
