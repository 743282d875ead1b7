"""What is read as a bundle and what is refused; the pointer."""

import hashlib
import json
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from recops import bundle as files
from recops.bundle import Pointer, load_bundle, read_pointer, sign_manifest, verify, write_manifest, write_pointer
from recops.errors import BundleError, RefusedError
from recops.signing import make_keys

VECTORS = np.array([[0, 0], [1, 0], [0, 1], [2, 2]], np.float32)


def encoder(vectors: np.ndarray) -> bytes:
    """Histories to the sum of the vectors of their items."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["vectors", "item_idx"], ["found"]),
            helper.make_node("ReduceSum", ["found", "axes"], ["user_vector"], keepdims=0),
        ],
        "encoder",
        [helper.make_tensor_value_info("item_idx", TensorProto.INT64, ["batch", "history"])],
        [helper.make_tensor_value_info("user_vector", TensorProto.FLOAT, ["batch", vectors.shape[1]])],
        [numpy_helper.from_array(vectors, "vectors"), numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def write_bundle(folder: Path) -> str:
    folder.mkdir()
    (folder / files.ENCODER).write_bytes(encoder(VECTORS))
    np.save(folder / files.VECTORS, VECTORS)
    for name, array in {
        files.LINKS["indptr"]: np.array([0, 0, 1, 1, 1], np.int64),
        files.LINKS["indices"]: np.array([3], np.int32),
        files.LINKS["weights"]: np.array([0.5], np.float32),
    }.items():
        np.save(folder / name, array)
    columns = dict.fromkeys(("title", "categories", "price", "available", "published_at"), [None] * 3)
    (folder / files.ITEMS).write_text(json.dumps({"item_id": ["a", "b", "c"], **columns}))
    (folder / files.FALLBACK).write_text('{"scores": [3, 2, 1]}')
    (folder / files.PROFILE).write_text("{}")
    return sign(folder)


def sign(folder: Path) -> str:
    scoring = {"max_history": 5, "link_decay": None, "link_floor": 0.0, "link_window": None, "needs_history": True}
    return write_manifest(folder, {"scoring": scoring})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_bundle_is_read_and_scores(folder):
    bundle = load_bundle(folder)
    assert bundle.id == files.sha256_file(folder / files.MANIFEST) == files.bundle_id(folder)
    assert bundle.num_items == 3
    assert bundle.rows(["c", "zz", "a"]).tolist() == [3, 1]
    # History a, b: user (1, 1); a links to c with .5.
    assert bundle.scorer.scores([bundle.rows(["a", "b"])]).tolist() == [[-np.inf, 1, 1, 4.5]]
    assert bundle.scorer.scores([bundle.rows([])]).tolist() == [[-np.inf, 3, 2, 1]]
    assert bundle.profile == {}


def change(name: str, changed):
    def corrupt(folder: Path) -> None:
        path = folder / name
        path.write_bytes(changed(path.read_bytes()))

    return corrupt


def flip(data: bytes) -> bytes:
    """One bit of one byte among the weights, which ONNX Runtime would load without a word."""
    at = data.index(VECTORS.tobytes()) + 9
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def wrong_width(folder: Path) -> None:
    (folder / files.ENCODER).write_bytes(encoder(np.ones((4, 3), np.float32)))
    sign(folder)


def nan_weights(folder: Path) -> None:
    (folder / files.ENCODER).write_bytes(encoder(np.where(VECTORS == 1, np.nan, VECTORS).astype(np.float32)))
    sign(folder)


def one_nan_weight(folder: Path) -> None:
    """In the row of the last item, which no history of a first look holds."""
    vectors = VECTORS.copy()
    vectors[3, 0] = np.nan
    (folder / files.ENCODER).write_bytes(encoder(vectors))
    sign(folder)


def path_escape(folder: Path) -> None:
    path = folder.parent / "outside.json"
    path.write_text("{}")
    manifest = json.loads((folder / files.MANIFEST).read_text())
    manifest["files"]["../outside.json"] = files.sha256_file(path)
    (folder / files.MANIFEST).write_text(json.dumps(manifest))


CORRUPTIONS = {
    "empty": change(files.ENCODER, lambda data: b""),
    "truncated by half": change(files.ENCODER, lambda data: data[: len(data) // 2]),
    "one byte short": change(files.VECTORS, lambda data: data[:-1]),
    "zeros": change(files.VECTORS, lambda data: bytes(len(data))),
    "one flipped bit": change(files.ENCODER, flip),
    "missing file": lambda folder: (folder / files.FALLBACK).unlink(),
    "wrong width": wrong_width,
    "weights that are no numbers": nan_weights,
    "one weight that is no number": one_nan_weight,
    "wrong manifest": change(files.MANIFEST, lambda data: data.replace(b'"files"', b'"fules"')),
    "path outside": path_escape,
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_corrupt_bundle_is_refused_each_time(folder, corruption):
    CORRUPTIONS[corruption](folder)
    for _ in range(2):
        with pytest.raises(BundleError, match=str(folder)):
            load_bundle(folder)


def test_every_changed_byte_of_any_file_is_refused(folder):
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        for at in {0, len(data) // 2, len(data) - 1}:
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            if path.name == files.MANIFEST:
                # The manifest is known by its own hash: a changed one is another release.
                assert files.sha256_file(path) != hashlib.sha256(data).hexdigest()
            else:
                with pytest.raises(BundleError):
                    verify(folder)
        path.write_bytes(data)
    verify(folder)


def replaced(name: str, array: np.ndarray):
    return lambda folder: np.save(folder / name, array)


SIGNED_FAULTS = {
    "a row too few": replaced(files.VECTORS, VECTORS[:3]),
    "vectors not finite": replaced(files.VECTORS, np.full((4, 2), np.inf, np.float32)),
    "links beyond the catalogue": replaced(files.LINKS["indices"], np.array([4], np.int32)),
    "links below the catalogue": replaced(files.LINKS["indices"], np.array([-1], np.int32)),
    "links longer than their weights": replaced(files.LINKS["weights"], np.zeros(0, np.float32)),
    "links that run backwards": replaced(files.LINKS["indptr"], np.array([0, 1, 0, 0, 1], np.int64)),
    "link weights not finite": replaced(files.LINKS["weights"], np.array([np.nan], np.float32)),
    "links without weights": lambda folder: (folder / files.LINKS["weights"]).unlink(),
    "links without where they begin": lambda folder: (folder / files.LINKS["indptr"]).unlink(),
    "pickled array": lambda folder: np.save(folder / files.VECTORS, np.array([{}]), allow_pickle=True),
    "an item twice": change(files.ITEMS, lambda data: data.replace(b'"b"', b'"a"')),
    "columns of different length": change(files.ITEMS, lambda data: data.replace(b'"price": [null, ', b'"price": [')),
    "no profile": lambda folder: (folder / files.PROFILE).unlink(),
    "fallback of a wrong length": change(files.FALLBACK, lambda data: b'{"scores": [3, 2]}'),
    "items that are no JSON": change(files.ITEMS, lambda data: b"{"),
}


@pytest.mark.parametrize("fault", SIGNED_FAULTS)
def test_a_bundle_that_is_whole_but_wrong_is_refused(folder, fault):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    SIGNED_FAULTS[fault](folder)
    assert before != {path.name: path.read_bytes() for path in folder.iterdir()}
    sign(folder)
    with pytest.raises(BundleError):
        load_bundle(folder)


def test_a_file_the_manifest_does_not_name_is_refused(folder):
    (folder / "more.txt").write_text("x")
    with pytest.raises(BundleError, match=r"more\.txt"):
        verify(folder)


def test_a_link_to_a_file_outside_is_refused(folder):
    path = folder / files.PROFILE
    path.rename(folder.parent / "profile.json")
    path.symlink_to(folder.parent / "profile.json")
    with pytest.raises(BundleError, match="outside"):
        verify(folder)


def test_a_newer_format_is_refused(folder):
    newer = f'"format_version": {files.FORMAT_VERSION + 1}'.encode()
    change(files.MANIFEST, lambda data: data.replace(b'"format_version": 2', newer))(folder)
    with pytest.raises(BundleError, match="newer"):
        load_bundle(folder)


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="no such bundle"):
        load_bundle(tmp_path / "none")
    with pytest.raises(BundleError, match="not a readable manifest"):
        load_bundle(tmp_path)


def test_the_pointer_moves_only_from_what_was_expected(tmp_path):
    assert read_pointer(tmp_path) is None
    write_pointer(tmp_path, Pointer("a"), expected=None)
    with pytest.raises(RefusedError, match="another promotion"):
        write_pointer(tmp_path, Pointer("b"), expected=None)
    write_pointer(tmp_path, Pointer("b", ("a",)), expected="a")
    assert read_pointer(tmp_path) == Pointer("b", ("a",), None)


def test_of_many_promotions_at_once_one_wins(tmp_path):
    write_pointer(tmp_path, Pointer("a"), expected=None)
    won = []

    def move(name: str) -> None:
        try:
            write_pointer(tmp_path, Pointer(name, ("a",)), expected="a")
            won.append(name)
        except RefusedError:
            pass

    threads = [threading.Thread(target=move, args=(f"b{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [read_pointer(tmp_path).release]


def test_a_damaged_pointer_is_named(tmp_path):
    write_pointer(tmp_path, Pointer("a"), expected=None)
    (tmp_path / "main" / files.POINTER).write_text('{"release": "a"}')
    with pytest.raises(BundleError, match=r"current\.json"):
        read_pointer(tmp_path)


def test_with_a_key_only_what_is_signed_for_it_is_read(folder, tmp_path):
    private = tmp_path / "key.pem"
    public = make_keys(private)
    for _ in range(2):  # refused again on retry
        with pytest.raises(BundleError, match=r"manifest\.sig: missing"):
            load_bundle(folder, key=public)
    before = load_bundle(folder).id
    sign_manifest(folder, private)
    assert load_bundle(folder, key=public).id == load_bundle(folder).id == before  # no part of what the id is made from
    with pytest.raises(BundleError, match=r"other\.pem\.pub"):
        load_bundle(folder, key=make_keys(tmp_path / "other.pem"))
    # One changed byte of any file, the manifest and the signature among them.
    names = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(names) == 10
    for path in names:
        whole = path.read_bytes()
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        with pytest.raises(BundleError):
            verify(folder, public)
        path.write_bytes(whole)
    verify(folder, public)
    # Whoever writes the manifest anew, hashes and all, has no key to sign it with.
    signature = (folder / files.SIGNATURE).read_bytes()
    (folder / files.FALLBACK).write_text('{"scores": [9, 2, 1]}')
    sign(folder)
    assert not (folder / files.SIGNATURE).exists()
    (folder / files.SIGNATURE).write_bytes(signature)
    verify(folder)
    with pytest.raises(BundleError, match="not for this manifest"):
        verify(folder, public)
