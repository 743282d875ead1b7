"""Loads a release to serve from: verifies its bundle, reads its record, and answers a first call from it.

In: the folder of a release. Out: `Release`, or an error that says why it must not be served. Knows no pointer.
"""

import json
import math
from pathlib import Path
from typing import Any

from recops.bundle import load_bundle
from recops.errors import BundleError
from recops.serving.erased import ErasedUsers
from recops.serving.release import Encoders, Release
from recops.serving.requests import Recommend, Similar
from recops.serving.retrieval import recommend, similar
from recops.serving.ruleset import NO_RULES, Rules


def load_release(
    folder: Path,
    wanted: str | None = None,
    threads: int = 1,
    source: Path | None = None,
    verify_key: Path | None = None,
    erased: ErasedUsers | None = None,
    rules: Rules = NO_RULES,
) -> Release:
    """The release in `folder`, verified and warmed up under `rules`; with `verify_key` only a signed one. Raises
    BundleError, also when it is not the one `wanted`."""
    bundle = load_bundle(folder, threads, verify_key)
    if wanted is not None and bundle.id != wanted:
        raise BundleError(f"{folder}: holds release {bundle.id[:12]}…, the pointer names {wanted[:12]}…")
    record_file = folder.with_name(folder.name + ".json")
    try:
        record: dict[str, Any] = json.loads(record_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        record = {}
    except ValueError as error:
        raise BundleError(f"{record_file}: not a readable record ({error})") from None
    if not isinstance(record, dict):
        raise BundleError(f"{record_file}: not a record, but {type(record).__name__}")
    release = Release(bundle, record, Encoders(bundle, threads, source), erased=erased)
    warm_up(release, rules)
    return release


def warm_up(release: Release, rules: Rules = NO_RULES) -> None:
    """Answers calls as the service does, so that no later one pays for what the first works out. Raises BundleError
    where one fails, by a rule or otherwise, or has scores that are not finite."""
    try:
        for history in (release.ids[:3], []):
            for explain in (False, True):
                asked = Recommend.model_construct(history=history, explain=explain)
                found = recommend(release, asked, None, rules, "warm-up")
                if not all(math.isfinite(item["score"]) for item in found["items"]):
                    raise BundleError(f"{release.bundle.folder}: scores of the warm-up call are not finite")
        if release.ids:
            similar(release, Similar.model_construct(item_id=release.ids[0]), rules)
    except BundleError:
        raise
    except Exception as error:
        under = " under the rules of the service" if rules != NO_RULES else ""
        raise BundleError(f"{release.bundle.folder}: the warm-up call fails{under}: {error!r}") from error
