"""What SASRec must do by its definition, on data small enough to know the answer."""

import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recops.data.interactions import Interactions
from recops.data.vocabulary import Vocabulary
from recops.models import _next_item
from recops.models.sasrec import Sasrec
from recops.training.loop import fit_model


def make_train(histories: list[list[int]], num_items: int) -> Interactions:
    lengths = [len(history) for history in histories]
    num_rows = sum(lengths)
    return Interactions(
        user_idx=np.repeat(np.arange(1, len(histories) + 1, dtype=np.int32), lengths),
        item_idx=np.array([item for history in histories for item in history], np.int32),
        timestamp=None,
        value=np.full(num_rows, np.nan, np.float32),
        weight=np.ones(num_rows, np.float32),
        offsets=np.concatenate([[0, 0], np.cumsum(lengths)]).astype(np.int64),
        users=Vocabulary(f"u{user:04d}" for user in range(len(histories))),
        items=Vocabulary(f"i{item:04d}" for item in range(num_items)),
    )


def make_model(num_items: int = 20, **options: object) -> Sasrec:
    small = {"embedding_dim": 16, "num_blocks": 2, "max_history": 12, "batch_size": 64}
    return Sasrec(Sasrec.Config(**{**small, **options}), 5, num_items, seed=1)


def user_vectors(model: Sasrec, *histories: list[int]) -> np.ndarray:
    """[B, D]; histories of one length, padding included."""
    encoder = model.parts().encoder
    assert encoder is not None
    with torch.inference_mode():
        return encoder(torch.tensor(histories, dtype=torch.int64)).numpy()


@pytest.mark.parametrize(
    "options", [{}, {"loss": "sampled_softmax", "num_negatives": 8}, {"precision": "float32", "positions": "learned"}]
)
def test_learns_a_cycle(options: dict[str, object]) -> None:
    """Every user goes round 20 items, i -> i + 1: after each item the next one comes first."""
    histories = [[(start + step) % 20 + 1 for step in range(13)] for start in range(20)]
    train = make_train(histories, num_items=20)
    model = make_model(epochs=15, learning_rate=0.02, dropout=0.1, **options)
    report = fit_model(model, train, None, seed=1)
    assert report.epochs[-1]["loss"] < report.epochs[0]["loss"]
    vectors = user_vectors(model, *[history[:8] for history in histories])
    best = (vectors @ model.parts().item_vectors[1:].T).argmax(1) + 1
    assert best.tolist() == [history[8] for history in histories]


@pytest.mark.parametrize(("loss", "most", "samples"), [("auto", 20, False), ("auto", 19, True), ("softmax", 19, False)])
def test_a_large_catalogue_is_sampled(loss: str, most: int, samples: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_next_item, "_MOST_ITEMS_AT_ONCE", most)
    model = make_model(loss=loss)
    model.prepare(make_train([list(range(1, 21))], num_items=20))
    assert all(("negative" in batch) == samples for batch in model.batches(torch.Generator().manual_seed(0)))


def test_later_items_do_not_change_earlier_outputs() -> None:
    network = make_model().module.eval()
    position = torch.arange(5, -1, -1)[None]
    before = network.every_position(torch.tensor([[3, 1, 4, 1, 5, 9]]), position)
    after = network.every_position(torch.tensor([[3, 1, 4, 7, 8, 2]]), position)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert not torch.allclose(after[:, 3:], before[:, 3:])


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_training_and_serving_see_the_same_history(positions: str) -> None:
    network = make_model(positions=positions).module.eval()
    item_idx = torch.tensor([[3, 1, 4, 1, 5, 9]])
    trained = network.every_position(item_idx, torch.arange(5, -1, -1)[None])[:, -1]
    torch.testing.assert_close(network(item_idx), trained)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 20), max_size=9), st.integers(1, 30))
def test_padding_on_the_left_changes_nothing(history: list[int], num_padding: int) -> None:
    model = make_model()
    plain = user_vectors(model, history or [0])
    padded = user_vectors(model, [0] * num_padding + history)
    assert np.isfinite(plain).all()
    np.testing.assert_allclose(padded, plain, atol=1e-5)


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_the_order_of_a_history_counts(positions: str) -> None:
    model = make_model(positions=positions)
    assert not np.allclose(user_vectors(model, [1, 2, 3, 4]), user_vectors(model, [2, 1, 3, 4]), atol=1e-4)


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    model = make_model()
    together = user_vectors(model, [1, 2, 3], [0, 0, 0], [0, 4, 5])
    np.testing.assert_allclose(together[2:], user_vectors(model, [0, 4, 5]), atol=1e-6)


