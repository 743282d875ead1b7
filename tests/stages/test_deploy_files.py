"""What `recops deploy-files` writes of a project, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from recops.bundle import Pointer, release_folder, write_pointer
from recops.errors import CallError
from recops.release.bento import bento_folder
from recops.serving.keys import add_key
from recops.serving.settings import read_settings
from recops.signing import make_keys
from recops.stages import serve as serve_stage
from recops.stages.deploy_files import deploy_files
from recops.stages.project import Project

RELEASE = "0123456789abcdef" * 4
PARAMS = """
serve: {port: 4000, workers: 3, timeout_s: 1.5, max_concurrency: 9, max_lag_s: 0.2, max_body_bytes: 99, grace_s: 7,
        log_format: json, access_log: true, otlp: "http://traces.shop.example:4318"}
"""
POSTGRES = "postgresql://shop:secret@db/recops"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Released, with the Bento of the release and a key; the store is an SQLite file."""
    for name in ("RECOPS_KEYS_FILE", "RECOPS_API_KEYS", "RECOPS_VERIFY_KEY", "RECOPS_RULES", "RECOPS_STORE"):
        monkeypatch.delenv(name, raising=False)
    project = Project(tmp_path / "my shop")
    project.root.mkdir()
    project.params_file.write_text(PARAMS)
    write_pointer(project.releases, Pointer(RELEASE), expected=None)
    release_folder(project.releases, RELEASE).mkdir()
    (release_folder(project.releases, RELEASE) / "items.json").write_bytes(b"x" * 3 * 1024**2)
    docker = bento_folder(RELEASE, project.environment()) / "env" / "docker"
    docker.mkdir(parents=True)
    (docker / "Dockerfile").write_text("FROM python:3.11-slim\n")
    add_key(project.keys_file, "shop", "read")
    return project


