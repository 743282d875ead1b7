"""Popularity by attributes, by hand."""

from dataclasses import replace

import numpy as np

from recops.data.content import item_content
from recops.histories import Histories
from recops.models.attribute_popular import AttributePopular
from recops.release.export import torch_scorer
from recops.training.loop import new_model
from tests.models.small_logs import positives


def test_by_hand() -> None:
    """Old users take a twice and b once, young ones b once: with 4 events more, half of them of either item."""
    train = positives([("old1", "a"), ("old2", "a"), ("old2", "b"), ("young", "b")])
    ids = [*train.users.ids, "new", "silent"]
    vectors = np.array([[1.0], [1.0], [-1.0], [1.0], [0.0]])
    train = replace(train, user_attributes=item_content(ids, {"attributes": vectors}, train.users))
    model = new_model(AttributePopular, AttributePopular.Config(strength=1.0, smoothing=1.0), train, seed=0)
    model.fit(train)  # type: ignore[attr-defined]
    rows = train.all_users.to_idx(["new", "young"]).astype(np.int64)
    scores = torch_scorer(model.parts()).scores(Histories([np.zeros(0, np.int64)] * 2, users=rows))
    np.testing.assert_allclose(np.exp(scores[:, 1:]), [[4 / 7, 3 / 7], [2 / 5, 3 / 5]], rtol=1e-5)


def test_whoever_nothing_is_known_of_gets_what_is_popular() -> None:
    train = positives([("u", "a"), ("v", "a"), ("v", "b")])
    model = new_model(AttributePopular, AttributePopular.Config(), train, seed=0)
    model.fit(train)  # type: ignore[attr-defined]
    scorer = torch_scorer(model.parts())
    asked = Histories([np.zeros(0, np.int64)] * 2, users=np.array([1, 0]))
    assert scorer.answers(asked).tolist() == [True, False]
    np.testing.assert_allclose(np.exp(scorer.scores(asked)[0, 1:]), [2 / 3, 1 / 3], rtol=1e-5)
