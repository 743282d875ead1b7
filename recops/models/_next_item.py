"""What the sequence models share: next-item prediction at every position of every history.

In: each user's items in order. Out: a vector for a history, scored against the vectors of the items, which are the
ones the network reads (tied). Knows nothing about users themselves, or how training is driven. Private to this
folder, so it is no model of the socket.

Shapes: B histories, L their length, D width, N items, M predicted positions, S sampled negatives, W windows.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from recops.data.content import ItemContent
from recops.data.interactions import Interactions
from recops.errors import RefusedError
from recops.models._content import ContentConfig, content_blocks
from recops.models._content_map import Weighed
from recops.models._losses import full_cross_entropy, sampled_cross_entropy
from recops.models._module import ModuleState
from recops.models._shares import shared_rows
from recops.models._transformer import Network
from recops.protocols import ServingParts

# Histories are batched with others of about the same length, so that little of a batch is padding.
_BUCKET = 8
# Small data sets are cut into smaller batches, so that an epoch has at least about this many steps: with fewer a dozen
# epochs end before the network has learned much.
_MIN_BATCHES = 64
# Negatives are drawn by frequency to this power: between uniform (0) and by popularity (1).
_NEGATIVE_POWER = 0.75
# Items up to which `loss: auto` looks at all of them: an epoch's cost grows with their number, and 3,416 items lose .03
# of NDCG@10 by a sample of 512.
_MOST_ITEMS_AT_ONCE = 50_000


class NextItemConfig(ContentConfig):
    """Hyper-parameters; `batch_size` counts events, padding included, and is the most a batch may hold."""

    embedding_dim: int = Field(64, ge=1)
    num_blocks: int = Field(2, ge=1)
    num_heads: int = Field(2, ge=1)
    max_history: int = Field(200, ge=1, description="events of a user that the network looks back on")
    learn_repeats: bool = Field(
        False, description="also predict the very item just had; true where recommend.remove_seen is false"
    )
    use_time: bool = Field(False, description="also look at when each event happened, and at the time of the request")
    positions: Literal["rotary", "learned"] = Field("rotary", description="learned: as the SASRec paper has it")
    dropout: float = Field(0.2, ge=0, le=0.95)
    loss: Literal["auto", "softmax", "sampled_softmax"] = Field(
        "auto", description="softmax: over all items; sampled_softmax: a sample of them; auto: all up to 50,000"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="softmax: share of a target given to all items alike")
    num_negatives: int = Field(1024, ge=1, description="sampled_softmax: items drawn for each batch")
    precision: Literal["bf16", "float32"] = Field("bf16", description="of products; weights are float32 either way")
    epochs: int = Field(12, ge=1)
    patience: int = Field(3, ge=1, description="epochs without a better validation metric before training stops")
    batch_size: int = Field(6400, ge=1)
    optimizer: Literal["muon", "adamw"] = Field(
        "adamw", description="muon: for the matrices between the embeddings; adamw: for everything"
    )
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(100, ge=0)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "NextItemConfig":
        if self.embedding_dim % self.num_heads:
            raise ValueError(f"embedding_dim {self.embedding_dim} is not a multiple of num_heads {self.num_heads}")
        if self.positions == "rotary" and self.embedding_dim // self.num_heads % 2:
            raise ValueError("rotary positions need an even embedding_dim / num_heads; take positions: learned")
        return self


class NextItemModel(ModuleState):
    """A GradientRecommender (see protocols.py); the models differ in the `kind` of their blocks and in the Config."""

    Config: ClassVar[type[NextItemConfig]] = NextItemConfig
    takes = "history"
    kind: ClassVar[Literal["plain", "gated", "hstu"]] = "plain"

    def __init__(self, config: NextItemConfig, num_users: int, num_items: int, seed: int) -> None:
        self.config, self.num_items, self._seed = config, num_items, seed
        self.module = Network(
            num_items,
            dim=config.embedding_dim,
            num_blocks=config.num_blocks,
            num_heads=config.num_heads,
            max_history=config.max_history,
            dropout=config.dropout,
            rotary=config.positions == "rotary",
            kind=self.kind,
            timed=config.use_time,
        )
        self.module.initialise(torch.Generator().manual_seed(seed))
        is_large = num_items > _MOST_ITEMS_AT_ONCE
        self._samples = config.loss == "sampled_softmax" or (config.loss == "auto" and is_large)
        self._dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32

    def attach_content(self, content: ItemContent | None) -> None:
        blocks = content_blocks(content, self.config.content)
        self.module.attach_content(blocks, self.config, self._seed)

    def prepare(self, train: Interactions) -> None:
        """Cuts each user's events, from the end, in windows of at most `max_history` predictions.

        Windows with nothing to predict are left out: those of users with a single event and, without `learn_repeats`,
        of one item over and over. Else a log in which a video is clicked, played and liked teaches mostly to predict
        what has just been seen, which is never recommended (KuaiRand, 3 epochs: NDCG@10 .019 with them, .026 without).
        """
        if self.config.use_time and train.timestamp is None:
            raise RefusedError("use_time: the log has no times; set it to false")
        is_target_E = np.ones(len(train), dtype=bool)
        if not self.config.learn_repeats:
            is_target_E[1:] = train.item_idx[1:] != train.item_idx[:-1]
        num_targets = np.diff(train.offsets) - 1
        num_windows = np.maximum(-(-num_targets // self.config.max_history), 0)
        user = np.repeat(np.arange(len(num_targets)), num_windows)
        back = np.arange(len(user)) - np.repeat(np.cumsum(num_windows) - num_windows, num_windows)
        end = train.offsets[user + 1] - back * self.config.max_history
        self._length_W = np.minimum(end - train.offsets[user] - 1, self.config.max_history)
        self._start_W = end - self._length_W - 1
        targets_before = np.concatenate([[0], np.cumsum(is_target_E)])
        has_target_W = targets_before[end] > targets_before[self._start_W + 1]
        self._length_W, self._start_W = self._length_W[has_target_W], self._start_W[has_target_W]
        self._events = torch.from_numpy(train.item_idx.astype(np.int64))
        self._targets = self._events * torch.from_numpy(is_target_E)
        self._times = None
        if self.config.use_time and train.timestamp is not None:
            self._times = torch.from_numpy(train.timestamp // 1_000_000)

        # Batches are cut from windows sorted by bucket; which window stands where is drawn anew each epoch.
        self._bucket_W = -(-self._length_W // _BUCKET)
        width = np.sort(self._bucket_W)[::-1] * _BUCKET
        batch_size = min(self.config.batch_size, int(width.sum()) // _MIN_BATCHES)
        self._cuts = [0]
        while self._cuts[-1] < len(width):
            fit = max(batch_size // int(width[self._cuts[-1]]), 1)
            self._cuts.append(min(self._cuts[-1] + fit, len(width)))
        count = np.bincount(train.item_idx, minlength=self.num_items + 1)[1:]
        share = np.maximum(count, 1) ** _NEGATIVE_POWER
        self._log_q_N = torch.from_numpy(np.log(share / share.sum()).astype(np.float32))

    def num_batches(self) -> int:
        return len(self._cuts) - 1

    def batches(self, generator: torch.Generator) -> Iterator[dict[str, torch.Tensor]]:
        """`item_idx`, `position`, `target` int64 [B, L], padded on the right (target 0); with `use_time` also `time`
        and `asked`, when each event and its target happened, in seconds; with a sampled loss also `negative` [S],
        rows of item_vectors less one, and the `log_q` [N] they were drawn from."""
        shuffled = torch.randperm(len(self._bucket_W), generator=generator).numpy()
        order = shuffled[np.argsort(-self._bucket_W[shuffled], kind="stable")]
        for batch in torch.randperm(self.num_batches(), generator=generator).tolist():
            window_B = order[self._cuts[batch] : self._cuts[batch + 1]]
            start_B1 = torch.from_numpy(self._start_W[window_B])[:, None]
            length_B1 = torch.from_numpy(self._length_W[window_B])[:, None]
            column_L = torch.arange(int(length_B1.max()))
            inside_BL = column_L < length_B1
            row_BL = torch.where(inside_BL, start_B1 + column_L, 0)
            found = {
                "item_idx": self._events[row_BL] * inside_BL,
                "position": (length_B1 - 1 - column_L).clamp(min=0),
                "target": self._targets[row_BL + 1] * inside_BL,
            }
            if self._times is not None:
                found |= {"time": self._times[row_BL], "asked": self._times[row_BL + 1]}
            if self._samples:
                share = self._log_q_N.exp()
                found["negative"] = torch.multinomial(share, self.config.num_negatives, True, generator=generator)
                found["log_q"] = self._log_q_N
            yield found

    def share(self, batch: dict[str, torch.Tensor], part: int, num_parts: int) -> tuple[dict[str, torch.Tensor], float]:
        """Windows in turn, which count by what is predicted in them; all workers compare with the same negatives."""
        found = shared_rows(batch, part, num_parts, whole=("negative", "log_q"))
        return found, int((found["target"] > 0).sum()) / max(int((batch["target"] > 0).sum()), 1)

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        target_BL = batch["target"]
        with torch.autocast(target_BL.device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            table_ND = self.module.table()
            hidden_BLD = self.module.every_position(
                batch["item_idx"], batch["position"], batch.get("time"), batch.get("asked"), table_ND
            )
            hidden_MD, target_M = hidden_BLD[target_BL > 0], target_BL[target_BL > 0] - 1
            vectors_ND = table_ND[1:]
            if self._samples:
                return sampled_cross_entropy(hidden_MD, vectors_ND, target_M, batch["negative"], batch["log_q"])
            return full_cross_entropy(
                hidden_MD, vectors_ND, target_M, self._dtype, smoothing=self.config.label_smoothing
            )

    def parts(self) -> ServingParts:
        network, projection = self.module.settled()
        vectors_ND = network.items.weight.detach().cpu().numpy().copy()
        vectors_ND[self.num_items + 1 :] *= self.config.new_item_weight
        return ServingParts(
            encoder=network,
            item_vectors=vectors_ND,
            projection=projection and Weighed(projection, self.config.new_item_weight),
            content=tuple(self.config.content),
            uses_time=self.config.use_time,
            max_history=self.config.max_history,
        )
