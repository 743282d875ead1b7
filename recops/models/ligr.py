"""eSASRec (Tikhonovich et al.: "eSASRec: enhancing transformer-based recommendations in a modular fashion", 2025): the
next-item objective of SASRec with the gated blocks of LiGR (Borisyuk et al., 2025), here with rotary positions.

In: each user's items in order. Out: a vector for a history, scored against the vectors of the items. What differs from
`sasrec` is the block: see `_transformer.Block`.
"""

from typing import Literal

from pydantic import Field

from recops.models._next_item import NextItemConfig, NextItemModel


class Ligr(NextItemModel):
    """A GradientRecommender (see protocols.py)."""

    kind = "gated"

    class Config(NextItemConfig):
        embedding_dim: int = Field(128, ge=1)
        dropout: float = Field(0.3, ge=0, le=0.95)
        label_smoothing: float = Field(0.1, ge=0, lt=1, description="softmax: share of a target given to all items")
        optimizer: Literal["muon", "adamw"] = Field(
            "muon", description="muon: for the matrices between the embeddings; adamw: for everything"
        )
        learning_rate: float = Field(3e-3, gt=0)
        weight_decay: float = Field(0.01, ge=0)
