"""Kernel ridge regression from content to vectors, against the formula."""

from typing import Any

import numpy as np
import pytest
import torch

from recops.models import _content_map
from recops.models._content_map import ContentFit, ContentMapConfig


def config(**settings: Any) -> ContentMapConfig:
    return ContentMapConfig(**{"content_sharpness": 2.0, "content_ridge": 0.5, **settings})


def test_by_hand() -> None:
    """Two items at right angles to the mean's both sides: cosines 1 and -1."""
    fit = ContentFit([np.array([[1.0, 0.0], [3.0, 0.0]])], config(content_ridge=1.0), seed=0)
    found = fit(np.array([[2.0], [4.0]]))
    # Less their mean 3 the vectors are -1 and 1, so the weights are -w and w with (1 + 1 - exp(-4)) w = 1.
    w = 1 / (2 - np.exp(-4))
    asked = torch.tensor([[9.0, 0.0], [2.0, 5.0], [0.0, 0.0]])
    expected = [3 + w * (1 - np.exp(-4)), 3.0, 3.0]  # like the second; like neither; nothing said
    np.testing.assert_allclose(found(asked)[:, 0], expected, rtol=1e-4)


def test_an_encoder_that_says_nothing_leaves_it_to_the_others() -> None:
    generator = np.random.default_rng(0)
    text, image = generator.normal(size=(12, 4)), generator.normal(size=(12, 3))
    image[:6] = 0
    vectors = generator.normal(size=(12, 2))
    found = ContentFit([text, image], config(), seed=0)(vectors)

    def unit(block: np.ndarray) -> np.ndarray:
        known = block.any(1)
        centred = np.where(known[:, None], block - block[known].mean(0), 0)
        return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)

    kernel = np.mean([np.exp(2 * (unit(block) @ unit(block).T - 1)) for block in (text, image)], axis=0)
    smooth = kernel @ np.linalg.solve(kernel + 0.5 * np.eye(12), vectors - vectors.mean(0)) + vectors.mean(0)
    asked = torch.from_numpy(np.concatenate([text, image], axis=1)).float()
    np.testing.assert_allclose(found(asked), smooth, rtol=1e-3, atol=1e-4)


def test_of_many_items_some_are_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Content lies in a plane, so that few landmarks say what all would."""
    generator = np.random.default_rng(1)
    content = generator.normal(size=(300, 2)) @ generator.normal(size=(2, 6))
    vectors = np.tanh(content[:, :3])
    settings = config(content_sharpness=1.0, content_ridge=0.1)
    asked = torch.from_numpy(content[:20]).float()
    exact = ContentFit([content], settings, seed=0)(vectors)(asked)
    monkeypatch.setattr(_content_map, "_MAX_LANDMARKS", 60)
    found = ContentFit([content], settings, seed=0)(vectors)
    assert found.landmarks.shape == (60, 6)
    np.testing.assert_allclose(found(asked), exact, atol=0.02)


@pytest.mark.parametrize("num_items", [0, 1, 3])
def test_without_any_content_or_items(num_items: int) -> None:
    found = ContentFit([np.zeros((num_items, 2))], config(), seed=0)(np.ones((num_items, 3)))
    assert not found(torch.ones(4, 2)).any()


def test_items_of_the_same_content_share_a_vector() -> None:
    fit = ContentFit([np.array([[1.0, 0], [1.0, 0], [0, 1.0]])], config(content_ridge=1e-3), seed=0)
    found = fit(np.array([[1.0], [3.0], [0.0]]))(torch.tensor([[1.0, 0], [0, 1.0]]))
    np.testing.assert_allclose(found[:, 0], [2.0, 0.0], atol=0.01)
