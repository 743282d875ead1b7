"""A checkpoint comes back as it was written, or not at all."""

from pathlib import Path

import torch

from recops.training.checkpoints import Checkpoint, read_checkpoint, write_checkpoint

CHECKPOINT = Checkpoint(
    {"weights.a": torch.tensor([1.5, -2.0]), "best.a": torch.tensor([0.5]), "optimizer.0.step": torch.tensor(3.0)},
    {"fingerprint": "x", "epochs": [{"epoch": 1.0, "loss": 0.1 + 0.2}]},
)


def test_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "new", CHECKPOINT)
    found = read_checkpoint(tmp_path / "new", "x")
    assert found is not None
    assert found.about == CHECKPOINT.about
    assert {name: value.tolist() for name, value in found.tensors.items()} == {
        name: value.tolist() for name, value in CHECKPOINT.tensors.items()
    }
    assert {name: value.tolist() for name, value in found.part("weights").items()} == {"a": [1.5, -2.0]}
    assert found.part("weight") == {}


def test_another_run_and_no_file_are_no_checkpoint(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path, "x") is None
    write_checkpoint(tmp_path, CHECKPOINT)
    assert read_checkpoint(tmp_path, "y") is None


def test_a_file_cut_short_is_no_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, CHECKPOINT)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert read_checkpoint(tmp_path, "x") is None


def test_a_write_that_was_cut_off_leaves_the_old_one(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, CHECKPOINT)
    (tmp_path / "checkpoint.safetensors.tmp").write_bytes(b"half")
    assert read_checkpoint(tmp_path, "x") is not None
    write_checkpoint(tmp_path, Checkpoint(CHECKPOINT.tensors, {"fingerprint": "z"}))
    assert read_checkpoint(tmp_path, "z") is not None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
