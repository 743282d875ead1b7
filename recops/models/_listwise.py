"""Learns from lists with chosen items what to add to the scores that the lists had: a listwise softmax.

Cao, Qin, Liu, Tsai & Li: "Learning to rank: from pairwise approach to listwise approach" (ICML 2007), top-one form.
Where a list was shown, an additive term for each position is fitted together with the network and dropped afterwards:
whether an item was looked at is taken for a matter of its position alone (the examination hypothesis: Richardson,
Dominowska & Ragno: "Predicting clicks", WWW 2007; as additive term Guo et al.: "PAL", RecSys 2019).

Shapes: U lists, C items of a list, F features.
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

_HELD_OUT = 0.2  # of the lists, which say when to stop
_BATCH = 128  # lists
_CLIP = 5.0  # deviations
_TEMPERATURES = 2.0 ** np.arange(-2, 9)
_LEAST_GAIN = 1e-4  # of the loss, for an epoch to count as better
_PREDICTED_AT_ONCE = 512  # lists


@dataclass(frozen=True)
class Lists:
    """What users were, or would have been, shown, and what they chose of it."""

    features: np.ndarray  # float32 [U, C, F], NaN where unknown
    scores: np.ndarray  # float32 [U, C], of stage one
    fade: np.ndarray  # float32 [U, C], how far an adjustment counts
    is_there: np.ndarray  # bool [U, C]; the others are padding or could not be chosen
    is_chosen: np.ndarray  # bool [U, C]
    position: np.ndarray | None = None  # int64 [U, C], from 1 on, where lists were shown

    def __len__(self) -> int:
        return len(self.scores)

    def teaching(self) -> "Lists":
        """Those with something chosen and something not."""
        chosen = self.is_chosen & self.is_there
        return self.of(chosen.any(1) & (chosen.sum(1) < self.is_there.sum(1)))

    @classmethod
    def together(cls, parts: "list[Lists]") -> "Lists":
        """One after the other; at least one part."""
        joined: dict[str, list[Any]] = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
        whole: dict[str, Any] = {n: None if v[0] is None else np.concatenate(v) for n, v in joined.items()}
        return cls(**whole)

    def of(self, rows: np.ndarray) -> "Lists":
        """Some of the lists: bool or int [U']."""
        some: dict[str, Any] = {name: value if value is None else value[rows] for name, value in vars(self).items()}
        return replace(self, **some)


class Adjustment(torch.nn.Module):
    """(features [B, C, F], fade [B, C]) -> what to add to the scores [B, C]: a linear part and one hidden layer.

    0 before training, and on average over a list, so that candidates do not rise or fall together against all others.
    """

    def __init__(self, num_features: int, hidden_dim: int) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.scale: torch.Tensor
        self.temperature: torch.Tensor
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))
        self.register_buffer("temperature", torch.ones(1))
        self.hidden = torch.nn.Linear(num_features, hidden_dim)
        self.out = torch.nn.Linear(hidden_dim, 1, bias=False)
        self.linear = torch.nn.Linear(num_features, 1, bias=False)
        torch.nn.init.zeros_(self.out.weight)
        torch.nn.init.zeros_(self.linear.weight)

    def forward(self, features: torch.Tensor, fade: torch.Tensor) -> torch.Tensor:
        known = torch.where(torch.isnan(features), self.mean, features)
        standard = ((known - self.mean) * self.scale).clamp(-_CLIP, _CLIP)
        added = (self.out(torch.relu(self.hidden(standard))) + self.linear(standard)).squeeze(-1)
        mean = (fade * added).sum(1, keepdim=True) / fade.sum(1, keepdim=True).clamp(min=1e-6)
        return fade * (added - mean) / self.temperature


