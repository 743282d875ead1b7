"""Several workers: shares add up to the batch, deaths change nothing, and no worker outlives who started it."""

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from recops import plugins
from recops.data.content import item_content
from recops.data.interactions import Interactions
from recops.data.vocabulary import Vocabulary
from recops.errors import CallError, RefusedError
from recops.protocols import FitReport
from recops.training import distributed
from recops.training.distributed import fit_by_workers

HERE = Path(__file__).parent


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of that name, which workers find too."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return importlib.import_module("mortal")


def walks(num_users: int = 13, num_items: int = 7, num_events: int = 9) -> Interactions:
    """Users who walk round the items in turn, each from another start; weights differ."""
    num_rows = num_users * num_events
    item_idx = (np.arange(num_users)[:, None] + np.arange(num_events)) % num_items + 1
    return Interactions(
        user_idx=np.repeat(np.arange(1, num_users + 1, dtype=np.int32), num_events),
        item_idx=item_idx.ravel().astype(np.int32),
        timestamp=np.tile(np.arange(num_events, dtype=np.int64) * 3_600_000_000, num_users),
        value=np.linspace(1, 5, num_rows, dtype=np.float32),
        weight=np.linspace(0.5, 2, num_rows, dtype=np.float32),
        offsets=np.concatenate([[0], np.arange(num_users + 1) * num_events]).astype(np.int64),
        users=Vocabulary(f"u{user:03d}" for user in range(num_users)),
        items=Vocabulary(f"i{item:03d}" for item in range(num_items)),
    )


def test_workers_read_the_train_part_that_was_written(tmp_path: Path) -> None:
    """With the content of its items and the attributes of its users, new ones after those trained on."""
    train = walks()
    text = np.arange(16, dtype=np.float16).reshape(8, 2)
    content = item_content([*train.items.ids, "a"], {"text": text, "image": text + 1}, train.items)
    told = item_content([*train.users.ids, "zoe"], {"attributes": np.ones((14, 1), np.float16)}, train.users)
    distributed._write_train(replace(train, content=content, user_attributes=told), tmp_path)
    found = distributed._read_train(tmp_path)
    np.testing.assert_array_equal(found.item_idx, train.item_idx)
    assert found.all_items.ids == content.items.ids and found.all_items.ids[-1] == "a"
    assert found.content is not None and list(found.content.vectors) == ["text", "image"]
    for name, vectors in content.vectors.items():
        np.testing.assert_array_equal(found.content.vectors[name], vectors)
    assert found.user_attributes is not None and found.all_users.ids == told.items.ids
    np.testing.assert_array_equal(found.user_attributes.vectors["attributes"], told.vectors["attributes"])
    distributed._write_train(train, tmp_path / ".")
    found = distributed._read_train(tmp_path)
    assert found.content is found.user_attributes is None


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sasrec", {"dropout": 0, "precision": "float32", "max_history": 5, "batch_size": 64}),
        ("sasrec", {"dropout": 0, "precision": "float32", "loss": "sampled_softmax", "num_negatives": 5}),
        ("hstu", {"dropout": 0, "precision": "float32"}),
        ("two_tower", {"dropout": 0}),
        ("matrix_factorization", {"objective": "mse"}),
        ("matrix_factorization", {"objective": "bce"}),
        ("concat_mlp", {"dropout": 0}),
        ("neural_cf", {"dropout": 0}),
    ],
)
def test_gradients_of_shares_add_up_to_that_of_the_batch(name: str, settings: dict[str, Any]) -> None:
    kind = plugins.load("models", name)
    settings = {key: value for key, value in settings.items() if key in kind.Config.model_fields}
    train = walks()
    model = kind(kind.Config(**settings), train.num_users, train.num_items, 3)
    model.prepare(train)
    batch = next(iter(model.batches(torch.Generator().manual_seed(1))))

    def gradient(*weighted: tuple[dict[str, torch.Tensor], float]) -> list[torch.Tensor]:
        model.module.zero_grad()
        for part, weight in weighted:
            if weight:
                (model.loss(part) * weight).backward()
        return [p.grad.clone() for p in model.module.parameters() if p.grad is not None]

    for num_parts in (2, 3, 50):
        parts = [model.share(batch, part, num_parts) for part in range(num_parts)]
        assert sum(weight for _, weight in parts) == pytest.approx(1)
        torch.testing.assert_close(gradient(*parts), gradient((batch, 1.0)), rtol=1e-4, atol=1e-6)


def test_what_cannot_be_divided_is_fitted_here(capsys: pytest.CaptureFixture[str]) -> None:
    train, models = walks(), []
    for options in ({}, {"workers": 2}):
        kind = plugins.load("models", "light_gcn")
        model = kind(kind.Config(epochs=1, embedding_dim=4), train.num_users, train.num_items, 3)
        fit_by_workers(model, train, None, progress=bool(options), **options)
        models.append(model.state())
    assert "LightGcn cannot be divided among workers; trained by one" in capsys.readouterr().err
    assert all((models[0][name] == models[1][name]).all() for name in models[0])


def test_ray_is_asked_for_by_its_extra(monkeypatch: pytest.MonkeyPatch, mortal: Any) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CallError, match=r"train.launcher: ray needs the extra `scale`.*pip install 'recops\[scale\]'"):
        fit(mortal, 2, launcher="ray")


