"""What is written is what the model gives: the same scores, the same bytes, nothing half there."""

import json
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from recops.bundle import Bundle, load_bundle
from recops.calibration import Fusion
from recops.errors import RefusedError
from recops.protocols import ServingParts
from recops.release.export import cut_links, export_bundle, torch_scorer
from recops.release.parity import check_parity, compare_lists, measure_parity
from recops.signing import make_keys
from tests.release.small_bundles import facts, items

NUM_ITEMS, WIDTH = 8, 6
IDS = tuple("abcdefgh")


class Encoder(nn.Module):
    """Attention over the events, padding masked, so that the length of a history stays free."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(NUM_ITEMS + 1, WIDTH, padding_idx=0)
        self.key = nn.Linear(WIDTH, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, item_idx: torch.Tensor) -> torch.Tensor:
        x_BLD = self.dropout(self.items(item_idx))
        attention_BL = self.key(x_BLD)[..., 0].masked_fill(item_idx == 0, -1e9).softmax(-1)
        return (attention_BL[..., None] * x_BLD).sum(1)


class Ranker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Linear(WIDTH, 4), nn.Linear(WIDTH, 4)

    def forward(self, user_vector: torch.Tensor, item_vectors: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.user(user_vector)[:, None] + self.item(item_vectors)[None]).sum(-1)


def parts() -> ServingParts:
    torch.manual_seed(1)
    encoder, ranker = Encoder(), Ranker()
    rng = np.random.default_rng(1)
    return ServingParts(
        encoder=encoder,
        item_vectors=encoder.items.weight.detach().numpy().copy(),
        ranker=ranker,
        links=(
            np.array([0, 0, 3, *[3] * 7], np.int64),
            np.array([2, 5, 7], np.int32),
            np.array([1, -2, 1], np.float32),
        ),
        item_scores=rng.normal(size=NUM_ITEMS + 1).astype(np.float32),
        max_history=5,
        link_decay=2.0,
        link_floor=0.1,
        link_window=3,
    )


def export(folder, exported: ServingParts, **more) -> str:
    arguments = {
        "items": items(*IDS),
        "fallback": np.arange(NUM_ITEMS + 1, dtype=np.float32),
        "profile": {"kind": "none"},
        "facts": facts(),
        "opset": 20,
        "max_links": 2,
    }
    return export_bundle(exported, folder, **{**arguments, **more})


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("export") / "bundle"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(folder, parts())
    return load_bundle(folder)


def histories(num_users: int, length: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(1, NUM_ITEMS + 1, (num_users, length)))


@pytest.mark.parametrize(("num_users", "length"), [(1, 0), (1, 1), (2, 3), (7, 5), (64, 9)])
def test_the_bundle_scores_as_the_modules_do(exported, num_users, length):
    scorer = torch_scorer(cut_links(parts(), 2), np.arange(NUM_ITEMS + 1, dtype=np.float32))
    batch = histories(num_users, length)
    np.testing.assert_allclose(exported.scorer.scores(batch), scorer.scores(batch), atol=1e-5)
    rows = np.array([3, 1])
    np.testing.assert_allclose(exported.scorer.score_items(batch, rows), scorer.scores(batch)[:, rows], atol=1e-5)


def test_the_files_hold_free_dimensions_and_no_traces(exported):
    assert exported.manifest["signature"] == {
        "model.onnx": {
            "inputs": [{"name": "item_idx", "type": "int64", "shape": ["batch", "history"]}],
            "outputs": [{"name": "user_vector", "type": "float32", "shape": ["batch", WIDTH]}],
        },
        "rank.onnx": {
            "inputs": [
                {"name": "user_vector", "type": "float32", "shape": ["batch", WIDTH]},
                {"name": "item_vectors", "type": "float32", "shape": ["candidates", WIDTH]},
            ],
            "outputs": [{"name": "scores", "type": "float32", "shape": ["batch", "candidates"]}],
        },
    }
    for name in ("model.onnx", "rank.onnx"):
        data = (exported.folder / name).read_bytes()
        assert b"test_export" not in data and b"site-packages" not in data
        model = onnx.load_from_string(data)
        assert [opset.version for opset in model.opset_import if opset.domain == ""] == [20]
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert exported.manifest["scoring"]["max_history"] == 5
    assert exported.profile == {"kind": "none"}


def test_the_same_model_gives_the_same_bytes_in_another_folder(exported, tmp_path):
    assert export(tmp_path / "deep" / "er", parts()) == exported.id
    for path in exported.folder.iterdir():
        assert path.read_bytes() == (tmp_path / "deep" / "er" / path.name).read_bytes(), path.name


def test_links_are_cut_to_the_largest_the_first_of_equals():
    indptr, indices, weights = cut_links(parts(), 2).links
    assert (indptr.tolist(), indices.tolist(), weights.tolist()) == ([0, 0, *[2] * 8], [2, 5], [1, -2])
    assert cut_links(parts(), 9).links[1].tolist() == [2, 5, 7]
    assert cut_links(ServingParts(), 1).links is None


def test_a_model_without_networks_needs_no_onnx(tmp_path):
    item_scores = np.array([0, *range(8)], np.float32)
    export(tmp_path / "b", ServingParts(item_scores=item_scores, needs_history=False))
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "fallback.json",
        "item_scores.npy",
        "items.json",
        "manifest.json",
        "profile.json",
    ]
    assert load_bundle(tmp_path / "b").scorer.scores([np.array([], np.int64)])[0, 1:].tolist() == list(range(8))


def test_the_check_comes_before_the_bundle(tmp_path):
    popular = ServingParts(item_scores=np.zeros(NUM_ITEMS + 1, np.float32))
    before = export(tmp_path / "b", popular, check=lambda bundle: {"users": bundle.num_items})
    assert load_bundle(tmp_path / "b").manifest["parity"] == {"users": NUM_ITEMS}

    def refuse(bundle):
        raise RefusedError("no")

    with pytest.raises(RefusedError):
        export(tmp_path / "b", popular, check=refuse)
    assert load_bundle(tmp_path / "b").id == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    other = export(tmp_path / "b", ServingParts(item_scores=np.ones(NUM_ITEMS + 1, np.float32)))
    assert load_bundle(tmp_path / "b").id == other != before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    broken = parts()
    with torch.no_grad():
        broken.encoder.key.bias[0] = torch.nan
    with pytest.raises(RefusedError, match=r"key\.bias holds values that are not finite"):
        export(tmp_path / "b", broken)
    with pytest.raises(RefusedError, match="item_scores"):
        export(tmp_path / "b", ServingParts(item_scores=np.full(NUM_ITEMS + 1, np.inf, np.float32)))
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_fixes_its_length_is_not_exported(tmp_path):
    class Fixed(nn.Module):
        def forward(self, item_idx):
            return item_idx.reshape(3, 5).float()

    with pytest.raises((AssertionError, torch.onnx.OnnxExporterError)):
        export(tmp_path / "b", ServingParts(encoder=Fixed(), item_vectors=np.zeros((9, 5), np.float32), max_history=5))


def test_the_catalogue_and_the_fallback_are_plain_json(tmp_path):
    columns = items("a", "ü")
    columns |= {"title": ["A", None], "categories": [["x"], []], "price": [1.5, None], "available": [True, False]}
    fallback = np.array([0, 1 / 3, 1e7 + 1], np.float32)
    export(tmp_path / "b", ServingParts(item_scores=fallback), items=columns, fallback=fallback)
    assert json.loads((tmp_path / "b" / "items.json").read_text(encoding="utf-8")) == columns
    assert json.loads((tmp_path / "b" / "fallback.json").read_text()) == {"scores": [0.333333, 1e7]}


@pytest.mark.parametrize("remove_seen", [True, False])
def test_parity_of_what_was_exported(exported, remove_seen):
    users = [*histories(150, 4), np.array([], np.int64)]
    found = check_parity(parts(), exported, users, 5, remove_seen)
    assert found == {"num_users": 151, "k": 5, "scores_within": 1e-4, "ids_equal_unless_within": 1e-5}
    measured = measure_parity(parts(), exported, users, 50, remove_seen)
    assert measured["max_abs_difference"] < 1e-5
    assert measured["lists_equal"] == 1.0
    assert measure_parity(parts(), exported, [], 5, remove_seen)["lists_equal"] == 1.0


def test_parity_refuses_another_model(exported):
    other = parts()
    with torch.no_grad():
        other.encoder.key.weight += 0.1
    with pytest.raises(RefusedError, match="scores differ"):
        check_parity(other, exported, histories(9, 4), 5, True)
    with torch.no_grad():
        other.encoder.key.weight *= torch.nan
    with pytest.raises(RefusedError, match="not finite"):
        check_parity(other, exported, histories(9, 4), 5, True)


@pytest.mark.parametrize(
    ("a", "b", "difference"),
    [
        ({"x": 2.0, "y": 1.0}, {"x": 2.0, "y": 1.0}, None),
        ({"x": 2.0, "y": 1.0}, {"x": 2.00009, "y": 1.0}, None),
        ({"x": 2.0, "y": 1.0}, {"x": 2.0002, "y": 1.0}, "rank 1: scores"),
        ({"x": 2.0, "y": 1.0}, {"x": 2.0}, "lists of 2 and 1"),
        ({"x": 1.000008, "y": 1.0}, {"y": 1.000052, "x": 1.00005}, None),
        ({"x": 1.00003, "y": 1.0}, {"y": 1.00003, "x": 1.0}, "rank 1: 'x' and 'y'"),
        ({"x": 2.0, "y": 1.000005}, {"x": 2.0, "z": 1.0}, None),
        ({"x": 1.00005, "y": 1.0}, {"z": 1.00005, "y": 1.0}, "rank 1: 'x' and 'z'"),
        ({"x": float("nan")}, {"x": 1.0}, "rank 1: scores"),
        ({}, {}, None),
    ],
)
def test_lists_agree_but_for_near_ties(a, b, difference):
    for first, second in ((a, b), (b, a)):
        found = compare_lists(list(first), list(first.values()), list(second), list(second.values()))
        assert (found is None) == (difference is None), found
    if difference:
        assert compare_lists(list(a), list(a.values()), list(b), list(b.values())).startswith(difference)


def test_members_lie_in_their_folders_and_their_weights_are_whole(tmp_path):
    """The first with a network where a single model would lie, the others by name."""
    weights = np.array([[1 / 3, 2 / 3]], np.float32)
    network = parts()
    by_links = ServingParts(links=network.links)
    both = ServingParts(members=[("by_links", by_links), ("network", network)], fusion=Fusion(weights))
    folder = tmp_path / "bundle"
    fallback = np.zeros(NUM_ITEMS + 1, np.float32)
    export_bundle(both, folder, items=items(*IDS), fallback=fallback, profile={}, facts=facts(), opset=20, max_links=2)
    bundle = load_bundle(folder)
    names = set(bundle.manifest["files"])
    assert {"model.onnx", "item_vectors.npy", "members/by_links/links_indptr.npy"} <= names
    assert bundle.scorer.fusion.weights.tolist() == weights.tolist()
    batch = histories(3, 4)
    scorer = torch_scorer(cut_links(both, 2), fallback)
    np.testing.assert_allclose(bundle.scorer.scores(batch), scorer.scores(batch), atol=1e-5)


def test_a_bundle_is_signed_where_a_key_is_given(tmp_path):
    public = make_keys(tmp_path / "key.pem")
    popular = ServingParts(item_scores=np.zeros(NUM_ITEMS + 1, np.float32))
    release = export(tmp_path / "b", popular, check=lambda bundle: {}, sign_key=tmp_path / "key.pem")
    assert load_bundle(tmp_path / "b", key=public).id == release
    signature = (tmp_path / "b" / "manifest.sig").read_bytes()
    assert export(tmp_path / "c", popular, check=lambda bundle: {}, sign_key=tmp_path / "key.pem") == release
    assert (tmp_path / "c" / "manifest.sig").read_bytes() == signature  # the same bytes for the same key
    assert export(tmp_path / "b", popular, check=lambda bundle: {}) == release
    assert not (tmp_path / "b" / "manifest.sig").exists()


def test_attributes_are_a_column_where_there_are_any(tmp_path):
    parts = ServingParts(item_scores=np.array([0, 1, 2], np.float32), needs_history=False)
    given = {"fallback": np.zeros(3, np.float32), "profile": {}, "facts": facts(), "opset": 20, "max_links": 9}
    export_bundle(parts, tmp_path / "without", items=items("a", "b"), **given)
    assert "attributes" not in load_bundle(tmp_path / "without").items
    own = [None, {"seller": "one", "tags": [1, True]}]
    export_bundle(parts, tmp_path / "with", items={**items("a", "b"), "attributes": own}, **given)
    assert load_bundle(tmp_path / "with").items["attributes"] == own
