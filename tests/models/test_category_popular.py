"""Popularity by category, worked by hand."""

from dataclasses import replace

import numpy as np

from recops.data.content import item_content
from recops.data.interactions import Catalogue
from recops.models.category_popular import CategoryPopular
from tests.models.small_logs import positives


def test_an_item_is_worth_the_mean_of_its_categories() -> None:
    """a and b are comedies, b is also a drama, c has no category; of the new items d is a drama, e both, f nothing."""
    rows = [("u", "a"), ("v", "a"), ("w", "a"), ("u", "b"), ("u", "c"), ("v", "c")]
    train = positives(rows)
    unknown = np.full(7, np.nan)
    offsets, category = np.array([0, 0, 1, 3, 3, 4, 6, 6]), np.array([0, 0, 1, 1, 0, 1], np.int32)
    train = replace(
        train,
        content=item_content(["d", "e", "f"], {"text": np.ones((3, 1))}, train.items),
        catalogue=Catalogue(unknown, unknown.astype(np.float32), offsets, category),
    )
    model = CategoryPopular(CategoryPopular.Config(), train.num_users, train.num_items, seed=1)
    model.fit(train)
    comedy, drama, none = (3 + 1) / 2, 1.0, 2.0
    both = (comedy + drama) / 2
    np.testing.assert_allclose(model.parts().item_scores, [0, comedy, both, none, drama, both, none])