def test_more_workers_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch, mortal: Any) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(CallError, match=r"train.workers: 2 on a machine with 1 GPU; set at most 1"):
        fit(mortal, 2, device="auto")


def test_goes_on_without_a_compiler_that_fails_in_the_midst(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mortal: Any
) -> None:
    def failing(loss: Any, **options: Any) -> Any:
        num_calls = 0

        def call(batch: Any) -> Any:
            nonlocal num_calls
            num_calls += 1
            if num_calls < 3:
                return loss(batch)
            torch.rand(3)
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand more")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    plain, compiled = fit(mortal, 1), fit(mortal, 1, compiled=True)
    said = "train.compile: on without torch.compile, which failed: InvalidCxxCompiler: No working C++ compiler found"
    assert capsys.readouterr().err.splitlines() == [said]
    assert same(plain[0], compiled[0])


def fit(
    mortal: Any, workers: int, seed: int = 3, settings: dict[str, Any] | None = None, **options: Any
) -> tuple[dict[str, np.ndarray], FitReport]:
    """State and report after some epochs with dropout and shuffling; there are rows for both in most batches."""
    train = walks(num_users=160)
    config = {"embedding_dim": 8, "num_blocks": 1, "max_history": 8, "patience": 9, "epochs": 4, "warmup_steps": 2}
    model = mortal.Mortal(mortal.Mortal.Config(**config | (settings or {})), train.num_users, train.num_items, seed)
    options = {"device": "cpu", **options}
    report = fit_by_workers(model, train, mortal.size_of_items, workers=workers, seed=seed, **options)
    return model.state(), report


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Its children but for the one that multiprocessing keeps for as long as it lives itself."""
    return [child for child in process.children() if not any("resource_tracker" in part for part in child.cmdline())]


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    """Whether two states are the same bytes."""
    return {n: v.tobytes() for n, v in left.items()} == {n: v.tobytes() for n, v in right.items()}


@pytest.mark.process
def test_two_workers_do_what_one_does_and_a_death_changes_nothing(
    tmp_path: Path, mortal: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    exact = {"dropout": 0, "precision": "float32"}
    alone, told_alone = fit(mortal, 1, settings=exact)
    two, told_two = fit(mortal, 2, settings=exact)
    for key in ("loss", "metric"):
        values = [[row[key] for row in told.epochs] for told in (told_alone, told_two)]
        assert values[0] == pytest.approx(values[1], rel=1e-4)
    assert told_two.best_epoch == told_alone.best_epoch
    assert all(np.allclose(alone[name], two[name], atol=1e-5) for name in alone)

    capfd.readouterr()
    settings = {"mark": str(tmp_path / "died"), "dies_at": 200, **exact}
    killed, told = fit(mortal, 2, settings=settings, folder=tmp_path / "checkpoints")
    assert (tmp_path / "died").exists()
    assert told.resumed_from
    assert same(killed, two)
    assert capfd.readouterr().err.splitlines() == [
        "train.workers: a worker died; all 2 go on after the last epoch that was finished"
    ]
    assert [file.name for file in (tmp_path / "checkpoints").iterdir()] == ["checkpoint.safetensors"]
    assert not workers_of(psutil.Process())


@pytest.mark.process
def test_workers_that_die_too_often_are_told_of_and_gone_on_with(
    tmp_path: Path, mortal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "MAX_RESTARTS", 0)
    settings = {"mark": str(tmp_path / "died"), "dies_at": 200, "again": True}
    handler = signal.getsignal(signal.SIGTERM)
    # The other worker fails at its lost connection, and may be seen first.
    with pytest.raises(RefusedError, match=r"workers died 1 times, the last time worker \d: .*; the checkpoint"):
        fit(mortal, 2, settings=settings, folder=tmp_path)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert (tmp_path / "checkpoint.safetensors").exists()


START = """
import mortal, test_distributed
from pathlib import Path
if __name__ == "__main__":
    test_distributed.fit(mortal, 2, settings={"epochs": 100_000, "patience": 100_000}, folder=Path("c"), progress=True)
"""


@pytest.mark.process
def test_no_worker_outlives_who_started_it(tmp_path: Path, mortal: Any) -> None:
    (tmp_path / "start.py").write_text(START)
    command = [sys.executable, "start.py"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stderr is not None
        assert "epoch 1/" in parent.stderr.readline()
        workers = workers_of(psutil.Process(parent.pid))
        assert len(workers) == 2
        parent.kill()
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive


@pytest.mark.process
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed (extra: scale)")
@pytest.mark.filterwarnings("ignore")  # Ray warns of its own settings
def test_ray_does_the_same(tmp_path: Path, mortal: Any) -> None:
    exact = {"dropout": 0, "precision": "float32"}
    alone, _ = fit(mortal, 1, settings=exact)
    settings = {"mark": str(tmp_path / "died"), "dies_at": 200, **exact}
    two, told = fit(mortal, 2, settings=settings, launcher="ray", folder=tmp_path / "checkpoints")
    assert (tmp_path / "died").exists()
    assert told.resumed_from
    assert all(np.allclose(alone[name], two[name], atol=1e-5) for name in alone)
    until = time.monotonic() + 20
    while (left := workers_of(psutil.Process())) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left
