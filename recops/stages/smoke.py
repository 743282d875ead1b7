"""Smoke test of a release just promoted: a real service is started on it and asked; a failing release is undone."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from recops.bundle import read_pointer
from recops.errors import RefusedError
from recops.ports import free_port
from recops.stages.project import Project
from recops.stages.rollback import rollback

# Gone as soon as the run that asks it is: a kill must not leave a service behind.
SERVE = (
    "import sys; from pathlib import Path; from recops.serving.parent import follow_parent; follow_parent(); "
    "from recops.stages.project import Project; from recops.stages.serve import serve_for_a_look; "
    "serve_for_a_look(Project(Path(sys.argv[1])), int(sys.argv[2]))"
)


def smoke_test(project: Project, timeout_s: float = 60.0) -> dict[str, Any]:
    """The answer of the served release to one user of nothing known. Raises RefusedError after rolling back when the
    service does not get ready, answers from another release or answers without items."""
    pointer = read_pointer(project.releases)
    assert pointer is not None, "called after a promotion"
    port = free_port()
    command = [sys.executable, "-c", SERVE, str(project.root), str(port)]
    logs = project.state / "logs"
    logs.mkdir(exist_ok=True)
    with (logs / "smoke.log").open("w") as log:
        process = subprocess.Popen(command, env=project.environment(), stdout=log, stderr=subprocess.STDOUT)
        try:
            answer = ask(f"http://127.0.0.1:{port}", process, timeout_s)
            problem = None
            if answer["release"] != pointer.release:
                problem = f"answered from release {answer['release'][:12]}"
            elif not answer["items"]:
                problem = "answered without items"
        except (OSError, ValueError, KeyError) as error:
            answer, problem = {}, f"gave no answer ({error})"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
    if problem:
        if pointer.history:
            # Also to a release in quarantine: this one answers nobody.
            rollback(project, "smoke test", f"the service {problem}", force=True)
        raise RefusedError(f"release {pointer.release[:12]}: the service {problem}; see {logs / 'smoke.log'}")
    return answer


def ask(url: str, process: subprocess.Popen, timeout_s: float) -> dict[str, Any]:
    """Waits until the service is ready and asks for ten items. Raises OSError when it ends or is not ready in time."""
    until = time.monotonic() + timeout_s
    while True:
        if process.poll() is not None:
            raise OSError(f"the service ended with exit code {process.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                break
        except (urllib.error.URLError, OSError):
            if time.monotonic() > until:
                raise OSError(f"the service was not ready after {timeout_s:.0f} s") from None
            time.sleep(0.1)
    body = json.dumps({"user_id": "smoke test: nobody", "k": 10}).encode()
    request = urllib.request.Request(f"{url}/recommend", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.loads(response.read())
