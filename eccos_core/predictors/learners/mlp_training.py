"""Train the networks of `trained` with torch: one per fold, all at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, IntArray
from eccos_core.io.optional import needs_extra
from eccos_core.predictors.learners.training_set import TrainingSet

with needs_extra("local", "fitting a network"):
    import torch
    from torch.nn import functional

LENGTH_WEIGHT = 0.3  # of the squared error of standardised log length, beside the cross entropy of quality
LABEL_WEIGHT = 0.1  # of the cross entropy of each label
LEAST_BATCHES = 4  # of an epoch
ROWS_AT_ONCE = 4096  # when held-out rows are scored
WEIGHTS = ("first", "bias", "quality", "models", "quality_bias", "length", "length_bias")


class MlpSettings(Protocol):
    """The settings of `MlpHeads` that training reads."""

    @property
    def hidden(self) -> int: ...  # noqa: D102

    @property
    def rank(self) -> int: ...  # noqa: D102

    @property
    def epochs(self) -> int: ...  # noqa: D102

    @property
    def batch(self) -> int: ...  # noqa: D102

    @property
    def learning_rate(self) -> float: ...  # noqa: D102

    @property
    def weight_decay(self) -> float: ...  # noqa: D102

    @property
    def input_dropout(self) -> float: ...  # noqa: D102

    @property
    def dropout(self) -> float: ...  # noqa: D102

    @property
    def patience(self) -> int: ...  # noqa: D102


def train_mlp(settings: MlpSettings, training: TrainingSet, features: Float32Array) -> dict[str, Float32Array]:
    """The weights of K networks (named as in `FittedMlpHeads`) after the epoch with the best held-out loss."""
    networks = _Networks(settings, training, features)
    rows = len(features)
    batches = min(rows, max(LEAST_BATCHES, round(rows / settings.batch)))
    optimizer = torch.optim.AdamW(networks.groups(settings.weight_decay), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * batches, pct_start=0.2
    )
    best, best_loss, waited = networks.snapshot(), float("inf"), 0
    for _ in range(settings.epochs):
        for chosen in torch.randperm(rows, generator=networks.generator).tensor_split(batches):
            loss = networks.training_loss(chosen)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        held_out = networks.held_out_loss()
        if held_out < best_loss:
            best, best_loss, waited = networks.snapshot(), held_out, 0
        else:
            waited += 1
            if waited >= settings.patience:
                break
    unit = np.float32(networks.spread)
    return best | {"length": best["length"] * unit, "length_bias": best["length_bias"] * unit}


class _Networks:
    """K networks of one hidden layer with a quality, a length and one label head each, as batched tensors."""

    def __init__(self, settings: MlpSettings, training: TrainingSet, features: Float32Array) -> None:
        self.settings = settings
        self.folds = training.folds
        self.generator = torch.Generator().manual_seed(training.seed)
        residual = training.log_tokens - training.targets.latent_targets.mean_log_tokens
        self.spread = max(float(np.nanstd(residual)), 1e-3) if np.isfinite(residual).any() else 1.0
        self.features = torch.from_numpy(features)
        self.known, self.quality = _masked(training.quality)
        self.counted, self.length = _masked(residual / self.spread)
        self.labels = {name: torch.from_numpy(group) for name, group in training.labels.items() if group.max() > 0}
        self.may_see = torch.arange(self.folds)[:, None] != torch.from_numpy(training.fold)[None, :]  # (K, N)
        mean = np.clip(training.targets.latent_targets.mean_quality, 0.01, 0.99)
        self.parameters = self._start(np.log(mean / (1 - mean)), training.labels)

    def groups(self, weight_decay: float) -> list[dict[str, object]]:
        """Parameters for the optimizer; biases do not decay."""
        named = self.parameters.items()
        return [
            {"params": [p for name, p in named if "bias" not in name], "weight_decay": weight_decay},
            {"params": [p for name, p in named if "bias" in name], "weight_decay": 0.0},
        ]

    def snapshot(self) -> dict[str, Float32Array]:
        """The weights that deciding needs, copied."""
        return {name: self.parameters[name].detach().numpy().astype(np.float32, copy=True) for name in WEIGHTS}

    def training_loss(self, chosen: torch.Tensor) -> torch.Tensor:
        """The sum over networks of the mean loss on those of the chosen rows (B,) that each may see."""
        seen = self.may_see[:, chosen].float()
        hidden = self._hidden(chosen, training=True)
        loss = self._loss(hidden, chosen)
        for name, group in self.labels.items():
            scores = hidden @ self.parameters[f"label {name}"] + self.parameters[f"label bias {name}"][:, None]
            wanted = group[chosen].expand(self.folds, -1).flatten()
            surprise = functional.cross_entropy(scores.flatten(0, 1), wanted, ignore_index=-1, reduction="none")
            loss = loss + LABEL_WEIGHT * surprise.view(self.folds, -1)
        mean: torch.Tensor = (loss * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1.0)
        return mean.sum()

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """The sum of the losses of each row under the network that may not see it."""
        total = 0.0
        for start in range(0, len(self.features), ROWS_AT_ONCE):
            chosen = torch.arange(start, min(start + ROWS_AT_ONCE, len(self.features)))
            loss = self._loss(self._hidden(chosen, training=False), chosen)
            total += float((loss * ~self.may_see[:, chosen]).sum())
        return total

    def _hidden(self, chosen: torch.Tensor, training: bool) -> torch.Tensor:
        """(K, B, H) the hidden layer."""
        rows = self.features[chosen].expand(self.folds, -1, -1)
        if training:
            rows = rows * self._dropout(rows.shape, self.settings.input_dropout)
        hidden = functional.silu(torch.baddbmm(self.parameters["bias"][:, None], rows, self.parameters["first"]))
        return hidden * self._dropout(hidden.shape, self.settings.dropout) if training else hidden

    def _loss(self, hidden: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """(K, B) of quality and length, over the models that were observed."""
        p, models = self.parameters, self.quality.shape[1]
        logits = hidden @ p["quality"] @ p["models"] + p["quality_bias"][:, None]
        wanted = self.quality[chosen].expand_as(logits)
        cross = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        off = hidden @ p["length"] + p["length_bias"][:, None] - self.length[chosen]
        both = cross * self.known[chosen] + LENGTH_WEIGHT * off.square() * self.counted[chosen]
        return both.sum(dim=-1) / models

    def _dropout(self, shape: torch.Size, rate: float) -> torch.Tensor:
        """A mask that keeps 1 - rate of the cells, scaled so that the mean stays."""
        return (torch.rand(shape, generator=self.generator) >= rate).float() / (1 - rate)

    def _start(self, log_odds: FloatArray, labels: Mapping[str, IntArray]) -> dict[str, torch.nn.Parameter]:
        """Every network at the models' means, with small random weights before."""
        folds, hidden, width = self.folds, self.settings.hidden, self.features.shape[1]
        models = len(log_odds)
        rank = min(self.settings.rank, models)
        start = {
            "first": self._small(0.5, folds, width, hidden),
            "bias": torch.zeros(folds, hidden),
            "quality": self._small(0.3, folds, hidden, rank),
            "models": self._small(1.0, folds, rank, models),
            "quality_bias": torch.from_numpy(log_odds.astype(np.float32)).repeat(folds, 1),
            "length": self._small(0.1, folds, hidden, models),
            "length_bias": torch.zeros(folds, models),
        }
        for name in self.labels:
            groups = int(labels[name].max()) + 1
            start[f"label {name}"] = self._small(0.1, folds, hidden, groups)
            start[f"label bias {name}"] = torch.zeros(folds, groups)
        return {name: torch.nn.Parameter(value) for name, value in start.items()}

    def _small(self, scale: float, *shape: int) -> torch.Tensor:
        values: torch.Tensor = torch.randn(shape, generator=self.generator)
        return values.mul_(scale / shape[-2] ** 0.5)


def _masked(values: FloatArray) -> tuple[torch.Tensor, torch.Tensor]:
    """(1 where known, the values with 0 where not), both (N, M) float32."""
    known = np.isfinite(values)
    return torch.from_numpy(known.astype(np.float32)), torch.from_numpy(np.where(known, values, 0.0).astype(np.float32))
