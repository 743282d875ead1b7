"""Questions to the promoted release: which language model phrases the answers, and one answer without a server."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from recops import language_model
from recops.errors import CallError
from recops.params import AskParams
from recops.serving.local import ask_once
from recops.serving.ruleset import read_rules
from recops.serving.settings import read_settings
from recops.stages.project import Project


def environment(ask: AskParams, url: str | None, key: str | None) -> dict[str, str]:
    """What the service is told of the language model at `url`; nothing where there is none."""
    if url is None:
        return {}
    return {
        "RECOPS_ASK_URL": url,
        "RECOPS_ASK_MODEL": ask.language_model,
        "RECOPS_ASK_KEY": key or "",
        "RECOPS_ASK_TIMEOUT_S": str(ask.timeout_s),
        "RECOPS_ASK_MAX_TOKENS": str(ask.max_tokens),
        "RECOPS_ASK_MAX_CONCURRENCY": str(ask.max_concurrency),
        "RECOPS_ASK_UNDERSTANDS": str(int(ask.understands)),
    }


def for_service(project: Project) -> dict[str, str]:
    """The same for `recops serve`; starts SmolLM2 where that is asked for. It loads while the service starts, and ends
    with this process, whatever this process becomes."""
    ask = project.params.ask
    if ask.language_model != language_model.SMOLLM2 or ask.url is not None:
        return environment(ask, ask.url, _key(ask))
    _, url, key = language_model.start(project.environment())
    return environment(ask, url, key)


def answer(project: Project, question: str, user_id: str | None, history: list[str] | None, k: int) -> dict[str, Any]:
    """As `serving.local.ask_once`, phrased by the language model of params.yaml."""
    with _language_model(project) as found:
        model, rules = read_settings(found).language_model, read_rules(project.rules_file)
        return ask_once(
            project.releases, project.store_url, question, user_id, history, k, model, project.source_folder, rules
        )


@contextlib.contextmanager
def _language_model(project: Project) -> Iterator[dict[str, str]]:
    ask = project.params.ask
    if ask.language_model != language_model.SMOLLM2 or ask.url is not None:
        yield environment(ask, ask.url, _key(ask))
        return
    with language_model.started(project.environment()) as (url, key):
        yield environment(ask, url, key)


def _key(ask: AskParams) -> str | None:
    if ask.key_env is None:
        return None
    if not (key := os.environ.get(ask.key_env, "").strip()):
        raise CallError(f"ask.key_env: the environment variable {ask.key_env} is not set")
    return key
