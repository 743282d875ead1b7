"""Makes a bundle of a fitted model: networks to ONNX, arrays to .npy, the catalogue to JSON, the manifest last.

In: `ServingParts`, the catalogue and the facts of the run. Out: the folder of recops/bundle.py, the same bytes for the
same inputs wherever it is written; or a `Scorer` over the torch modules themselves (`torch_scorer`). Knows nothing
about how the model was trained.

Shapes: B batch, L history length, D width, M candidates, N items (row 0 is padding).
"""

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recops import bundle as files
from recops.data.content import ItemContent
from recops.errors import RefusedError
from recops.links import Links
from recops.protocols import ServingParts
from recops.release.index_choice import Wanted, choose_index
from recops.release.onnx_graph import Dims, save_graph, to_onnx
from recops.reranking import Reranker, num_columns
from recops.runtime import RatingScale, Scorer
from recops.words import write_words

ITEM_COLUMNS = ("item_id", "title", "categories", "price", "available", "published_at")
GUESSED = "categories_guessed"  # a column more where some categories were not told but guessed
ATTRIBUTES = "attributes"  # a column more where some items have any that can be asked for: an object or null for each
OPTIONAL_COLUMNS = (GUESSED, ATTRIBUTES)
# The facts a manifest must have beside those that are added here.
FACTS = ("model", "params", "metrics", "validation", "inputs", "data_watermark", "remove_seen")


def torch_scorer(parts: ServingParts, fallback: np.ndarray | None = None, ratings: RatingScale | None = None) -> Scorer:
    """Scores with the torch modules as they are, gradients off: for validation while training, and evaluation.

    `fallback` float32 [N+1] scores those that the model cannot answer itself, as a bundle does; `ratings` is given
    where the scores are ratings.
    """
    return Scorer(
        num_items=parts.num_items,
        encode=None if parts.encoder is None else _numpy_call(parts.encoder),
        item_vectors=parts.item_vectors,
        rank=None if parts.ranker is None else _numpy_call(parts.ranker),
        links=None
        if parts.links is None
        else Links(*parts.links, parts.link_decay, parts.link_floor, parts.link_window),
        item_scores=parts.item_scores,
        user_table=parts.user_table,
        members=tuple(torch_scorer(member) for _, member in parts.members),
        fusion=parts.fusion,
        reranker=None
        if parts.reranker is None
        else replace(parts.reranker, network=_numpy_call(parts.reranker.network)),
        max_history=parts.max_history,
        uses_time=parts.uses_time,
        needs_history=parts.needs_history,
        fallback=fallback,
        ratings=ratings,
        project=None if parts.projection is None else _numpy_call(parts.projection),
        nearness=parts.nearness,
        content=parts.content,
    )


def cut_links(parts: ServingParts, max_links: int) -> ServingParts:
    """The same parts with each item's `max_links` neighbours of largest absolute weight; of equal ones the first."""
    if parts.members:
        return replace(parts, members=[(name, cut_links(member, max_links)) for name, member in parts.members])
    if parts.links is None:
        return parts
    indptr, indices, weights = parts.links
    row = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    order = np.lexsort((-np.abs(weights), row))  # stable: equal weights stay in their order
    position = np.arange(len(order)) - indptr[row]
    kept = np.sort(order[position < max_links])
    cut = np.searchsorted(row[kept], np.arange(len(indptr))).astype(np.int64)
    return replace(parts, links=(cut, indices[kept], weights[kept]))


