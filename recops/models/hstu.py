"""HSTU (Zhai et al.: "Actions speak louder than words: trillion-parameter sequential transducers for generative
recommendations", 2024): next-item prediction with attention that is not normalised, gated, and biased by time.

In: each user's items in order and their times. Out: a vector for a history and the time of the request, scored against
the vectors of the items. As in the paper's code the bias looks at the time from each event to the request, which in
training is the time of the item to be named; with `use_time: false` it is blind to all times. Positions are rotary
here. What differs from `sasrec` is the block: see `_transformer.HstuBlock`.
"""

from typing import Literal

from pydantic import Field

from recops.models._next_item import NextItemConfig, NextItemModel


class Hstu(NextItemModel):
    """A GradientRecommender (see protocols.py). A log without times is refused, unless `use_time` is off."""

    kind = "hstu"

    class Config(NextItemConfig):
        use_time: bool = Field(
            True, description="also look at when each event happened, and at the time of the request"
        )
        optimizer: Literal["muon", "adamw"] = Field(
            "muon", description="muon: for the matrices between the embeddings; adamw: for everything"
        )
