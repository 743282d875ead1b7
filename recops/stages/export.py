"""Stage export: the model that is best on validation becomes a bundle, checked against torch before it counts."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recops import signing
from recops.data.interactions import Interactions
from recops.encoders.content import GUESSED
from recops.histories import Histories
from recops.monitoring.features import Scoring
from recops.monitoring.profile import reference_profile
from recops.params import Params
from recops.release.export import export_bundle, torch_scorer
from recops.release.index_choice import Wanted
from recops.release.parity import check_parity
from recops.runtime import Scorer
from recops.serving.attributes import usable
from recops.stages.project import Project
from recops.stages.refit import refit
from recops.stages.task import for_unknown, read_train
from recops.stages.train import load_model

NOT_OF_THE_MODEL: Any = {
    "serve": True,
    "ask": True,
    "gate": True,
    "feedback": True,
    "drift": True,
    "retrain": True,
    "up": True,
    "alerts": True,
    "release": True,
    "retention": True,
    "export": {"sign_key"},
}
INDEX_USERS = 500  # to choose an index by, and as many to state its recall on
FITTED_ON = ("train.parquet", "valid.parquet")  # the second steers early stopping and the choice of the model


def export(project: Project) -> dict[str, Any]:
    """Writes bundle/, signed where a key is set. Raises RefusedError when ONNX and torch disagree, CallError for a file
    that is no key."""
    params = project.params
    sign_key = signing_key(project)
    metrics = json.loads((project.reports / "metrics.json").read_text(encoding="utf-8"))
    validation = json.loads((project.reports / "validation.json").read_text(encoding="utf-8"))
    split = json.loads((project.split / "split.json").read_text(encoding="utf-8"))
    name = metrics["chosen"]
    if params.train.refit:
        model, interactions = refit(project, name)
    else:
        interactions = read_train(project)
        model = load_model(project.model / name, interactions, params.train.seed)
    parts = model.parts()
    sample = someone(interactions, params.export.parity_users, params.evaluate.seed)
    scorer = torch_scorer(parts)
    fallback, ratings = for_unknown(params, interactions, parts.num_items)
    item_ids = interactions.all_items.ids[: parts.num_items]
    facts = {
        "model": name,
        "params": params.model_dump(mode="json", by_alias=True, exclude=NOT_OF_THE_MODEL),
        "metrics": metrics["models"][name],
        "baselines": {n: figures for n, figures in metrics["models"].items() if n != name},
        "validation": validation,
        "inputs": {
            path.name: md5(path)
            for path in [*sorted(project.tables.glob("*.parquet")), *(project.split / name for name in FITTED_ON)]
        },
        "split": split,
        "data_watermark": split["data_watermark"],
        "erasures": erasures(project),
        # What the metrics belong to was fitted on train and validation parts; what is released may know more.
        "refit": params.train.refit,
        "evaluated_until": newest(split, "train", "valid"),
        "fitted_until": newest(split, *(split["parts"] if params.train.refit else ("train", "valid"))),
        "remove_seen": params.recommend.remove_seen,
        "opset": params.export.opset,
    }
    remove_seen = params.recommend.remove_seen
    # No model of ratings knows users by attributes alone.
    user_ids = (interactions.all_users if ratings is None else interactions.users).ids
    scoring = Scoring(scorer, item_ids, user_ids, remove_seen)
    positive = [kind for kind, meaning in params.kinds.items() if meaning.signal == "positive"]
    release = export_bundle(
        parts,
        project.bundle,
        items=catalogue(project, item_ids),
        users=user_ids,
        fallback=fallback,
        ratings=ratings,
        content=interactions.content,
        encoded=project.encoded,
        texts=texts(project, item_ids),
        profile=reference_profile(
            project.tables / "events.parquet", project.tables / "items.parquet", scoring, history_events=positive
        ),
        facts=facts,
        opset=params.export.opset,
        max_links=params.export.max_links,
        index=wanted_index(params, scorer, interactions),
        check=lambda bundle: check_parity(parts, bundle, sample, k=50, remove_seen=remove_seen),
        sign_key=sign_key,
    )
    return {"release": release, "model": name}


def signing_key(project: Project) -> Path | None:
    """The file of the private key that RECOPS_SIGN_KEY, else `export.sign_key` names. Raises CallError for another."""
    named = os.environ.get("RECOPS_SIGN_KEY") or project.params.export.sign_key
    if not named:
        return None
    path = project.root / Path(named).expanduser()
    signing.load_private(path)  # now, and not after the fit
    return path


def wanted_index(params: Params, scorer: Scorer, interactions: Interactions) -> Wanted:
    """What params.yaml says of an index, and users to choose one by and others to state its recall on. They ask with
    their whole histories, as they will when served."""
    chosen_by, stated_on = np.empty((2, 0, 0), np.float32)
    settings = params.export
    if settings.index != "none" and scorer.num_items > settings.exact_up_to and scorer.is_product:
        asked = someone(interactions, 2 * INDEX_USERS, params.evaluate.seed + 1)
        vectors = scorer.user_vectors(asked[np.flatnonzero(scorer.answers(asked))])
        assert vectors is not None, "a product needs vectors of users"
        # By turns, since `someone` gives users in the order of their rows.
        chosen_by, stated_on = vectors[::2], vectors[1::2]
    return Wanted(settings.index, settings.exact_up_to, settings.index_recall, chosen_by, stated_on)


def newest(split: Mapping[str, Any], *parts: str) -> str | None:
    """ISO time of the newest event of some parts of the split; None for a log without times."""
    return max(filter(None, (split["parts"][part]["to"] for part in parts)), default=None)


def someone(interactions: Interactions, num_users: int, seed: int) -> Histories:
    """At most `num_users` of the users fitted on, drawn without repetition, who ask when their last event happened."""
    users = np.sort(np.random.default_rng(seed).permutation(interactions.num_users)[:num_users]) + 1
    ages = asked_at = None
    if interactions.timestamp is not None:
        times = [interactions.timestamp[interactions.span(user)] for user in users]
        ages = [(time[-1:] - time) // 1_000_000 for time in times]
        asked_at = np.array([time[-1] for time in times], np.int64)
    return Histories([interactions.history(user).astype(np.int64) for user in users], ages, users, asked_at)


def catalogue(project: Project, item_ids: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of the items table for those items, in their order; null where the table has no such item. Where
    categories were guessed, `categories_guessed` says of which items; `attributes` has those that rules can ask for,
    where there are any."""
    items = pl.DataFrame({"item_id": item_ids}, schema={"item_id": pl.String}).join(
        pl.read_parquet(project.tables / "items.parquet"), on="item_id", how="left", maintain_order="left"
    )
    columns = items.select(
        "item_id",
        "title",
        "categories",
        pl.col("price").cast(pl.Float64).round(4),
        "available",
        pl.col("published_at").dt.to_string("iso:strict"),
    )
    found = columns.to_dict(as_series=False)
    guesses = project.encoded / GUESSED
    if guesses.exists():
        guessed = json.loads(guesses.read_text(encoding="utf-8"))
        found["categories"] = [guessed.get(i, own) for i, own in zip(item_ids, found["categories"], strict=True)]
        found["categories_guessed"] = [item_id in guessed for item_id in item_ids]
    if "attributes" in items.columns:  # a table of an older recops has none
        own = [None if text is None else usable(json.loads(text)) for text in items["attributes"].to_list()]
        if any(own):
            found["attributes"] = own
    return found


def texts(project: Project, item_ids: Sequence[str]) -> list[str | None]:
    """The column text of the items table for those items, in their order."""
    items = pl.read_parquet(project.tables / "items.parquet")
    if "text" not in items.columns:  # a table of an older recops
        return [None] * len(item_ids)
    asked = pl.DataFrame({"item_id": item_ids}, schema={"item_id": pl.String})
    found = asked.join(items.select("item_id", "text"), on="item_id", how="left", maintain_order="left")
    return found["text"].to_list()


def md5(path) -> str:
    """Hex md5 of a file: what DVC calls the file by."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def erasures(project: Project) -> dict[str, int]:
    """How many entries of the list of erased users the data honours, and how many rows that took away."""
    counts = json.loads((project.tables / "counts.json").read_text(encoding="utf-8"))
    rows = sum(table["rejected_by_reason"].get("erased", 0) for table in counts.get("tables", {}).values())
    return {"honoured": counts.get("erasures", 0), "rows": rows}