def export_bundle(
    parts: ServingParts,
    out: Path,
    *,
    items: dict[str, list],
    users: Sequence[str] = (),
    fallback: np.ndarray,
    ratings: RatingScale | None = None,
    content: ItemContent | None = None,
    encoded: Path | None = None,
    texts: Sequence[str | None] | None = None,
    profile: dict[str, Any],
    facts: dict[str, Any],
    opset: int,
    max_links: int,
    index: Wanted | None = None,
    check: Callable[[files.Bundle], dict[str, Any]] | None = None,
    sign_key: Path | None = None,
) -> str:
    """Writes the bundle to `out`, replacing what is there only when all went well; returns its id.

    `items` maps ITEM_COLUMNS to lists in row order (entry 0 is row 1), ids sorted (those that only content knows
    after the others), times ISO text, None for unknown;
    `users` are the ids of the rows of a `user_table` from row 1 on; `fallback` is float32 [N+1]; `ratings` is given for
    a model whose scores are ratings, with the same users; `content` is needed where a model takes any; from `encoded`,
    the folder of the stage encode, comes what encodes items that are added later; with `texts`, of the items in their
    order, the bundle can be searched by words; `facts` are the manifest's entries
    named in FACTS and any more; `index` says whether one of the items is made. `scoring`, `opset` and `signature` are
    added here. `check` (such as
    `parity.check_parity`) judges the finished bundle, its figures become the manifest's `parity`; when it raises,
    nothing is written. `sign_key` is the file of a private key that signs the manifest. Raises RefusedError for weights
    that are not finite, CallError for a file that is no such key.
    """
    num_items = len(items["item_id"])
    _check_inputs(parts, items, fallback, facts)
    parts = cut_links(parts, max_links)
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        signature, scoring = _write_parts(parts, temporary, opset, content, len(users))
        if ratings is not None:
            scoring["ratings"] = {"lowest": ratings.lowest, "highest": ratings.highest}
            np.save(temporary / files.USER_MEANS, ratings.user_means.astype(np.float32), allow_pickle=False)
        if ratings is not None or any(part.user_table is not None for _, part, _ in _laid_out(parts)):
            _write_json(temporary / files.USERS, {"user_id": list(users)})
        _write_json(
            temporary / files.ITEMS,
            {column: list(items[column]) for column in (*ITEM_COLUMNS, *OPTIONAL_COLUMNS) if column in items},
        )
        if texts is not None:
            rows = zip(items["title"], texts, items["categories"], strict=True)
            write_words(temporary / files.WORDS, rows)
        # Six digits: the order of a fallback list needs no more, and the last bits of a sum differ between machines.
        _write_json(temporary / files.FALLBACK, {"scores": [float(f"{score:.6g}") for score in fallback[1:].tolist()]})
        (temporary / files.PROFILE).write_text(files.canonical_json(profile), encoding="utf-8")
        if content is not None:
            scoring[files.CONTENT] = _write_content(content, num_items, encoded, temporary)
        if index is not None:
            built, entry = choose_index(parts, index)
            facts = {**facts, "index": entry}
            if built is not None:
                built.write(temporary / files.INDEX)
        scoring["max_links"] = max_links
        facts = {**facts, "scoring": scoring, "num_items": num_items, "opset": opset, "signature": signature}
        release = files.write_manifest(temporary, facts)
        if check is not None:
            release = files.write_manifest(temporary, {**facts, "parity": check(files.load_bundle(temporary))})
        if sign_key is not None:
            files.sign_manifest(temporary, sign_key)
        _replace_folder(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return release


def _check_inputs(parts: ServingParts, items: dict[str, list], fallback: np.ndarray, facts: dict[str, Any]) -> None:
    ids = items["item_id"]
    assert set(items) - set(OPTIONAL_COLUMNS) == set(ITEM_COLUMNS), (
        f"items need the columns {ITEM_COLUMNS}, found {sorted(items)}"
    )
    assert {len(values) for values in items.values()} == {len(ids)}, "the columns of items differ in length"
    # Those that only content knows begin anew, after those trained on.
    num_falls = sum(a >= b for a, b in itertools.pairwise(ids))
    has_content = any(part.content for _, part, _ in _laid_out(parts))
    assert num_falls <= has_content and len(set(ids)) == len(ids), "item ids are not sorted, or not unique"
    assert len(ids) == parts.num_items, f"{len(ids)} items for a model of {parts.num_items}"
    assert len(fallback) == len(ids) + 1, f"fallback has {len(fallback)} rows for {len(ids)} items and padding"
    assert not (missing := set(FACTS) - set(facts)), f"facts lack {sorted(missing)}"
    arrays: dict[str, np.ndarray | None] = {"fallback": fallback}
    for folder, part, _ in _laid_out(parts):
        arrays |= {f"{folder}item_vectors": part.item_vectors, f"{folder}item_scores": part.item_scores}
        arrays |= {f"{folder}user_table": part.user_table, f"{folder}links": part.links and part.links[2]}
        for module in (part.encoder, part.ranker, part.projection):
            values = {} if module is None else module.state_dict()
            arrays |= {f"{folder}{name}": value.detach().cpu().float().numpy() for name, value in values.items()}
    if parts.reranker is not None:
        values = parts.reranker.network.state_dict()
        arrays |= {f"reranker {name}": value.detach().cpu().numpy() for name, value in values.items()}
    for name, array in arrays.items():
        if array is not None and not np.isfinite(array).all():
            raise RefusedError(
                f"model: {name} holds values that are not finite; lower the learning rate and train anew"
            )


def _laid_out(parts: ServingParts) -> list[tuple[str, ServingParts, str | None]]:
    """(folder, parts, name) of each model of a bundle. The first member with a network lies where a single model's
    files would lie, the others in folders of their names."""
    if not parts.members:
        return [("", parts, None)]
    main = next((name for name, member in parts.members if member.encoder is not None), None)
    return [("" if name == main else f"members/{name}/", member, name) for name, member in parts.members]


def _write_parts(
    parts: ServingParts, folder: Path, opset: int, content: ItemContent | None, num_users: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Networks and arrays of every model; returns the networks' signatures and the manifest's `scoring`."""
    signature: dict[str, Any] = {}
    scoring = []
    for place, part, name in _laid_out(parts):
        (folder / place).mkdir(parents=True, exist_ok=True)
        found = _write_networks(part, folder / place, opset, content)
        signature |= {place + file: described for file, described in found.items()}
        arrays = {files.VECTORS: part.item_vectors, files.SCORES: part.item_scores, files.USER_VECTORS: part.user_table}
        if part.links is not None:
            arrays |= dict(zip(files.LINKS.values(), part.links, strict=True))
        if part.nearness is not None:
            arrays[files.LINKS_MEAN] = part.nearness.mean
        types = {files.LINKS["indptr"]: np.int64, files.LINKS["indices"]: np.int32}
        for file, array in arrays.items():
            if array is not None:
                contiguous = np.ascontiguousarray(array, types.get(file, np.float32))
                np.save(folder / place / file, contiguous, allow_pickle=False)
        settings: dict[str, Any] = {
            "max_history": part.max_history,
            "link_decay": part.link_decay,
            "link_floor": part.link_floor,
            "link_window": part.link_window,
            "needs_history": part.needs_history,
            "uses_time": part.uses_time,
        }
        if part.user_table is not None and len(part.user_table) <= num_users:
            settings["num_users"] = len(part.user_table) - 1
        if part.content:
            settings[files.ENCODERS] = list(part.content)
        if part.nearness is not None:
            how = part.nearness
            settings[files.NEARNESS] = {
                "num_neighbors": how.num_neighbors,
                "power": how.power,
                "dims": list(how.dims),
            }
        if name is not None and part.num_items != parts.num_items:
            settings["num_items"] = part.num_items
        scoring.append(settings if name is None else {"name": name, "folder": place, **settings})
    if parts.fusion is None:
        return signature, scoring[0]
    fusion = parts.fusion
    reranking = {}
    if parts.reranker is not None:
        signature[files.RERANKER], reranking[files.RERANKING] = _write_reranker(parts.reranker, folder, opset)
    return signature, {
        "calibration": fusion.calibration,
        "edges": list(fusion.edges),
        "weights": fusion.weights.tolist(),  # whole: a rounded one times a score far above the others is another score
        "members": scoring,
        **reranking,
    }


def _write_content(content: ItemContent, num_items: int, encoded: Path | None, folder: Path) -> list[dict[str, Any]]:
    """The vectors [N+1, D] of each encoder, and what it is made from; returns for the manifest which encoders made
    them, and their files."""
    found = []
    for number, name in enumerate(content.vectors):
        if encoded is not None:
            shutil.copytree(encoded / name, folder / files.ENCODER_FOLDER / name)
        file = f"content_{number}.npy"
        np.save(folder / file, content.vectors[name][: num_items + 1], allow_pickle=False)
        found.append({**content.facts.get(name, {}), "name": name, "dim": content.vectors[name].shape[1], "file": file})
    return found


def _write_reranker(reranker: Reranker, folder: Path, opset: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its network and the facts of the items; returns the network's signature and the settings for the manifest."""
    num_features = num_columns(reranker.features, len(reranker.members))
    inputs: dict[str, tuple[torch.Tensor, Dims]] = {
        "features": (torch.zeros((3, 5, num_features)), ("batch", "candidates", None)),
        "fade": (torch.zeros((3, 5)), ("batch", "candidates")),
    }
    model = to_onnx(reranker.network, inputs, "added", opset)
    for name, file in files.ITEM_FACTS.items():
        np.save(folder / file, np.ascontiguousarray(getattr(reranker.facts, name)), allow_pickle=False)
    settings = {name: getattr(reranker, name) for name in files.RERANKER_SETTINGS}
    settings |= {"features": list(reranker.features), "members": list(reranker.members)}
    return save_graph(model, folder / files.RERANKER, {"added": ("batch", "candidates")}), settings


def _write_networks(parts: ServingParts, folder: Path, opset: int, content: ItemContent | None) -> dict[str, Any]:
    """`model.onnx`, `content.onnx` and `rank.onnx` where the model has them; returns their signature by file name."""
    signature = {}
    # Sizes 0 and 1 would be taken for constants, and equal sizes for one dimension.
    if parts.encoder is not None:
        history = torch.zeros((3, max(2, min(7, parts.max_history))), dtype=torch.int64)
        names = ("item_idx", "age_s") if parts.uses_time else ("item_idx",)
        # Of its own each: the exporter takes inputs that are one tensor for one input.
        inputs: dict[str, tuple[torch.Tensor, Dims]] = {n: (history.clone(), ("batch", "history")) for n in names}
        model = to_onnx(parts.encoder, inputs, "user_vector", opset)
        signature[files.ENCODER] = save_graph(model, folder / files.ENCODER, {"user_vector": ("batch", None)})
    if parts.projection is not None:
        assert content is not None, "a model with content is exported with it"
        width = sum(content.vectors[name].shape[1] for name in parts.content)
        inputs = {"content": (torch.zeros((3, width)), ("items", None))}
        model = to_onnx(parts.projection, inputs, "item_vectors", opset)
        signature[files.PROJECTION] = save_graph(model, folder / files.PROJECTION, {"item_vectors": ("items", None)})
    if parts.ranker is not None:
        assert parts.item_vectors is not None, "a ranker needs item_vectors"
        if parts.user_table is not None:
            users = torch.zeros((3, parts.user_table.shape[1]))
        else:
            assert parts.encoder is not None, "a ranker needs an encoder or a user_table"
            with torch.no_grad():
                users = parts.encoder(torch.zeros((3, 2), dtype=torch.int64))
        vectors = torch.zeros((5, parts.item_vectors.shape[1]))
        inputs = {"user_vector": (users, ("batch", None)), "item_vectors": (vectors, ("candidates", None))}
        model = to_onnx(parts.ranker, inputs, "scores", opset)
        signature[files.RANKER] = save_graph(model, folder / files.RANKER, {"scores": ("batch", "candidates")})
    return signature


def _numpy_call(module: torch.nn.Module) -> Callable[..., np.ndarray]:
    module.eval()
    device = next((p.device for p in module.parameters()), torch.device("cpu"))

    def call(*arrays: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            tensors = (torch.from_numpy(np.require(a, requirements=["C", "W"])).to(device) for a in arrays)
            return module(*tensors).cpu().numpy()

    return call


def _replace_folder(new: Path, out: Path) -> None:
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8")
