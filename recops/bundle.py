"""The bundle: the folder that training hands to serving. Writes, reads and verifies it, and nothing else.

In: a folder with `manifest.json` and the files it names. Out: `Bundle`, ready to score. Contract: DESIGN section 5.
The id of a bundle is the sha256 of its manifest, which holds the sha256 of every other file; `manifest.sig` beside it
may hold a signature of the manifest (recops/signing.py). Free of torch.
"""

import fcntl
import hashlib
import json
import logging
import os
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recops import signing
from recops.calibration import Fusion
from recops.errors import BundleError, RefusedError
from recops.histories import Histories
from recops.index import EXTRA, Index, is_available, read_index
from recops.links import Links
from recops.nearest import Nearness
from recops.onnx_weights import check_weights
from recops.reranking import ItemFacts, Reranker
from recops.runtime import OnnxNetwork, RatingScale, Scorer

logger = logging.getLogger("recops.bundle")

# 2: several models in one bundle, tables of users, and ratings; 3: with a reranker; 4: with the content of the items;
# 5: with what encodes items that come later, or with vectors of users beside a network, for those without a history.
# The lowest that says it all is written.
FORMAT_VERSION = 5
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
POINTER = "current.json"
ENCODER, RANKER, VECTORS, SCORES = "model.onnx", "rank.onnx", "item_vectors.npy", "item_scores.npy"
LINKS = {"indptr": "links_indptr.npy", "indices": "links_indices.npy", "weights": "links_weights.npy"}
NEARNESS, LINKS_MEAN = "nearness", "links_mean.npy"  # how later items are linked: in `scoring`, and the mean content
USER_VECTORS, USER_MEANS, USERS = "user_vectors.npy", "user_means.npy", "users.json"
RERANKER, RERANKING = "rerank.onnx", "rerank"  # its file, and its entry in the manifest's `scoring`
# A model's projection of content, and entries of the manifest: in `scoring` which encoder made what lies in which file;
# of each model whose vectors, one encoder after the other, it takes.
PROJECTION, CONTENT, ENCODERS = "content.onnx", "content", "encoders"
ENCODER_FOLDER = "encoders"  # holds a folder of each encoder, as `recops/encoders` reads it
RERANKER_SETTINGS = ("features", "members", "candidates", "remove_seen", "content_window", "trend_days")
ITEM_FACTS = {f.name: f"rerank_{f.name}.npy" for f in fields(ItemFacts)}
ITEMS, FALLBACK, PROFILE = "items.json", "fallback.json", "profile.json"
INDEX = "items.faiss"  # candidates among many items (recops/index.py), asked as the manifest's entry `index` says
WORDS = "words.sqlite"  # what is searched by words (recops/words.py); bundles made before it was known lack it


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and a final newline: the same value gives the same bytes. NaN is refused."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_manifest(folder: Path, facts: dict[str, Any]) -> str:
    """Writes `manifest.json` over all other files in `folder` and returns the bundle's id.

    `facts` are the manifest's entries without `format_version` and `files`, which are added here.
    """
    (folder / SIGNATURE).unlink(missing_ok=True)  # of another manifest
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    files = {name: sha256_file(folder / name) for name in names}
    encodes = any(name.startswith(f"{ENCODER_FOLDER}/") or name.endswith(LINKS_MEAN) for name in files)
    folders = {name.removesuffix(USER_VECTORS) for name in files if name.endswith(USER_VECTORS)}
    encodes |= any(folder + ENCODER in files for folder in folders)
    version = 5 if encodes else 4 if CONTENT in facts.get("scoring", {}) else 3 if RERANKER in files else 2
    text = canonical_json({**facts, "format_version": version, "files": files})
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def sign_manifest(folder: Path, key: Path) -> None:
    """Writes `manifest.sig` with the private key in the file `key`. Raises CallError for a file that is none."""
    (folder / SIGNATURE).write_bytes(signing.sign((folder / MANIFEST).read_bytes(), key))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle. Raises BundleError when it is missing, unreadable or of a newer format."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: not a readable manifest ({error})") from None
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if not isinstance(version, int) or version < 1:
        raise BundleError(f"{path}: no format_version, so this is not a bundle")
    if version > FORMAT_VERSION:
        raise BundleError(f"{path}: format {version} is newer than this recops reads ({FORMAT_VERSION}); upgrade")
    return manifest


def bundle_id(folder: Path) -> str:
    """The release id of a bundle: sha256 of its manifest."""
    read_manifest(folder)
    return sha256_file(folder / MANIFEST)


