"""The systemd unit and the compose file of a project; systemd and docker compose read them where they are installed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from recops.stages.project import Project, open_project
from recops.stages.up_files import text


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Its folder has a name with what both files take for something else."""
    folder = tmp_path / "my $HOME 100%"
    folder.mkdir()
    (folder / "params.yaml").write_text("up: {server_port: 4321}\nsource: {name: files, path: ../logs/a.csv}\n")
    (tmp_path / "logs").mkdir()
    return open_project(folder)


def test_the_unit_runs_up_in_the_foreground(project: Project) -> None:
    lines = text(project, "systemd", 3100).splitlines()
    command = next(line for line in lines if line.startswith("ExecStart="))
    root = str(project.root).replace("$", "$$").replace("%", "%%")
    assert command.endswith(f'-m recops.cli up --foreground -C "{root}" --port 3100')
    assert {"Restart=on-failure", "KillMode=mixed"} <= set(lines)
    assert not any("RECOPS_STORE=" in line for line in lines)


@pytest.mark.process
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(project: Project, tmp_path: Path) -> None:
    unit = tmp_path / "recops.service"
    unit.write_text(text(project, "systemd", 3100))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    assert "recops.service" not in done.stderr, done.stderr


def test_the_compose_file_mounts_what_is_read_and_holds_no_secret(project: Project) -> None:
    found = yaml.safe_load(text(project, "compose", 3100))["services"]
    recops = found["recops"]
    root = str(project.root).replace("$", "$$")
    assert recops["command"] == ["recops", "up", "--foreground", "-C", root, "--port", "3100"]
    assert [volume["source"] for volume in recops["volumes"]] == [root, str(project.root.parent / "logs")]
    assert "4321" in json.dumps(recops["healthcheck"])
    assert found["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD")
    assert all(port.startswith("127.0.0.1:") for port in found["postgres"]["ports"])


def has_compose() -> bool:
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0


@pytest.mark.process
@pytest.mark.skipif(not has_compose(), reason="docker compose is not installed")
def test_docker_compose_takes_the_file(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(text(project, "compose", 3100))
    done = subprocess.run(
        ["docker", "compose", "-f", file, "config", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/usr/local/bin:/bin", "POSTGRES_PASSWORD": "p", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["services"]["recops"]["volumes"][0]["source"] == str(project.root)
