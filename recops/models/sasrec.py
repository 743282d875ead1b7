"""SASRec (Kang & McAuley: "Self-attentive sequential recommendation", 2018), trained with softmax over the catalogue at
every position (Klenitskiy & Vasilev, 2023) instead of one sampled negative, and with rotary positions.

In: each user's items in order. Out: a vector for a history, scored against the vectors of the items. All of it stands
in `_next_item.py` and `_transformer.py`, which `ligr` shares.
"""

from recops.models._next_item import NextItemConfig, NextItemModel


class Sasrec(NextItemModel):
    """A GradientRecommender (see protocols.py)."""

    class Config(NextItemConfig):
        pass
