"""One value of params.yaml is changed, and nothing else of the file."""

from pathlib import Path

import pytest
import yaml

from recops.errors import CallError
from recops.stages.params_file import set_values

GROUP = ("train", "models", "ease")


def changed(folder: Path, text: str, **values: object) -> str:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    set_values(path, GROUP, values)
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "# top\ntrain:\n    model: ease   # why\n    models:\n        # tuned by hand\n        ease:\n"
            "            regularization: 1.0  # eh\n            link_decay: 2\n\n# next\ngate: {}\n",
            "# top\ntrain:\n    model: ease   # why\n    models:\n        # tuned by hand\n        ease:\n"
            "            regularization: 0.5  # eh\n            link_decay: 2\n            link_floor: 0.1\n\n# next\n"
            "gate: {}\n",
        ),
        (
            "train:\n  models: {}  # none yet\n",
            "train:\n  models: {ease: {regularization: 0.5, link_floor: 0.1}}  # none yet\n",
        ),
        (
            "train:\n  models:  # none yet\ngate: {}\n",
            "train:\n  models: {ease: {regularization: 0.5, link_floor: 0.1}}  # none yet\ngate: {}\n",
        ),
        (
            "train: {model: ease, models: {sasrec: {epochs: 2}}}\n",
            "train: {model: ease, models: {sasrec: {epochs: 2}, ease: {regularization: 0.5, link_floor: 0.1}}}\n",
        ),
        (
            "train:\n  baselines:\n  - a\n  - b  # last\n\ngate: {}",
            "train:\n  baselines:\n  - a\n  - b  # last\n  models: {ease: {regularization: 0.5, link_floor: 0.1}}\n\n"
            "gate: {}",
        ),
        ("gate: {}", "gate: {}\ntrain: {models: {ease: {regularization: 0.5, link_floor: 0.1}}}"),
        ("# nothing", "# nothing\ntrain: {models: {ease: {regularization: 0.5, link_floor: 0.1}}}\n"),
        ("", "train: {models: {ease: {regularization: 0.5, link_floor: 0.1}}}\n"),
    ],
)
def test_only_the_values_change(tmp_path: Path, before: str, after: str) -> None:
    assert changed(tmp_path, before, regularization=0.5, link_floor=0.1) == after


@pytest.mark.parametrize("value", [1e-5, None, True, "on", "a: b #c", [64, 32], 10**20])
def test_any_value_is_read_again(tmp_path: Path, value: object) -> None:
    text = changed(tmp_path, "train: {models: {ease: {x: 1}}}\n", x=value)
    assert yaml.safe_load(text) == {"train": {"models": {"ease": {"x": value}}}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: &a {x: 1}\ntrain: {models: {ease: *a}}\n", r"by hand: train\.models\.ease: \{x: 2\}"),
        ("train: {models: [ease]}\n", r"train\.models\.ease: expected settings at models, found \['ease'\]"),
    ],
)
def test_what_cannot_be_changed_alone_stays(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(CallError, match=told):
        changed(tmp_path, text, x=2)
    assert (tmp_path / "params.yaml").read_text() == text