def verify(folder: Path, key: Path | None = None) -> dict[str, Any]:
    """Checks every hash and returns the manifest; with the public key in the file `key` its signature first. Raises
    BundleError naming the first file that is wrong."""
    if key is not None:
        try:
            signed = (folder / MANIFEST).read_bytes()
        except OSError as error:
            raise BundleError(f"{folder / MANIFEST}: not a readable manifest ({error})") from None
        signing.check(signed, folder / SIGNATURE, key)
    manifest = read_manifest(folder)
    files = manifest.get("files")
    if not isinstance(files, dict) or not files:
        raise BundleError(f"{folder / MANIFEST}: names no files")
    for name, digest in files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts or not path.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{folder / MANIFEST}: {name!r} points outside the bundle")
        if not path.is_file():
            raise BundleError(f"{path}: named in the manifest but missing")
        if (found := sha256_file(path)) != digest:
            raise BundleError(f"{path}: altered or cut short (sha256 {found[:12]}…, manifest says {digest[:12]}…)")
    extra = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    extra -= {*files, MANIFEST, SIGNATURE}
    if extra:
        raise BundleError(f"{folder}: holds files the manifest does not name: {', '.join(sorted(extra))}")
    return manifest


@dataclass
class Bundle:
    """A verified bundle: the catalogue, the scorer and the manifest.

    `items` maps the columns item_id, title, categories, price, available, published_at to lists in row order
    (entry 0 is row 1). `fallback` is float32 [N+1]: what is shown to someone nothing is known about. `user_ids` are
    those of the model's table of users, empty where it has none. `content` are the vectors of the items by encoder,
    float16 [N+1, D]; `scorer.with_items` adds items of which such vectors are given. `index` finds candidates among the
    items that the bundle was made with; None: every item is scored.
    """

    folder: Path
    id: str
    manifest: dict[str, Any]
    items: dict[str, list[Any]]
    scorer: Scorer
    fallback: np.ndarray
    user_ids: list[str] = field(default_factory=list)
    content: dict[str, np.ndarray] = field(default_factory=dict)
    index: Index | None = None

    @property
    def encoders(self) -> list[dict[str, Any]]:
        """Of each encoder in `content`: name, version, sha256, dim and what else it says of itself."""
        return self.manifest["scoring"].get(CONTENT, [])

    def encoder_folder(self, name: str) -> Path | None:
        """What the encoder is made from; None where the bundle does not hold it."""
        folder = self.folder / ENCODER_FOLDER / name
        return folder if folder.is_dir() else None

    @property
    def words_file(self) -> Path | None:
        """The words of the items, as `recops/words.py` reads them; None where the bundle does not hold them."""
        return self.folder / WORDS if WORDS in self.manifest["files"] else None

    @property
    def num_items(self) -> int:
        return len(self.items["item_id"])

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Item id to row, 1..N."""
        return {item_id: row for row, item_id in enumerate(self.items["item_id"], start=1)}

    def rows(self, item_ids: list[str]) -> np.ndarray:
        """Rows (int64) of the ids the catalogue knows, in order; unknown ones are left out."""
        found = (self.row_of.get(i) for i in item_ids)
        return np.array([r for r in found if r is not None], np.int64)

    @cached_property
    def user_row_of(self) -> dict[str, int]:
        """User id to row of the table of users, 1..U."""
        return {user_id: row for row, user_id in enumerate(self.user_ids, start=1)}

    @cached_property
    def profile(self) -> dict[str, Any]:
        """What inputs and scores looked like at training (the reference of drift checks)."""
        return json.loads((self.folder / PROFILE).read_text(encoding="utf-8"))


def load_bundle(folder: Path, threads: int = 1, key: Path | None = None) -> Bundle:
    """Reads and verifies a bundle, with the public key in the file `key` its signature too. Raises BundleError for
    anything altered, missing, misshapen or not finite."""
    folder = Path(folder)
    if not folder.is_dir():
        raise BundleError(f"{folder}: no such bundle")
    manifest = verify(folder, key)
    try:
        for name in manifest["files"]:
            if name.endswith(".onnx"):
                check_weights(folder / name)
        items = _json(folder / ITEMS)
        fallback = np.asarray([0.0, *_json(folder / FALLBACK)["scores"]], np.float32)
        num_items = len(items["item_id"])

        user_ids = _json(folder / USERS)["user_id"] if USERS in manifest["files"] else []
        scoring = manifest["scoring"]
        if "members" not in scoring:
            scorer = _scorer(folder, "", scoring, manifest, num_items, threads, fallback)
        else:
            scorer = Scorer(
                num_items=num_items,
                members=tuple(
                    _scorer(folder, member["folder"], member, manifest, num_items, threads)
                    for member in scoring["members"]
                ),
                fusion=Fusion(
                    np.array(scoring["weights"], np.float32), tuple(scoring["edges"]), scoring["calibration"]
                ),
                reranker=_reranker(folder, scoring[RERANKING], threads) if RERANKING in scoring else None,
                needs_history=all(member["needs_history"] for member in scoring["members"]),
                fallback=fallback,
            )
            assert scorer.fusion is not None
            scorer.fusion.check(len(scorer.members))
            if scorer.reranker is not None:
                scorer.reranker.check(len(scorer.members), num_items)
        content = {
            entry["name"]: np.load(folder / entry["file"], mmap_mode="r", allow_pickle=False)
            for entry in scoring.get(CONTENT, [])
        }
        index = _index(folder, manifest, scorer)
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(f"{folder}: not loadable: {error}") from None
    for part, about in zip(scorer.members or (scorer,), scoring.get("members", [scoring]), strict=True):
        _check_arrays(folder, part, about.get("num_users", len(user_ids)))
    _check_rows(folder / FALLBACK, fallback, num_items + 1)
    _check_content(folder, scorer, scoring.get(CONTENT, []), content)
    if len(set(items["item_id"])) != num_items or any(len(values) != num_items for values in items.values()):
        raise BundleError(f"{folder / ITEMS}: an item stands twice, or columns differ in length")
    if PROFILE not in manifest["files"]:
        raise BundleError(f"{folder}: holds no {PROFILE}")
    try:
        # The first item's history and none: a width that does not fit, or weights that are no numbers, show here.
        tried = scorer.scores(
            Histories(
                [np.array([1][:num_items], np.int64), np.array([], np.int64)],
                users=np.array([min(len(user_ids), 1), 0]),
            )
        )
    except Exception as error:
        raise BundleError(f"{folder}: cannot score: {error}") from None
    if not np.isfinite(tried[:, 1:]).all():
        raise BundleError(f"{folder}: scores are not finite")
    return Bundle(folder, sha256_file(folder / MANIFEST), manifest, items, scorer, fallback, user_ids, content, index)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _scorer(
    folder: Path,
    place: str,
    scoring: dict[str, Any],
    manifest: dict[str, Any],
    num_items: int,
    threads: int,
    fallback: np.ndarray | None = None,
) -> Scorer:
    """One model of a bundle; its files lie in `place` (empty, or ending in a slash)."""

    def array(name: str) -> Any:
        if place + name not in manifest["files"]:
            return None
        # A plain array over the mapped file: numpy's memmap class costs time at every operation.
        return np.asarray(np.load(folder / place / name, mmap_mode="r", allow_pickle=False))

    def network(name: str) -> OnnxNetwork | None:
        return OnnxNetwork(folder / place / name, threads) if place + name in manifest["files"] else None

    links = None
    if any(place + name in manifest["files"] for name in LINKS.values()):
        if missing := [place + name for name in LINKS.values() if place + name not in manifest["files"]]:
            raise BundleError(f"{folder}: links without {', '.join(missing)}")
        links = Links(
            **{key: array(name) for key, name in LINKS.items()},
            decay=scoring["link_decay"],
            floor=scoring["link_floor"],
            window=scoring["link_window"],
        )
    ratings = None
    if scale := scoring.get("ratings"):
        ratings = RatingScale(scale["lowest"], scale["highest"], array(USER_MEANS))
    nearness = None
    if how := scoring.get(NEARNESS):
        nearness = Nearness(how["num_neighbors"], how["power"], array(LINKS_MEAN), tuple(how["dims"]))
    return Scorer(
        num_items=scoring.get("num_items", num_items),  # of a member that knows no content
        encode=network(ENCODER),
        item_vectors=array(VECTORS),
        rank=network(RANKER),
        links=links,
        item_scores=array(SCORES),
        user_table=array(USER_VECTORS),
        max_history=scoring["max_history"],
        uses_time=scoring.get("uses_time", False),  # format 1 knew no times
        needs_history=scoring["needs_history"],
        fallback=fallback,
        ratings=ratings,
        project=network(PROJECTION),
        nearness=nearness,
        content=tuple(scoring.get(ENCODERS, ())),
    )


def _index(folder: Path, manifest: dict[str, Any], scorer: Scorer) -> Index | None:
    if INDEX not in manifest["files"]:
        return None
    if not is_available():
        logger.warning("%s: its index needs faiss (%s); every item is scored instead", folder, EXTRA)
        return None
    index = read_index(folder / INDEX, manifest["index"])
    if not scorer.is_product or index.num_items != scorer.num_items:
        raise BundleError(f"{folder / INDEX}: {index.num_items} items, which are not those of the model")
    return index


def _reranker(folder: Path, settings: dict[str, Any], threads: int) -> Reranker:
    arrays = {name: np.load(folder / file, mmap_mode="r", allow_pickle=False) for name, file in ITEM_FACTS.items()}
    known = {name: settings[name] for name in RERANKER_SETTINGS}
    known |= {"features": tuple(settings["features"]), "members": tuple(settings["members"])}
    return Reranker(OnnxNetwork(folder / RERANKER, threads), facts=ItemFacts(**arrays), **known)


def _check_rows(path: Path, found: np.ndarray | None, num_rows: int) -> None:
    if found is not None and len(found) != num_rows:
        raise BundleError(f"{path}: {len(found)} rows where {num_rows} are needed (one is padding)")
    if found is not None and not np.isfinite(found).all():
        raise BundleError(f"{path}: holds values that are not finite")


def _check_arrays(folder: Path, part: Scorer, num_users: int) -> None:
    """What arithmetic would not notice: rows missing, links that point nowhere, numbers that are none."""
    _check_rows(folder / VECTORS, part.item_vectors, part.num_items + 1)
    _check_rows(folder / SCORES, part.item_scores, part.num_items + 1)
    _check_rows(folder / USER_VECTORS, part.user_table, num_users + 1)
    _check_rows(folder / USER_MEANS, None if part.ratings is None else part.ratings.user_means, num_users + 1)
    links = part.links
    if links is not None and (
        len(links.indptr) != part.num_items + 2
        or len(links.indices) != len(links.weights)
        or (links.indptr[0], links.indptr[-1]) != (0, len(links.indices))
        or (np.diff(links.indptr) < 0).any()
        or not 0 <= links.indices.min(initial=0) <= links.indices.max(initial=0) <= part.num_items
        or not np.isfinite(links.weights).all()
    ):
        raise BundleError(f"{folder}: links do not fit a catalogue of {part.num_items} items, or are not finite")


def _check_content(
    folder: Path, scorer: Scorer, encoders: list[dict[str, Any]], content: dict[str, np.ndarray]
) -> None:
    """Vectors that are missing, misshapen or no numbers, and a projection that does not take them."""
    for entry in encoders:
        found = content[entry["name"]]
        if found.shape != (scorer.num_items + 1, entry["dim"]) or not np.isfinite(found).all():
            raise BundleError(
                f"{folder / entry['file']}: expected {scorer.num_items + 1} rows of {entry['dim']} numbers"
            )
    for part in scorer.parts:
        if part.project is None and part.nearness is None and not part.content:
            continue
        if not part.content or not set(part.content) <= set(content):
            raise BundleError(f"{folder}: a model with content lacks what an encoder says")
        dims = tuple(content[name].shape[1] for name in part.content)
        if part.nearness is not None:
            mean = part.nearness.mean
            if part.links is None or part.nearness.dims != dims or mean is None or mean.shape != (sum(dims),):
                raise BundleError(f"{folder}: {LINKS_MEAN} and links do not fit the vectors of the encoders")
            _check_rows(folder / LINKS_MEAN, mean, sum(dims))
            continue
        if part.project is None or part.item_vectors is None:
            raise BundleError(f"{folder}: a model with content lacks {PROJECTION} or vectors")
        blank = np.zeros((2, sum(dims)), np.float32)
        try:
            made = part.project(blank)
        except Exception as error:
            raise BundleError(f"{folder}: {PROJECTION} does not take the vectors of the encoders: {error}") from None
        if made.shape != (2, part.item_vectors.shape[1]) or not np.isfinite(made).all():
            raise BundleError(f"{folder}: {PROJECTION} makes no item vectors")


@dataclass(frozen=True)
class Pointer:
    """Which release is served (`releases/<tenant>/current.json`); `history` lists those promoted before, oldest first.

    `rolled_back` is the release the last rollback left, None after a promotion.
    """

    release: str
    history: tuple[str, ...] = ()
    rolled_back: str | None = None


def release_folder(releases: Path, release: str, tenant: str = "main") -> Path:
    """Where the bundle of a release lies; its record is the file of the same name with `.json` beside it."""
    return releases / tenant / release


def read_pointer(releases: Path, tenant: str = "main") -> Pointer | None:
    """The pointer, or None before the first promotion. Raises BundleError when the file is not a pointer."""
    path = releases / tenant / POINTER
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return Pointer(value["release"], tuple(value["history"]), value["rolled_back"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: not a readable pointer ({error!r})") from None


def write_pointer(releases: Path, pointer: Pointer, *, expected: str | None, tenant: str = "main") -> None:
    """Moves the pointer if it still names `expected` (None: no release yet), by fsync and rename under a lock.

    Raises RefusedError when another promotion came first: the caller judges anew.
    """
    folder = releases / tenant
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".pointer.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        current = read_pointer(releases, tenant)
        if (current.release if current else None) != expected:
            raise RefusedError(
                f"{folder / POINTER}: names {current.release[:12] if current else 'no release'}, not "
                f"{expected[:12] if expected else 'no release'} as expected: another promotion came first"
            )
        write_atomically(folder / POINTER, canonical_json(vars(pointer)))


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file by fsync and rename: a reader, or a crash at any moment, sees the old or the new one whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames inside a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