def test_every_event_with_one_before_it_is_a_target_once() -> None:
    """Users with 1, 2, 7 and 30 events, windows of 12: 0 + 1 + 6 + 29 targets, each with what came before it."""
    histories = [[1], [2, 3], [4, 5, 6, 7, 8, 9, 10], list(range(11, 41))]
    model = make_model(num_items=40)
    model.prepare(make_train(histories, num_items=40))
    pairs = []
    batches = list(model.batches(torch.Generator().manual_seed(0)))
    for batch in batches:
        inside = batch["target"] > 0
        assert batch["item_idx"].numel() <= 64
        assert batch["item_idx"].shape[1] <= 12
        assert (batch["item_idx"][~inside] == 0).all()
        pairs += zip(batch["item_idx"][inside].tolist(), batch["target"][inside].tolist(), strict=True)
        lengths = inside.sum(1)
        assert batch["position"][:, 0].tolist() == (lengths - 1).tolist()
    assert len(batches) == model.num_batches()
    assert sorted(pairs) == sorted(pair for history in histories for pair in pairwise(history))


@pytest.mark.parametrize("learn_repeats", [False, True])
def test_the_item_just_had_is_a_target_only_on_demand(learn_repeats: bool) -> None:
    """A click, a play and a like of the same video: what comes next is the next video, not the same one again."""
    histories = [[1, 1, 1, 2, 2, 3, 1], [4, 4, 4], [5] * 30 + [6]]
    model = make_model(learn_repeats=learn_repeats)
    model.prepare(make_train(histories, num_items=20))
    pairs = []
    for batch in model.batches(torch.Generator().manual_seed(0)):
        inside = batch["target"] > 0
        assert inside.any()
        pairs += zip(batch["item_idx"][inside].tolist(), batch["target"][inside].tolist(), strict=True)
    repeats = [pair for history in histories for pair in pairwise(history)]
    assert sorted(pairs) == sorted(repeats if learn_repeats else [(1, 2), (2, 3), (3, 1), (5, 6)])


def test_epochs_differ_by_their_generator_alone() -> None:
    model = make_model()
    model.prepare(make_train([[user % 20 + 1, 5, 6] for user in range(100)], num_items=20))

    def order(seed: int) -> list[list[int]]:
        return [b["item_idx"].flatten().tolist() for b in model.batches(torch.Generator().manual_seed(seed))]

    assert order(1) == order(1) != order(2)


def test_nobody_with_two_events_gives_no_batches() -> None:
    model = make_model()
    model.prepare(make_train([[1], [2]], num_items=20))
    assert model.num_batches() == 0


def test_padding_never_learns_and_never_counts() -> None:
    train = make_train([[1, 2, 3, 4], [5, 6]] * 4, num_items=20)
    model = make_model(epochs=2, weight_decay=0.1)
    fit_model(model, train, None)
    vectors = model.parts().item_vectors
    assert vectors.shape == (21, 16) and vectors.dtype == np.float32
    assert not vectors[0].any() and vectors[1:].any(1).all()


def test_state_carries_everything_learned() -> None:
    model, other = make_model(), Sasrec(make_model().config, 5, 20, seed=2)
    assert not np.allclose(user_vectors(other, [1, 2]), user_vectors(model, [1, 2]))
    other.load_state(model.state())
    assert (user_vectors(other, [1, 2]) == user_vectors(model, [1, 2])).all()
    assert (other.parts().item_vectors == model.parts().item_vectors).all()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValidationError, match="embedding_dim 16 is not a multiple of num_heads 3"):
        make_model(num_heads=3)
    with pytest.raises(ValidationError, match="rotary positions need an even"):
        make_model(num_heads=16)
    make_model(num_heads=16, positions="learned")


def test_onnx_gives_the_same_vectors_for_any_batch_and_length(tmp_path: Path) -> None:
    model = make_model(num_items=50, max_history=200)
    encoder = model.parts().encoder
    assert encoder is not None
    dims = {"item_idx": {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            encoder, (torch.ones(2, 7, dtype=torch.int64),), dynamo=True, opset_version=20, dynamic_shapes=dims
        )
    assert program is not None
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [type(size) for size in session.get_inputs()[0].shape] == [str, str]
    rng = np.random.default_rng(1)
    for num_rows in (1, 2, 7, 64):
        for length in (1, 2, 13, 200):
            item_idx = rng.integers(1, 51, (num_rows, length))
            item_idx[np.arange(length) < rng.integers(0, length + 1, (num_rows, 1))] = 0
            (found,) = session.run(None, {"item_idx": item_idx})
            np.testing.assert_allclose(found, user_vectors(model, *item_idx.tolist()), atol=1e-4)
