"""eSASRec (Tikhonovich et al.: "eSASRec: enhancing transformer-based recommendations in a modular fashion", 2025): the
next-item objective of SASRec with the gated blocks of LiGR (Borisyuk et al., 2025), here with rotary positions.

In: each user's items in order. Out: a vector for a history, scored against the vectors of the items. What differs from
`sasrec` is the block: see `_transformer.Block`.
"""

from recops.models._next_item import NextItemConfig, NextItemModel


class Ligr(NextItemModel):
    """A GradientRecommender (see protocols.py)."""

    gated = True

    class Config(NextItemConfig):
        pass