def written(project: Project, **options: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The objects by kind, and what was said by its first word."""
    out = project.root / "deploy"
    said = deploy_files(project, out, **{"image": "recops", "replicas": None, **options})
    found = list(yaml.safe_load_all((out / "kubernetes.yaml").read_text(encoding="utf-8")))
    return {made["kind"]: made for made in found}, dict(said)


def container(found: dict[str, Any]) -> dict[str, Any]:
    return found["Deployment"]["spec"]["template"]["spec"]["containers"][0]


def plain(found: dict[str, Any]) -> dict[str, str]:
    return {e["name"]: e["value"] for e in container(found)["env"] if "value" in e}


def test_pods_are_told_what_recops_serve_tells(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, Any] = {}
    monkeypatch.setattr(serve_stage, "become_service", lambda **options: started.update(options) or 0)
    serve_stage.serve(project)
    here, there = read_settings(started["environment"]), read_settings(plain(written(project)[0]))
    names = ("timeout_s", "max_concurrency", "max_lag_s", "max_body_bytes", "grace_s", "ask_url", "threads")
    names += ("feedback_window_us", "guardrails_s", "log_format", "access_log", "otlp")
    assert [getattr(here, name) for name in names] == [getattr(there, name) for name in names]
    assert there.workers == started["workers"] == 3


def test_one_pod_with_a_volume_where_the_store_is_a_file(project: Project) -> None:
    found, said = written(project)
    assert found["Deployment"]["spec"]["replicas"] == 1 and "PersistentVolumeClaim" in found
    assert "SQLite" in said["One pod"] and "postgresql://" in said["One pod"]
    with pytest.raises(CallError, match=r"--replicas 2: the store is an SQLite file.*postgresql://HOST/DATABASE"):
        written(project, replicas=2)


def test_several_pods_where_postgresql_is_the_store(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOPS_STORE", POSTGRES)
    found, said = written(project)
    assert found["HorizontalPodAutoscaler"]["spec"]["minReplicas"] == 2
    assert "One pod" not in said
    assert written(project, replicas=7)[0]["HorizontalPodAutoscaler"]["spec"]["minReplicas"] == 7
    # What was written before for one pod is gone.
    assert "PersistentVolumeClaim" not in found
    text = (project.root / "deploy" / "kubernetes.yaml").read_text() + "".join(said.values())
    assert "shop:secret" not in text and "secretKeyRef" in text


def test_the_image_is_built_from_the_bento_of_the_release(project: Project) -> None:
    found, said = written(project, image="registry.shop.example:5000/team/recops")
    image = f"registry.shop.example:5000/team/recops:{RELEASE[:32]}"
    assert container(found)["image"] == image
    out, bento = project.root / "deploy", bento_folder(RELEASE, project.environment())
    assert said["Build"] == f"docker build -t {image} -f '{out}/Dockerfile' '{bento}'"
    assert (out / "Dockerfile").read_text() == "FROM python:3.11-slim\n"
    assert container(found)["resources"]["requests"]["memory"] == "1042Mi"  # 256, and three times 256 and twice 3
    for name in ("recops:mine", f"recops@sha256:{'0' * 64}", "10.0.0.1:5000/a__b/c--d.e:1"):
        assert container(written(project, image=name)[0])["image"] == name
    wrong = (
        "",
        "Recops",
        "a b",
        "recops:",
        "-x",
        "a//",
        "recops:1:2",
        "a//b",
        "a/../b",
        "a/.b",
        "a___b",
        "a..b",
        "-a/b",
    )
    for name in (*wrong, "b\u00fccher/x", "recops\n", "recops:\u0661", "r:1/recops:2:3"):
        with pytest.raises(CallError, match="--image"):
            written(project, image=name)


def test_rules_and_the_key_of_signatures_go_along(project: Project, tmp_path: Path) -> None:
    make_keys(project.root / "sign.pem")
    public = next(path for path in project.root.glob("sign*") if "PUBLIC" in path.read_text())
    (project.root / "rules.json").write_text('{"available": true}')
    project.params_file.write_text(f"serve: {{rules: rules.json, verify_key: {public.name}}}\n")
    found, _ = written(project)
    assert found["ConfigMap"]["data"] == {"rules.json": '{"available": true}', "verify.pem": public.read_text()}
    assert plain(found)["RECOPS_RULES"].endswith("/rules.json")
    assert plain(found)["RECOPS_VERIFY_KEY"].endswith("/verify.pem")
    (project.root / "rules.json").write_text('{"available": 7}')
    with pytest.raises(CallError, match=r"rules\.json: available"):
        written(project)
    (project.root / "rules.json").write_text('{"available": true' + " " * 1_000_000 + "}")
    with pytest.raises(CallError, match=r"rules\.json: larger than the 1,000,000 bytes"):
        written(project)


def test_tls_and_a_language_model(project: Project) -> None:
    model = "{language_model: small, url: 'https://model.shop.example/v1', key_env: MODEL_KEY}"
    project.params_file.write_text(f"serve: {{tls_cert: a.pem, tls_key: b.pem}}\nask: {model}\n")
    found, said = written(project)
    assert plain(found)["RECOPS_ASK_URL"] == "https://model.shop.example/v1"
    assert "RECOPS_ASK_KEY" in {e["name"] for e in container(found)["env"] if "valueFrom" in e}
    assert "RECOPS_ASK_KEY=" in said["Secret"]
    assert f"--cert '{project.root}/a.pem'" in said["TLS"]
    assert "--ssl-certfile" in container(found)["args"]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ("ask: {language_model: smollm2}", "ask.language_model: smollm2 runs beside `recops serve`"),
        (
            "ask: {language_model: m, url: 'http://127.0.0.1:8000/v1'}",
            "ask.url: http://127.0.0.1:8000/v1 is this machine",
        ),
        ("serve: {otlp: 'https://shop:secret@traces.example'}", "serve.otlp: holds a name or a password, which would"),
        ("serve: {otlp: 'http://localhost:4318'}", "serve.otlp: http://localhost:4318 is this machine"),
        ("serve: {tenants: {other: ../other}}", "serve.tenants: an image holds the release of one project"),
        ("serve: {rules: none.yaml}", "none.yaml: no such file of rules"),
        ("serve: {verify_key: none.pub}", "none.pub: cannot be read"),
    ],
)
def test_what_no_pod_can_reach_is_refused(project: Project, params: str, said: str) -> None:
    project.params_file.write_text(params)
    with pytest.raises(CallError, match=said):
        written(project)
    assert not (project.root / "deploy").exists()


def test_what_is_missing_is_named(project: Project) -> None:
    (project.root / "file").write_text("")
    with pytest.raises(CallError, match="file: is a file; name a folder"):
        deploy_files(project, project.root / "file", "recops", None)
    project.keys_file.write_text('{"keys": []}')
    with pytest.raises(CallError, match="holds no keys"):
        written(project)
    project.keys_file.unlink()
    with pytest.raises(CallError, match="holds no keys"):
        written(project)
    bento_folder(RELEASE, project.environment()).rename(project.root / "elsewhere")
    with pytest.raises(CallError, match="no Bento of the served release"):
        written(project)
    (project.releases / "main" / "current.json").unlink()
    with pytest.raises(CallError, match="nothing is released yet"):
        written(project)
