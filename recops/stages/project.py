"""Where everything of a project lies, and the environment its tools run in. The only place that decides paths.

Data, model, bundle and reports are outputs of dvc.yaml; `.recops/` holds all state of Prefect, BentoML, DVC and the
store, so that nothing is written to the user's home; `releases/` holds what is and was served.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from recops.errors import CallError
from recops.params import Params, read_params

# What recops starts sends no telemetry anywhere.
QUIET = {
    "GX_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "true",
    "BENTOML_DO_NOT_TRACK": "True",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}

# Threads that wait for each other sleep instead of spinning: on a busy machine that is several times faster.
CALM = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}


@dataclass(frozen=True)
class Project:
    """A project folder; every path of it is a property. Nothing is created by asking."""

    root: Path

    @property
    def params_file(self) -> Path:
        return self.root / "params.yaml"

    @property
    def params(self) -> Params:
        """All settings, read anew. Raises CallError where there is no params.yaml or it is wrong."""
        return read_params(self.params_file)

    @property
    def rules_file(self) -> Path | None:
        """The file that `serve.rules` names, else RECOPS_RULES; None where neither does."""
        if rules := self.params.serve.rules:
            return self.root / rules
        return Path(rules) if (rules := os.environ.get("RECOPS_RULES")) else None

    @property
    def expectations(self) -> Path:
        return self.root / "expectations"

    @property
    def data(self) -> Path:
        """events, items, users, rejected (Parquet) and counts.json, written by ingest."""
        return self.root / "data"

    @property
    def tables(self) -> Path:
        return self.data / "tables"

    @property
    def split(self) -> Path:
        return self.data / "split"

    @property
    def encoded(self) -> Path:
        return self.data / "encoded"

    @property
    def encoders(self) -> Path:
        """Exported encoders and the vectors they made, kept from run to run: DVC deletes a stage's outputs."""
        return self.state / "encoders"

    @property
    def model(self) -> Path:
        """One folder a fitted model: `model/sasrec/` and its baselines."""
        return self.root / "model"

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def state(self) -> Path:
        return self.root / ".recops"

    @property
    def accepted(self) -> Path:
        """The profile of the data last accepted: `{}` until the first release."""
        return self.state / "accepted.json"

    @property
    def feedback(self) -> Path:
        """What was told to the service and counts in training: see `data/feedback.py`; `{}` until anything was."""
        return self.state / "feedback.json"

    @property
    def feedback_parts(self) -> Path:
        return self.data / "feedback"

    @property
    def erasure_key(self) -> Path:
        """The key of the hashes in the list of erased users; missing where nobody was."""
        return self.state / "erasure.key"

    @property
    def audit_spool(self) -> Path:
        """Decisions that the store has not taken yet, a JSON object a line; empty or missing when it has all."""
        return self.state / "audit.jsonl"

    @property
    def quarantine(self) -> Path:
        """Data versions that are not trained on again; missing where there never was any."""
        return self.state / "quarantine.json"

    @property
    def code(self) -> Path:
        """A hash of each stage's code; only in projects whose dvc.yaml does not list the code itself."""
        return self.state / "code.yaml"

    @property
    def refused(self) -> Path:
        """Why the stage that ran last refused what it was given; missing when it did not."""
        return self.state / "refused.json"

    @property
    def source_folder(self) -> Path:
        """What paths in the table of items are relative to: the source's folder, or the project's where it has none."""
        path = self.root / (self.params.source.path or "")
        return path if path.is_dir() else path.parent

    @property
    def releases(self) -> Path:
        return self.root / "releases"

    @property
    def store_url(self) -> str:
        """RECOPS_STORE or `serve.store`, such as postgresql://HOST/DATABASE; else an SQLite file in the project."""
        return self.store_url_by("RECOPS_STORE")

    def store_url_by(self, variable: str) -> str:
        """`store_url` where another variable of the environment holds the URL."""
        return os.environ.get(variable) or self.params.serve.store or f"sqlite:///{self.state / 'store.sqlite'}"

    @property
    def keys_file(self) -> Path:
        """Digests of the keys that the service takes; missing where none was ever made."""
        return self.state / "keys.json"

    @property
    def bin(self) -> Path:
        """Holds a link to the `recops` that last worked here, so that `dvc repro` finds it without activation."""
        return self.state / "bin"

    @property
    def up(self) -> Path:
        """Lock, state and log files of `recops up`."""
        return self.state / "up"

    @property
    def tls(self) -> tuple[Path, Path] | None:
        """Files of the certificate and its private key that the service answers HTTPS with; None: HTTP."""
        serve = self.params.serve
        if serve.tls_cert is None or serve.tls_key is None:
            return None
        return self.root / Path(serve.tls_cert).expanduser(), self.root / Path(serve.tls_key).expanduser()

    def environment(self) -> dict[str, str]:
        """The environment for Prefect, DVC and BentoML: state inside the project, no telemetry, this Python first."""
        state = self.state
        return {
            **os.environ,
            **QUIET,
            **CALM,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "PREFECT_HOME": str(state / "prefect"),
            # A busy or slow machine needs longer than the default of 20 s.
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
            "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
            "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(3600 + self.params.retention.days * 86_400),
            "BENTOML_HOME": str(state / "bentoml"),
            "DVC_SITE_CACHE_DIR": str(state / "dvc" / "site"),
            "DVC_GLOBAL_CONFIG_DIR": str(state / "dvc" / "global"),
            "DVC_SYSTEM_CONFIG_DIR": str(state / "dvc" / "system"),
        }


def open_project(folder: Path) -> Project:
    """The project in `folder`, its state folder made ready. Raises CallError where there is no params.yaml."""
    project = Project(folder.resolve())
    if not project.params_file.is_file():
        raise CallError(f"{project.params_file}: no such file; `recops init DIR --events F` makes a project")
    os.environ.update(QUIET | CALM)
    project.bin.mkdir(parents=True, exist_ok=True)
    project.state.chmod(0o700)
    link, target = project.bin / "recops", Path(sys.executable).parent / "recops"
    if target.exists() and (not link.is_symlink() or link.readlink() != target):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    for file in (project.accepted, project.feedback):
        if not file.exists():
            file.write_text("{}\n", encoding="utf-8")
    return project
