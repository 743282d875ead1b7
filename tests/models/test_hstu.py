"""What a network that looks at times must do, whatever its blocks; and what is HSTU's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recops.errors import RefusedError
from recops.models._next_item import NextItemModel
from recops.models._transformer import HstuBlock, time_bucket
from recops.models.hstu import Hstu
from recops.models.ligr import Ligr
from recops.training.loop import fit_model
from tests.models.test_sasrec import make_train

SMALL = {"embedding_dim": 16, "num_blocks": 2, "max_history": 12, "batch_size": 64, "use_time": True}
KINDS = pytest.mark.parametrize("kind", [Hstu, Ligr])


def make(kind: type[NextItemModel], num_items: int = 20, **options: object) -> NextItemModel:
    model = kind(kind.Config(**{**SMALL, **options}), 5, num_items, seed=1)
    with torch.no_grad():  # which begins at 0, so that it would change nothing
        for block in model.module.blocks:
            block.time_bias.weight.normal_(generator=torch.Generator().manual_seed(1))
    return model


def test_buckets_are_two_for_each_doubling() -> None:
    spans = torch.tensor([-5, 0, 1, 2, 3, 6, 7, 2**30])
    assert time_bucket(spans).tolist() == [0, 0, 2, 3, 4, 5, 6, 60]


@KINDS
def test_training_and_serving_see_the_same_history(kind: type[NextItemModel]) -> None:
    network = make(kind).module.eval()
    item_idx, time = torch.tensor([[3, 1, 4, 1]]), torch.tensor([[0, 10, 500, 100_000]])
    asked = torch.tensor([[10, 500, 100_000, 100_060]])
    trained = network.every_position(item_idx, torch.arange(3, -1, -1)[None], time, asked)
    for length in (1, 2, 3, 4):
        now = asked[0, length - 1]
        alone = network.every_position(
            item_idx[:, :length], torch.arange(length - 1, -1, -1)[None], time[:, :length], asked[:, :length]
        )
        served = network(item_idx[:, :length], now - time[:, :length])
        torch.testing.assert_close(served, alone[:, -1])
    torch.testing.assert_close(network(item_idx, 100_060 - time), trained[:, -1])


@KINDS
def test_what_comes_later_changes_nothing_before(kind: type[NextItemModel]) -> None:
    network = make(kind).module.eval()
    position, item_idx = torch.arange(3, -1, -1)[None], torch.tensor([[3, 1, 4, 1]])
    time, asked = torch.tensor([[0, 10, 20, 30]]), torch.tensor([[10, 20, 30, 40]])
    before = network.every_position(item_idx, position, time, asked)
    later, asked_later = torch.tensor([[0, 10, 20, 9_000]]), torch.tensor([[10, 20, 9_000, 9_999]])
    after = network.every_position(torch.tensor([[3, 1, 4, 7]]), position, later, asked_later)
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 2], before[:, 2]), "the time of the request counts"


@KINDS
def test_the_gap_tells_what_comes_next(kind: type[NextItemModel]) -> None:
    """After a pause of a day item 1 follows, else the next of the circle: only the time of the request says which."""
    histories, times = [], []
    for start in range(20):
        items, at, now = [], [], 0
        for step in range(12):
            pause = step % 3 == 2
            now += 86_400 if pause else 5
            items.append(1 if pause else (start + step) % 18 + 2)
            at.append(now)
        histories.append(items)
        times += at
    train = replace(make_train(histories, num_items=20), timestamp=np.array(times, np.int64) * 1_000_000)
    model = kind(kind.Config(**{**SMALL, "epochs": 20, "learning_rate": 0.01, "dropout": 0.0}), 20, 20, seed=1)
    fit_model(model, train, None, seed=1)
    encoder, vectors = model.parts().encoder, model.parts().item_vectors
    assert encoder is not None and vectors is not None
    item_idx = torch.tensor([[4, 5], [4, 5]])
    with torch.no_grad():
        users = encoder(item_idx, torch.tensor([[10, 5], [86_405, 86_400]])).numpy()
    assert (users @ vectors[1:].T).argmax(1)[1] + 1 == 1
    assert (users @ vectors[1:].T).argmax(1)[0] + 1 != 1


@KINDS
def test_a_log_without_times_is_refused_unless_they_are_not_asked_for(kind: type[NextItemModel]) -> None:
    train = make_train([[1, 2, 3]] * 4, num_items=5)
    with pytest.raises(RefusedError, match="use_time"):
        fit_model(make(kind, 5), train, None, seed=1)
    model = kind(kind.Config(**{**SMALL, "use_time": False, "epochs": 1}), 4, 5, seed=1)
    fit_model(model, train, None, seed=1)
    assert not model.parts().uses_time


def test_attention_of_hstu_is_a_mean_of_what_is_seen() -> None:
    """Two positions worked by hand: the first sees itself, the second both, weighed by silu(q.k) without softmax."""
    block = HstuBlock(dim=2, num_heads=1, dropout=0.0, timed=False).eval()
    with torch.no_grad():
        block.expand.weight.copy_(torch.cat([torch.eye(2)] * 4))
        block.expand.bias.zero_()
        block.output.weight.copy_(torch.eye(2))
        block.output.bias.zero_()
    x = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])
    found = block(x, torch.full((1, 1, 2, 2), float("-inf")).triu(1), None, None, False)
    silu = torch.nn.functional.silu
    part = silu(torch.nn.functional.layer_norm(x, (2,)))[0]
    score = silu(part @ part.T / 2**0.5)
    seen = torch.stack([score[0, 0] * part[0], (score[1, 0] * part[0] + score[1, 1] * part[1]) / 2])
    expected = x[0] + torch.nn.functional.layer_norm(seen, (2,)) * part
    torch.testing.assert_close(found[0], expected)
