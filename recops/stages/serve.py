"""Serves the promoted release of a project: what params.yaml says of the service, as the environment it reads.

In: a project. Out: this process becomes the server (recops/serving/launch.py). Knows nothing of what it answers.
"""

import http.client
import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from recops.bundle import read_pointer
from recops.errors import CallError
from recops.params import Params, ServeParams
from recops.serving.launch import serve as become_service
from recops.stages.ask import for_service
from recops.stages.project import Project, open_project


def as_environment(params: Params) -> dict[str, str]:
    """What params.yaml says of the service in the variables that it reads, wherever it runs; no files and addresses."""
    settings = params.serve
    return {
        "RECOPS_TIMEOUT_S": str(settings.timeout_s),
        "RECOPS_MAX_CONCURRENCY": str(settings.max_concurrency),
        "RECOPS_MAX_LAG_S": str(settings.max_lag_s),
        "RECOPS_MAX_BODY_BYTES": str(settings.max_body_bytes),
        "RECOPS_FEEDBACK_WINDOW_S": str(params.feedback.window_us / 1e6),
        "RECOPS_GUARDRAILS_S": str(settings.guardrails_s),
        "RECOPS_GRACE_S": str(settings.grace_s),
    }


def log_environment(settings: ServeParams) -> dict[str, str]:
    """Logs and traces as `serve` of params.yaml says; the same variables of who starts it come first."""
    found = {"RECOPS_LOG_FORMAT": settings.log_format, "RECOPS_ACCESS_LOG": str(int(settings.access_log))}
    return found if settings.otlp is None else {**found, "RECOPS_OTLP": settings.otlp}


def verify_key(project: Project) -> Path | None:
    """The public key that served bundles are signed for: RECOPS_VERIFY_KEY, else `serve.verify_key`."""
    if found := os.environ.get("RECOPS_VERIFY_KEY"):
        return Path(found)
    key = project.params.serve.verify_key
    return project.root / Path(key).expanduser() if key else None


def readyz(settings: ServeParams, port: int | None = None) -> int | None:
    """What /readyz of the service answers, 200 when it is ready; None where nothing answers."""
    host = settings.host if settings.host not in ("0.0.0.0", "::") else "127.0.0.1"
    where = f"[{host}]" if ":" in host else host
    address = f"http{'s' * (settings.tls_cert is not None)}://{where}:{port or settings.port}/readyz"
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE  # nothing is told to it or believed of it
    # Never through a proxy: it is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusting))
    try:
        with opener.open(address, timeout=2) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None


def serve(project: Project, host: str | None = None, port: int | None = None, workers: int | None = None) -> int:
    """The service as `serve` of params.yaml says; `host`, `port` and `workers` win. Raises CallError where nothing is
    released, and what launch.serve raises."""
    settings = project.params.serve
    found = {
        "RECOPS_KEYS_FILE": project.keys_file if project.keys_file.exists() else None,
        **log_environment(settings),
    }
    environment = {
        **{name: str(value) for name, value in found.items() if value is not None and not os.environ.get(name)},
        **for_service(project),
    }
    return _serve(
        project,
        environment,
        host or settings.host,
        port or settings.port,
        workers or settings.workers,
        tls=project.tls,
    )


def serve_for_a_look(project: Project, port: int) -> int:
    """The same release on loopback, for whoever is on this machine: without keys, TLS and a time of grace, and with the
    template for answers. Signatures count as ever."""
    for name in ("RECOPS_KEYS_FILE", "RECOPS_API_KEYS"):
        os.environ.pop(name, None)
    return _serve(project, {"RECOPS_GRACE_S": "0"}, "127.0.0.1", port, 1)


def _tenants(project: Project) -> dict[str, dict[str, Any]]:
    """What the service has to know of the projects of other tenants. RECOPS_STORE_NAME may hold the URL of a store."""
    found = {}
    for tenant, folder in project.params.serve.tenants.items():
        other = open_project(project.root / Path(folder).expanduser())
        rules, store = other.params.serve.rules, other.store_url_by(f"RECOPS_STORE_{tenant.upper()}")
        _move_in(other, store)
        found[tenant] = {
            "releases": str(other.releases),
            "store": store,
            "source": str(other.source_folder),
            "rules": str(other.root / rules) if rules else None,
            "feedback_window_s": other.params.feedback.window_us / 1e6,
        }
    return found


def _move_in(project: Project, store: str) -> None:
    from recops.stages.promote import move_in

    for release in move_in(project, store):
        print(
            f"warning: the store has no histories of release {release[:12]}, and {project.tables} has no events: who "
            "is known from the log alone gets what is popular",
            file=sys.stderr,
        )


def _serve(
    project: Project,
    environment: dict[str, str],
    host: str,
    port: int,
    workers: int,
    tls: tuple[Path, Path] | None = None,
) -> int:
    if read_pointer(project.releases) is None:
        raise CallError(f"{project.releases}: nothing is released yet; run: recops run")
    if key := verify_key(project):
        environment["RECOPS_VERIFY_KEY"] = str(key)
    _move_in(project, project.store_url)
    return become_service(
        releases=project.releases,
        bundle=None,
        store=project.store_url,
        host=host,
        port=port,
        workers=workers,
        environment={
            **project.environment(),
            "RECOPS_SOURCE": str(project.source_folder),
            "RECOPS_TENANTS": json.dumps(_tenants(project)),
            "RECOPS_RULES": str(project.rules_file or ""),
            **as_environment(project.params),
            **environment,
        },
        tls=tls,
    )
