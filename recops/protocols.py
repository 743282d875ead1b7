"""What every file of each socket must do: the one interface page.

Shapes: B batch, L history length, D width, N items (rows of the vocabulary; row 0 is padding and counts in N+1),
U users (row 0 is nobody), E events, K list length. Heavy types are named only for the type checker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from pydantic import BaseModel

if TYPE_CHECKING:
    import duckdb
    import polars as pl
    import torch

    from recops.calibration import Fusion
    from recops.data.interactions import Interactions
    from recops.evaluation.judging import Judging
    from recops.evaluation.protocol import RankedUsers
    from recops.nearest import Nearness
    from recops.reranking import Reranker
    from recops.runtime import Scorer


class Source(Protocol):
    """`data/sources/*`: reads one kind of log as it lies on disk. Class name: the file's name in CamelCase.

    A source only reads and renames; types, ids, duplicates and rejects are judged in one place, `data/ingest.py`.
    """

    Options: ClassVar[type[BaseModel]]
    download: ClassVar[str]  # what to download and where to put it; "" when nothing is needed

    def __init__(self, options: BaseModel, path: Path | None) -> None: ...

    def relations(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """SQL per table (`events`, optionally `items`, `users`), over `con`.

        Each selects one row per raw row, with columns `_file` str, `_line` int64, `_raw` str and any of the columns
        of the table in `schema.py` as VARCHAR (or already typed); `_reject` (VARCHAR, optional) refuses a row with
        that reason; `_row` (BIGINT, optional, unique) is the row's place, without which one thread reads in order.
        Each is run once. Missing files raise CallError with `download`.
        """
        ...


class Splitter(Protocol):
    """`data/splitters/*`: divides positives in train, valid and test without letting anything see its future."""

    def split(self, events: pl.DataFrame, *, remove_seen: bool, params: Any) -> pl.Series:
        """`events`: user_id, item_id, timestamp, signal, in stable time order. Returns for each row one of `train`,
        `valid`, `test`, `unused` or `context` (Enum): what is neither learned from nor judged, but known of a user when
        a later target is judged. A row that is not a positive is never `valid`, `test` or `context`."""
        ...


@dataclass
class ServingParts:
    """What a fitted model gives to export, evaluation and serving: everything needed to score the catalogue.

    score of item i = user_vector . item_vectors[i]           (encoder or user_table, and item_vectors)
                    | ranker(user_vector, item_vectors)[i]    (the same and ranker)
                    + sum over history h of w(h) * links[h, i] (links)
                    + item_scores[i]                          (item_scores)
    where a part that is None adds nothing; or what `fusion` makes of the scores of `members`, which `reranker` adjusts
    for the best items, and then nothing else is given. Histories are the last `max_history` item rows, oldest first,
    padded on the left with 0. w(h) of the j-th event from the end (j = 0 is the last) is
    exp(-j / link_decay) + link_floor, or 1 where link_decay is None; only the last `link_window` events count.
    """

    # forward(item_idx int64 [B, L]) -> user_vector float32 [B, D]; with `uses_time` forward(item_idx, age_s), where
    # age_s int64 [B, L] counts the seconds from each event to the request, 0 for padding and where there are no times
    encoder: torch.nn.Module | None = None
    # float32 [U+1, D]: vectors of users, instead of an encoder, or beside one for users without any history (then of
    # all users of whom something is known, those trained on first); zeros where nothing is known
    user_table: np.ndarray | None = None
    item_vectors: np.ndarray | None = None  # float32 [N+1, D]; row 0 zeros
    ranker: torch.nn.Module | None = None  # forward(user_vector [B, D], item_vectors [M, D']) -> scores [B, M]
    # forward(content float32 [M, C]) -> item_vectors [M, D] of items that were never trained on; C holds the columns of
    # the encoders that `content` names, one after the other
    projection: torch.nn.Module | None = None
    nearness: Nearness | None = None  # of a model of links by content: how an item that comes later gets its own
    content: tuple[str, ...] = ()  # encoders that `projection` or `nearness` is given the vectors of
    links: tuple[np.ndarray, np.ndarray, np.ndarray] | None = (
        None  # CSR [N+1, N+1]: indptr i64, indices i32, weights f32
    )
    item_scores: np.ndarray | None = None  # float32 [N+1]
    members: Sequence[tuple[str, ServingParts]] = ()  # name and parts of each model that `fusion` weighs
    fusion: Fusion | None = None
    reranker: Reranker | None = None  # its `network` is a module here
    uses_time: bool = False
    max_history: int = 200
    link_decay: float | None = None
    link_floor: float = 0.0
    link_window: int | None = None
    needs_history: bool = True  # False: answers users without any history by itself (popularity)

    @property
    def num_items(self) -> int:
        """Rows that it can score, without padding: those trained on and, where it knows content, those after them. An
        ensemble has those of the member that has most."""
        if self.members:
            return max(part.num_items for _, part in self.members)
        arrays = (self.item_vectors, self.item_scores, None if self.links is None else self.links[0][1:])
        return next(len(array) for array in arrays if array is not None) - 1


class Recommender(Protocol):
    """`models/*`: one recommender a file, its paper named in the file's docstring; class name CamelCase of the file.

    A model is fitted in closed form (ClosedFormRecommender), by gradient steps (GradientRecommender), or from models
    that are already fitted (EnsembleRecommender). Fitting sees only `train`, an ensemble also the validation part, and
    is deterministic for the same data, config, seed and threads.
    """

    Config: ClassVar[type[BaseModel]]  # hyper-parameters: extra="forbid", each with a default
    # history: answers any history, whoever had it. user: answers the users it was trained on, from `user_table`; all
    # others get the fallback, in evaluation as when served.
    takes: ClassVar[Literal["history", "user"]]
    # rating: its scores are predicted values of the events, to be judged by RMSE. A model that does not say so ranks.
    task: ClassVar[Literal["ranking", "rating"]] = "ranking"

    # A model whose config names encoders in `content` has one method more, called once before anything is fitted or
    # loaded: attach_content(content: ItemContent | None) -> None; one with a true `user_attributes` has also
    # attach_users(attributes: ItemContent | None) -> None, of which `items` are the users

    @property
    def config(self) -> Any:
        """The Config it was made with."""
        ...

    def __init__(self, config: Any, num_users: int, num_items: int, seed: int) -> None: ...

    def parts(self) -> ServingParts: ...

    def state(self) -> dict[str, np.ndarray]:
        """Everything learned, by name; `load_state(state())` into a new object of the same config scores the same."""
        ...

    def load_state(self, state: Mapping[str, np.ndarray]) -> None: ...


class ClosedFormRecommender(Recommender, Protocol):
    """A model that fits itself in one call."""

    def fit(self, train: Interactions) -> None: ...


class GradientRecommender(Recommender, Protocol):
    """A model trained by `training/loop.py`: it says what a batch and a loss are, the loop does the rest.

    `state` is taken from `module` (all parameters and buffers as float32 arrays). `Config` has epochs, learning_rate,
    weight_decay, batch_size, patience (epochs without a better validation metric before the loop stops) and
    warmup_steps. A model that several workers may train together has one method more:

    share(batch, part, num_parts) -> (batch, weight): the part of a batch, from 0, that one of the workers makes the
    gradient of, and how much it counts. The sum over the parts of weight x loss is the loss of the whole batch. A part
    of weight 0 may be empty.
    """

    module: torch.nn.Module

    def prepare(self, train: Interactions) -> None:
        """Keeps what `batches` needs. Called once before the first epoch, also on resume."""
        ...

    def num_batches(self) -> int: ...

    def batches(self, generator: torch.Generator) -> Iterator[dict[str, torch.Tensor]]:
        """One epoch of batches in an order drawn from `generator` alone."""
        ...

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor: ...


class EnsembleRecommender(Recommender, Protocol):
    """A model made of fitted ones: `config.members` names them. Its state holds only what it adds to theirs."""

    def attach(self, members: Mapping[str, ServingParts], train: Interactions) -> None:
        """Gives it the fitted members, by name, and what they were fitted on. Called once, before `blend`, `load_state`
        or `parts`."""
        ...

    def blend(self, scorers: Mapping[str, Scorer], valid: Judging) -> FitReport:
        """Learns from the validation users how much each member, scored as it will be served, is worth."""
        ...


class Metric(Protocol):
    """`evaluation/metrics/*`: one family of figures a file; class name CamelCase of the file."""

    per_user: ClassVar[bool]  # True: `compute` gives one value a user, which is averaged, bootstrapped and compared
    uses_targets: ClassVar[bool]  # False: looks at lists and histories only, not at what the user went on to choose

    def compute(self, ranked: RankedUsers, k: int) -> np.ndarray:
        """float64 [U] when per_user, else shape []; NaN for a user where the metric is undefined (left out)."""
        ...


class Judge(Protocol):
    """Who is judged on a part of the split, and by what: what stages ask of `evaluation/judging.py` (rankings) and
    `evaluation/rating_judging.py` (ratings), so that no stage has to know which it is."""

    lower_is_better: ClassVar[bool]  # of what `mean` gives

    @property
    def remove_seen(self) -> bool: ...

    def __len__(self) -> int:
        """Users judged."""
        ...

    def mean(self, scorer: Scorer, metric: str) -> float:
        """One metric over all; NaN where nobody is judged. Raises CallError for a metric that it does not have."""
        ...

    def evaluate(self, scorer: Scorer) -> dict[str, Any]:
        """`metrics` {name: {value, low, high, users}}, `segments` {name: {users, metrics}} and `users` {judged,
        not_judged, targets, unknown_targets}: JSON values only."""
        ...

    def fingerprint(self) -> str:
        """Hex digest of who is judged on what: figures of two with the same one can be compared."""
        ...


@dataclass(frozen=True)
class DriftResult:
    """One drift test on one feature: `statistic` says how far, `p_value` how sure, `drifted` what follows."""

    feature: str
    test: str
    statistic: float
    p_value: float | None
    threshold: float
    drifted: bool
    note: str = ""


class DriftTest(Protocol):
    """`monitoring/drift_tests/*`: compares a current window with the reference profile of one feature."""

    kinds: ClassVar[tuple[str, ...]]  # of features it can judge: "numeric", "categorical", "share", "vectors", "mean"

    def compare(
        self, feature: str, reference: Mapping[str, Any], current: Mapping[str, Any], params: Any
    ) -> DriftResult: ...


class Rule(Protocol):
    """`serving/rules/*`: says what a list may hold, or moves what it holds; class name CamelCase of the file.

    A rule belongs to one step, and the steps follow one another in the order of STEPS; each step has its own protocol
    below. `where` says who may give it a value: a field of the request (`request`), of its `filters` (`filters`), the
    rules file (`file`), or nobody, and then it always holds. `Value` is the type of that value, a field of pydantic
    with a description; the same value means the same wherever it comes from. `occasion` is an `Occasion` of
    serving/occasion.py: the release, whose list it is, and when.

    A rule whose value names items by id has a method `named(value)` too, which gives these ids: of those that a
    release lacks the service's log speaks.

    N items and a row 0 that is none; C candidates, best first; K the length of the list.
    """

    step: ClassVar[str]
    where: ClassVar[tuple[str, ...]]
    Value: ClassVar[Any]


STEPS = ("filter", "adjust", "order", "place", "explore")


class Filter(Rule, Protocol):
    """Step `filter`: holds in every answer. `is_lasting`: the mask depends on value and release alone."""

    is_lasting: ClassVar[bool]

    def hidden(self, value: Any, occasion: Any) -> np.ndarray | None:
        """Items that may not be shown: bool [N+1], or int64 rows where they are few and named. Only a rule that always
        holds may give None: it hides nothing."""
        ...


class Adjustment(Rule, Protocol):
    """Step `adjust`: changes what the list is ordered by. The scores that are shown stay those of the model. Of this
    step and those after it a value that is 0 or empty asks for nothing."""

    def adjusted(self, value: Any, keys: np.ndarray, occasion: Any) -> np.ndarray:
        """New keys [N+1], -inf where they were."""
        ...


class Ordering(Rule, Protocol):
    """Step `order`: looks at what stands in the list already while it is filled."""

    def preference(self, value: Any, rows: np.ndarray, occasion: Any) -> Preference | None:
        """For one list; `rows` int64 [C] are its candidates. None where the rule has nothing to say."""
        ...


class Preference(Protocol):
    """What an Ordering says of one list. `closed`: bool [N+1] of items that may not be added any more, kept up to date
    by `take`; None where all may be. `weighs`: False where `weighed` changes nothing."""

    weighs: bool
    closed: np.ndarray | None

    def weighed(self, values: np.ndarray) -> np.ndarray:
        """How good each candidate is as the next one: float64 [C] made of the values of the rules before, which begin
        with the keys brought to 0..1."""
        ...

    def take(self, row: int) -> None:
        """The row is in the list from now on."""
        ...


class Placing(Rule, Protocol):
    """Step `place`: puts items at ranks, whatever the others say."""

    def places(self, value: Any, occasion: Any) -> dict[int, int]:
        """Rows by rank, each once; unknown items are left out."""
        ...


class Exploring(Rule, Protocol):
    """Step `explore`: chance, and how probable what it did was."""

    def num_candidates(self, value: Any) -> int:
        """How many of the best items may be drawn."""
        ...

    def explored(
        self, value: Any, utilities: np.ndarray, num_shown: int, chance: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """For a list of C candidates, best first, whose `utilities` float64 [C] fall: int64 [K] which of them stand at
        the first K = `num_shown` ranks, and float64 [K] the probability that each stands where it does."""
        ...


Item = Mapping[str, Any]  # columns of `schema.ITEMS` that are known; times are aware datetimes, attributes JSON text


class Encoder(Protocol):
    """`encoders/*`: item -> vector from text, a picture, sound or columns; class name CamelCase of the file.

    Free of torch: it is made from the folder that the stage `encode` wrote for it. What it learns, it learns from items
    of the train part (`fit`, a classmethod of those that do); all others have pre-trained networks, and beside their
    file an entry in `_PLANS` of `release/encoders.py`, which says where the weights come from.
    """

    Options: ClassVar[type[BaseModel]]  # `encode.NAME` in params.yaml: extra="forbid", each with a default
    version: ClassVar[str]  # raised when the same weights and options give other vectors than before
    chunk_size: ClassVar[int]  # items whose contents are held in memory at once
    sha256: str  # of everything that decides a vector
    dim: int

    def __init__(self, folder: Path, threads: int = 1, source: Path | None = None) -> None:
        """`source`: the folder that the files which items name lie in; without one only addresses can be read."""
        ...

    def content(self, item: Item) -> bytes | None:
        """What alone decides the item's vector; None where there is nothing to encode. Raises UnreadableError with a
        reason where it names something that cannot be read."""
        ...

    def encode_contents(self, contents: Sequence[bytes]) -> tuple[np.ndarray, list[str | None]]:
        """float32 [B, D] of contents (B > 0), the same whatever stands beside one, and for each None or the reason why
        it could not be decoded, its row then zeros."""
        ...

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        """float32 [B, D], zeros where an item has nothing to encode, or nothing that can be read. Rows of text,
        pictures and sounds have length 1."""
        ...


@dataclass
class FitReport:
    """How a fit went: one row per epoch (epoch, loss, the validation metric, seconds) and what was kept."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    best_metric: float | None = None
    resumed_from: int | None = None
    left_out: dict[str, str] = field(default_factory=dict)  # members of an ensemble that could not be fitted, and why
    figures: dict[str, float] = field(default_factory=dict)  # of the validation users, by name, beside `best_metric`
    note: str = ""  # what whoever reads the figures should know
