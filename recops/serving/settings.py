"""What the service is told by its environment; the only reader of `RECOPS_*` variables in the service."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import cast, get_args

from recops.errors import CallError
from recops.serving.assistant.language_model import LanguageModel
from recops.serving.keys import NAME, fixed_key
from recops.serving.logs import Format
from recops.serving.ruleset import NO_RULES, Rules, read_rules
from recops.serving.tracing import traces_url

OWN = ("releases", "store", "source", "rules", "feedback_window_s")  # of each tenant beside the first


@dataclass(frozen=True)
class Settings:
    """`releases`: folder with the pointer; `bundle`: the release to start with; `store`: URL of the store, None: no
    user histories, no events, no log of answers and no new items. `source`: folder of the files that items name.
    `keys` (KEY or ROLE:KEY) empty and no `keys_file`: the service answers on loopback only. `verify_key`: file of a
    public key, only bundles signed for it are served. `grace_s`: told to end, the service answers so long. `tenant`:
    whose the service is; no other tenant's key is let in. `max_clock_skew_s`: how far ahead of our clock an event may
    lie. `feedback_window_us`: how long after an answer what follows is put down to it. `guardrails_s`: between two
    looks at them. `access_log`: a line for each request. `otlp`: where a collector takes traces. `ask_url`: an
    OpenAI-compatible server that phrases answers to questions. `rules`: what holds in every answer. `others`: those of
    other tenants of the same service, each with its own releases, store, source, rules and window; all else is as here.

    Secrets stand in no representation of it, so that none gets into a log."""

    releases: Path | None = None
    bundle: Path | None = None
    store: str | None = None
    source: Path | None = None
    threads: int = 1
    workers: int = 1
    timeout_s: float = 2.0
    max_concurrency: int = 64
    max_lag_s: float = 0.05
    max_body_bytes: int = 1_048_576
    keys: tuple[str, ...] = field(default=(), repr=False)
    keys_file: Path | None = None
    verify_key: Path | None = None
    grace_s: float = 2.0
    tenant: str = "main"
    poll_s: float = 0.5
    log_format: Format = "text"
    access_log: bool = False
    otlp: str | None = None
    max_clock_skew_s: float = 300.0
    feedback_window_us: int = 86_400_000_000
    guardrails_s: float = 30.0
    ask_url: str | None = None
    ask_model: str = ""
    ask_key: str | None = field(default=None, repr=False)
    ask_timeout_s: float = 5.0
    ask_max_tokens: int = 96
    ask_max_concurrency: int = 2
    ask_understands: bool = False
    rules: Rules = NO_RULES
    others: tuple["Settings", ...] = ()

    @cached_property
    def language_model(self) -> LanguageModel | None:
        """What phrases answers to questions; None without `ask_url`. Calls at once are shared by the workers."""
        if self.ask_url is None:
            return None
        return LanguageModel(
            self.ask_url,
            self.ask_model,
            self.ask_key,
            self.ask_timeout_s,
            self.ask_max_tokens,
            max(1, self.ask_max_concurrency // self.workers),
            self.ask_understands,
        )


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from `RECOPS_*` variables; empty ones count as not set. Raises CallError naming the variable that is
    wrong, or file and key of the rules."""

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

    def path(name: str) -> Path | None:
        text = value(name)
        return Path(text) if text else None

    log_format = value("LOG_FORMAT") or "text"
    if log_format not in get_args(Format):
        raise CallError(f"RECOPS_LOG_FORMAT: expected {' or '.join(get_args(Format))}, found {log_format!r}")
    settings = Settings(
        releases=path("RELEASES"),
        bundle=path("BUNDLE"),
        store=value("STORE"),
        source=path("SOURCE"),
        threads=int(number("THREADS", 1, 1)),
        workers=int(number("WORKERS", 1, 1)),
        timeout_s=number("TIMEOUT_S", 2.0, 0.001),
        max_concurrency=max(1, int(number("MAX_CONCURRENCY", 64, 1))),
        max_lag_s=number("MAX_LAG_S", 0.05, 0.001),
        max_body_bytes=int(number("MAX_BODY_BYTES", 1_048_576, 1)),
        max_clock_skew_s=number("MAX_CLOCK_SKEW_S", 300.0, 0),
        feedback_window_us=round(number("FEEDBACK_WINDOW_S", 86_400.0, 1) * 1e6),
        guardrails_s=number("GUARDRAILS_S", 30.0, 0.1),
        ask_url=value("ASK_URL"),
        ask_model=value("ASK_MODEL") or "",
        ask_key=value("ASK_KEY"),
        ask_timeout_s=number("ASK_TIMEOUT_S", 5.0, 0.001),
        ask_max_tokens=int(number("ASK_MAX_TOKENS", 96, 1)),
        ask_max_concurrency=int(number("ASK_MAX_CONCURRENCY", 2, 1)),
        ask_understands=number("ASK_UNDERSTANDS", 0, 0) > 0,
        keys_file=path("KEYS_FILE"),
        verify_key=path("VERIFY_KEY"),
        grace_s=number("GRACE_S", 2.0, 0),
        log_format=cast(Format, log_format),
        access_log=number("ACCESS_LOG", 0, 0) > 0,
        otlp=traces_url(value("OTLP"), "RECOPS_OTLP (serve.otlp)"),
        rules=read_rules(path("RULES")),
        keys=tuple(k.strip() for k in (value("API_KEYS") or "").split(",") if k.strip()),
    )
    for place, key in enumerate(settings.keys, start=1):
        fixed_key(place, key)
    return replace(settings, others=_others(settings, value("TENANTS")))


