"""`recops up --print`: a systemd unit or a compose file that keeps a project up, for those who want them.

In: a project. Out: text, with the paths of this machine and no secret. Starts nothing.
"""

import getpass
import os
import sys
from pathlib import Path
from typing import Any, Literal

import yaml

from recops import __version__
from recops.stages import supervisor
from recops.stages.project import Project

Kind = Literal["systemd", "compose"]
STOP_S = 90  # what ending may take: answers, runs that say they crashed, the server


def text(project: Project, kind: Kind, port: int) -> str:
    return systemd(project, port) if kind == "systemd" else compose(project, port)


def systemd(project: Project, port: int) -> str:
    """A unit for the user who asks. Secrets come from a file that only this user may read."""
    command = [sys.executable, "-m", "recops.cli", "up", "--foreground", "-C", str(project.root), "--port", str(port)]
    secrets = project.up / "environment"
    return f"""# recops up --print systemd > /etc/systemd/system/recops.service
# systemctl enable --now recops; then recops status -C {project.root}. `systemctl stop recops` instead of `recops down`.
[Unit]
Description=recops: {project.root}
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
User={getpass.getuser()}
WorkingDirectory={_escaped(str(project.root), quoted=False)}
# RECOPS_STORE, RECOPS_PREFECT_DATABASE and other secrets, NAME=VALUE a line; chmod 600.
EnvironmentFile=-{_escaped(str(secrets), quoted=False)}
ExecStart={" ".join(_escaped(word) for word in command)}
# Killed, it is started again; `recops down` ends it for good. Its parts are told by it alone.
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2
KillMode=mixed
TimeoutStopSec={STOP_S}
NoNewPrivileges=true
UMask=0077

[Install]
WantedBy=multi-user.target
"""


def _escaped(word: str, quoted: bool = True) -> str:
    """As systemd reads it: `%` begins a specifier and, in commands, `$` a variable."""
    word = word.replace("%", "%%")
    if not quoted:
        return word
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{word}"' if any(c in word for c in " \t'\"\\;") else word


def compose(project: Project, port: int) -> str:
    """The project in one container and PostgreSQL in another, for store and Prefect.

    On the network of the machine, so that loopback stays loopback; the project's folder keeps its path, which Prefect
    and DVC write down.
    """
    user = f"{os.getuid()}:{os.getgid()}"
    url = "postgresql://recops:${POSTGRES_PASSWORD:?}@127.0.0.1:${POSTGRES_PORT:-5432}"
    command = ["recops", "up", "--foreground", "-C", str(project.root), "--port", str(port)]
    dockerfile = f"""FROM python:{sys.version_info.major}.{sys.version_info.minor}-slim
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir 'recops[postgres]=={__version__}'
"""
    healthy = [
        "CMD",
        "python",
        "-c",
        f"import urllib.request as u; u.urlopen('{supervisor.server_url(project)}/health')",
    ]
    objects: dict[str, Any] = {
        "name": "recops",
        "services": {
            "recops": {
                "build": {"dockerfile_inline": dockerfile},
                "command": _for_compose(command),
                "init": True,
                "user": user,
                "working_dir": _dollars(str(project.root)),
                "network_mode": "host",
                "environment": {
                    "HOME": _dollars(str(project.state)),
                    "RECOPS_STORE": f"{url}/recops",
                    "RECOPS_PREFECT_DATABASE": f"{url}/prefect",
                },
                "volumes": [
                    {"type": "bind", "source": _dollars(str(p)), "target": _dollars(str(p))} for p in mounts(project)
                ],
                "depends_on": {"postgres": {"condition": "service_healthy"}},
                "healthcheck": {"test": healthy, "interval": "30s", "timeout": "10s", "start_period": "120s"},
                "restart": "unless-stopped",
                "stop_grace_period": f"{STOP_S}s",
            },
            "postgres": {
                "image": "postgres:17",
                "environment": {"POSTGRES_USER": "recops", "POSTGRES_PASSWORD": "${POSTGRES_PASSWORD:?}"},
                "ports": ["127.0.0.1:${POSTGRES_PORT:-5432}:5432"],
                "volumes": ["postgres:/var/lib/postgresql/data"],
                "configs": [{"source": "prefect_database", "target": "/docker-entrypoint-initdb.d/prefect.sql"}],
                "healthcheck": {"test": ["CMD", "pg_isready", "-U", "recops"], "interval": "5s", "retries": 12},
                "restart": "unless-stopped",
            },
        },
        "volumes": {"postgres": {}},
        "configs": {"prefect_database": {"content": "CREATE DATABASE prefect;\n"}},
    }
    about = (
        "# recops up --print compose > compose.yaml; POSTGRES_PASSWORD=… docker compose up -d\n"
        "# On Linux: the containers are on the machine's own network, the service and Prefect where params.yaml says.\n"
    )
    return about + yaml.safe_dump(objects, sort_keys=False, width=120)


def mounts(project: Project) -> list[Path]:
    """The project, and its source where that lies elsewhere."""
    source = project.source_folder.resolve()
    return [project.root] if source.is_relative_to(project.root) else [project.root, source]


def _for_compose(words: list[str]) -> list[str]:
    return [_dollars(word) for word in words]


def _dollars(word: str) -> str:
    """`$` begins a variable."""
    return word.replace("$", "$$")