def learn(
    lists: Lists,
    *,
    hidden_dim: int,
    learning_rate: float,
    weight_decay: float,
    epochs: int,
    patience: int,
    corrects_position: bool,
    seed: int,
) -> Adjustment:
    """The adjustment under which what was chosen is likeliest. A fifth of the lists says after how many epochs to stop,
    then all of them are learnt from as long. Lists that teach nothing are left out; without any, nothing is added."""
    lists = lists.teaching()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = Adjustment(lists.features.shape[2], hidden_dim)
    if len(lists) < 2:
        return start.eval()
    _standardise(start, lists)
    start.temperature.fill_(_temperature(lists))
    is_held = torch.zeros(len(lists), dtype=torch.bool)
    is_held[torch.randperm(len(lists), generator=generator)[: max(1, int(len(lists) * _HELD_OUT))]] = True

    def run(taught: Lists, num_epochs: int, held: Lists | None) -> tuple[Adjustment, int]:
        module = copy.deepcopy(start)
        num_positions = int(lists.position.max()) + 1 if lists.position is not None and corrects_position else 1
        bias = torch.zeros(num_positions, requires_grad=True)
        weights = {"params": list(module.parameters()), "weight_decay": weight_decay}
        optimiser = torch.optim.AdamW([weights, {"params": [bias], "weight_decay": 0.0}], lr=learning_rate)
        best, best_epoch = (np.inf if held is None else _loss_of(module, bias, held)), 0
        for epoch in range(1, num_epochs + 1):
            module.train()
            for rows in torch.randperm(len(taught), generator=generator).split(_BATCH):
                optimiser.zero_grad()
                _loss(module, bias, taught.of(rows.numpy())).mean().backward()
                optimiser.step()
            if held is not None:
                loss = _loss_of(module, bias, held)
                if loss < best - _LEAST_GAIN:
                    best, best_epoch = loss, epoch
                elif epoch - best_epoch >= patience:
                    break
        return module, best_epoch

    _, best_epoch = run(lists.of(~is_held.numpy()), epochs, lists.of(is_held.numpy()))
    return run(lists, best_epoch, None)[0].eval()


def _standardise(module: Adjustment, lists: Lists) -> None:
    """Mean 0 and deviation 1 over what is there and known. A column that never differs teaches nothing, and counts
    for nothing later on, where it may differ: the time of a request to a model of a log without times."""
    values = np.where(lists.is_there[:, :, None], lists.features, np.nan).reshape(-1, lists.features.shape[2])
    known = ~np.isnan(values)
    count = np.maximum(known.sum(0), 1)
    mean = np.nansum(values, axis=0, dtype=np.float64) / count
    deviation = np.sqrt(np.nansum((values - mean) ** 2, axis=0) / count)
    module.mean.copy_(torch.from_numpy(mean))
    module.scale.copy_(torch.from_numpy(np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 0.0)))


def _temperature(lists: Lists) -> float:
    """What the scores of stage one are best multiplied with for a softmax."""

    def loss(factor: float) -> float:
        logits = np.where(lists.is_there, lists.scores.astype(np.float64) * factor, -np.inf)
        logits -= logits.max(1, keepdims=True)
        likelihood = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -np.where(lists.is_chosen & lists.is_there, likelihood, 0).sum()

    return float(min(_TEMPERATURES, key=loss))


def _loss(module: Adjustment, bias: torch.Tensor, lists: Lists) -> torch.Tensor:
    """Mean over what was chosen of minus its log likelihood, for each list [U]."""
    there, chosen = torch.from_numpy(lists.is_there), torch.from_numpy(lists.is_chosen & lists.is_there)
    logits = torch.from_numpy(lists.scores) + module(torch.from_numpy(lists.features), torch.from_numpy(lists.fade))
    logits = logits * module.temperature
    if lists.position is not None and len(bias) > 1:
        logits = logits + bias[torch.from_numpy(lists.position)]
    likelihood = torch.log_softmax(logits.masked_fill(~there, -torch.inf), dim=1)
    return -likelihood.masked_fill(~chosen, 0).sum(1) / chosen.sum(1)


def _loss_of(module: Adjustment, bias: torch.Tensor, lists: Lists) -> float:
    module.eval()
    starts = range(0, len(lists), _PREDICTED_AT_ONCE)
    with torch.no_grad():
        parts = [_loss(module, bias, lists.of(np.arange(s, min(s + _PREDICTED_AT_ONCE, len(lists))))) for s in starts]
    return float(torch.cat(parts).mean())