def _others(main: Settings, text: str | None) -> tuple[Settings, ...]:
    """Settings of other tenants from JSON: an object of tenants, each an object of OWN."""
    try:
        named = json.loads(text or "{}")
    except ValueError as error:
        raise CallError(f"RECOPS_TENANTS: not JSON ({error})") from None
    if not isinstance(named, dict) or not all(isinstance(own, dict) for own in named.values()):
        raise CallError('RECOPS_TENANTS: expected {"NAME": {"releases": FOLDER, "store": URL}}')
    found = []
    for tenant, own in named.items():
        where = f"RECOPS_TENANTS: {tenant}"
        if not re.fullmatch(NAME, tenant) or tenant == main.tenant:
            raise CallError(f"{where}: no name for another tenant")
        if unknown := sorted(set(own) - set(OWN)):
            raise CallError(f"{where}: unknown key {unknown[0]}; there are {', '.join(OWN)}")
        if not isinstance(own.get("releases"), str):
            raise CallError(f"{where}: releases: expected a folder")
        window_s = own.get("feedback_window_s", main.feedback_window_us / 1e6)
        if isinstance(window_s, bool) or not isinstance(window_s, int | float) or not 1 <= window_s < 1e12:
            raise CallError(f"{where}: feedback_window_s: expected a number of at least 1, found {window_s!r}")
        for name in ("store", "source", "rules"):
            if not isinstance(own.get(name), str | None):
                raise CallError(f"{where}: {name}: expected text, found {type(own[name]).__name__}")
        found.append(
            replace(
                main,
                tenant=tenant,
                bundle=None,
                releases=Path(own["releases"]),
                store=own.get("store"),
                source=Path(own["source"]) if own.get("source") else None,
                rules=read_rules(Path(own["rules"]) if own.get("rules") else None),
                feedback_window_us=round(window_s * 1e6),
            )
        )
    for what in ("store", "releases"):
        values = [_place(value) for one in (main, *found) if (value := getattr(one, what)) is not None]
        if len(set(values)) < len(values):
            raise CallError(f"RECOPS_TENANTS: two tenants have the same {what}; each needs its own")
    return tuple(found)


def _place(where: Path | str) -> str:
    """The same for all ways to write one folder, or one file of a store."""
    if isinstance(where, Path):
        return os.path.realpath(where)
    kind, _, path = where.partition(":///")
    return f"sqlite:///{os.path.realpath(path)}" if kind == "sqlite" else where
