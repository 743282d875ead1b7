"""What the service is told by its environment; the only reader of `RECOPS_*` variables in the service."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recops.errors import CallError


@dataclass(frozen=True)
class Settings:
    """`releases`: folder with the pointer; `bundle`: the release to start with; `store`: URL of the store, None: no
    user histories, no log of answers and no new items. `source`: folder of the files that items name. `keys` empty:
    the service answers on loopback only."""

    releases: Path | None = None
    bundle: Path | None = None
    store: str | None = None
    source: Path | None = None
    threads: int = 1
    workers: int = 1
    timeout_s: float = 2.0
    max_concurrency: int = 64
    max_body_bytes: int = 1_048_576
    keys: tuple[str, ...] = ()
    poll_s: float = 0.5


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from `RECOPS_*` variables; empty ones count as not set. Raises CallError naming the variable."""

    def value(name: str) -> str | None:
        return environment.get(f"RECOPS_{name}") or None

    def number(name: str, default: float, lowest: float) -> float:
        text = value(name)
        try:
            found = default if text is None else float(text)
        except ValueError:
            found = float("nan")
        if not lowest <= found < 1e12:
            raise CallError(f"RECOPS_{name}: expected a number of at least {lowest:g}, found {text!r}")
        return found

    releases, bundle, source = value("RELEASES"), value("BUNDLE"), value("SOURCE")
    return Settings(
        releases=Path(releases) if releases else None,
        bundle=Path(bundle) if bundle else None,
        store=value("STORE"),
        source=Path(source) if source else None,
        threads=int(number("THREADS", 1, 1)),
        workers=int(number("WORKERS", 1, 1)),
        timeout_s=number("TIMEOUT_S", 2.0, 0.001),
        max_concurrency=max(1, int(number("MAX_CONCURRENCY", 64, 1))),
        max_body_bytes=int(number("MAX_BODY_BYTES", 1_048_576, 1)),
        keys=tuple(k.strip() for k in (value("API_KEYS") or "").split(",") if k.strip()),
    )
