"""Train the networks of `MlpHeads` with torch, one per fold, all at once."""

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

LENGTH_WEIGHT = 0.3  # of the squared error of the standardised log length, against 1 for the cross entropy of quality
LABEL_WEIGHT = 0.1  # of the cross entropy of each label
MIN_BATCHES = 4  # of an epoch
HELD_OUT_ROWS = 4096  # of one block, when the held-out loss is computed
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
    """Return the weights of K networks, named as in `FittedMlpHeads`, of the epoch with the least held-out loss."""
    networks = _Networks(settings, training, features)
    rows = len(features)
    batches = min(rows, max(MIN_BATCHES, round(rows / settings.batch)))
    optimizer = torch.optim.AdamW(networks.groups(settings.weight_decay), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * batches, pct_start=0.2
    )
    best, best_loss, epochs_without_gain = networks.snapshot(), float("inf"), 0
    for _ in range(settings.epochs):
        for chosen in torch.randperm(rows, generator=networks.generator).tensor_split(batches):
            loss = networks.training_loss(chosen)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        held_out = networks.held_out_loss()
        if held_out < best_loss:
            best, best_loss, epochs_without_gain = networks.snapshot(), held_out, 0
        else:
            epochs_without_gain += 1
            if epochs_without_gain >= settings.patience:
                break
    deviation = np.float32(networks.length_deviation)
    return best | {"length": best["length"] * deviation, "length_bias": best["length_bias"] * deviation}


class _Networks:
    """K networks as batched tensors. Each has one hidden layer, a quality head, a length head and a head per label."""

    def __init__(self, settings: MlpSettings, training: TrainingSet, features: Float32Array) -> None:
        self.settings = settings
        self.folds = training.folds
        self.generator = torch.Generator().manual_seed(training.seed)
        residual = training.log_tokens - training.targets.latent_targets.mean_log_tokens
        self.length_deviation = max(float(np.nanstd(residual)), 1e-3) if np.isfinite(residual).any() else 1.0
        self.features = torch.from_numpy(features)
        self.known, self.quality = _masked(training.quality)
        self.counted, self.length = _masked(residual / self.length_deviation)
        self.labels = {name: torch.from_numpy(group) for name, group in training.labels.items() if group.max() > 0}
        self.trains_on = torch.arange(self.folds)[:, None] != torch.from_numpy(training.fold)[None, :]  # (K, N)
        mean = np.clip(training.targets.latent_targets.mean_quality, 0.01, 0.99)
        self.parameters = self._initialize(np.log(mean / (1 - mean)), training.labels)

    def groups(self, weight_decay: float) -> list[dict[str, object]]:
        """Return the parameter groups of the optimizer. Biases have no weight decay."""
        named = self.parameters.items()
        return [
            {"params": [p for name, p in named if "bias" not in name], "weight_decay": weight_decay},
            {"params": [p for name, p in named if "bias" in name], "weight_decay": 0.0},
        ]

    def snapshot(self) -> dict[str, Float32Array]:
        """Return a copy of the weights that prediction needs."""
        return {name: self.parameters[name].detach().numpy().astype(np.float32, copy=True) for name in WEIGHTS}

    def training_loss(self, chosen: torch.Tensor) -> torch.Tensor:
        """Sum the networks' mean losses on the chosen rows (B,). A network skips the rows of its own fold."""
        seen = self.trains_on[:, chosen].float()
        hidden = self._hidden(chosen, training=True)
        loss = self._loss(hidden, chosen)
        for name, group in self.labels.items():
            scores = hidden @ self.parameters[f"label {name}"] + self.parameters[f"label bias {name}"][:, None]
            labels = group[chosen].expand(self.folds, -1).flatten()
            cross = functional.cross_entropy(scores.flatten(0, 1), labels, ignore_index=-1, reduction="none")
            loss = loss + LABEL_WEIGHT * cross.view(self.folds, -1)
        mean: torch.Tensor = (loss * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1.0)
        return mean.sum()

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Sum the loss of every row under the network that does not train on it."""
        total = 0.0
        for start in range(0, len(self.features), HELD_OUT_ROWS):
            chosen = torch.arange(start, min(start + HELD_OUT_ROWS, len(self.features)))
            loss = self._loss(self._hidden(chosen, training=False), chosen)
            total += float((loss * ~self.trains_on[:, chosen]).sum())
        return total

    def _hidden(self, chosen: torch.Tensor, training: bool) -> torch.Tensor:
        """Compute the hidden layer, (K, B, H)."""
        rows = self.features[chosen].expand(self.folds, -1, -1)
        if training:
            rows = rows * self._dropout(rows.shape, self.settings.input_dropout)
        hidden = functional.silu(torch.baddbmm(self.parameters["bias"][:, None], rows, self.parameters["first"]))
        return hidden * self._dropout(hidden.shape, self.settings.dropout) if training else hidden

    def _loss(self, hidden: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Return the loss (K, B) of quality and length, over the models with outcomes."""
        p, models = self.parameters, self.quality.shape[1]
        logits = hidden @ p["quality"] @ p["models"] + p["quality_bias"][:, None]
        observed = self.quality[chosen].expand_as(logits)
        cross = functional.binary_cross_entropy_with_logits(logits, observed, reduction="none")
        length_error = hidden @ p["length"] + p["length_bias"][:, None] - self.length[chosen]
        loss = cross * self.known[chosen] + LENGTH_WEIGHT * length_error.square() * self.counted[chosen]
        return loss.sum(dim=-1) / models

    def _dropout(self, shape: torch.Size, rate: float) -> torch.Tensor:
        """Draw a dropout mask, scaled so that the mean stays the same."""
        return (torch.rand(shape, generator=self.generator) >= rate).float() / (1 - rate)

    def _initialize(self, log_odds: FloatArray, labels: Mapping[str, IntArray]) -> dict[str, torch.nn.Parameter]:
        """Start every network at the models' mean quality, with small random weights."""
        folds, hidden, width = self.folds, self.settings.hidden, self.features.shape[1]
        models = len(log_odds)
        rank = min(self.settings.rank, models)
        start = {
            "first": self._normal(0.5, folds, width, hidden),
            "bias": torch.zeros(folds, hidden),
            "quality": self._normal(0.3, folds, hidden, rank),
            "models": self._normal(1.0, folds, rank, models),
            "quality_bias": torch.from_numpy(log_odds.astype(np.float32)).repeat(folds, 1),
            "length": self._normal(0.1, folds, hidden, models),
            "length_bias": torch.zeros(folds, models),
        }
        for name in self.labels:
            groups = int(labels[name].max()) + 1
            start[f"label {name}"] = self._normal(0.1, folds, hidden, groups)
            start[f"label bias {name}"] = torch.zeros(folds, groups)
        return {name: torch.nn.Parameter(value) for name, value in start.items()}

    def _normal(self, scale: float, *shape: int) -> torch.Tensor:
        values: torch.Tensor = torch.randn(shape, generator=self.generator)
        return values.mul_(scale / shape[-2] ** 0.5)


def _masked(values: FloatArray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mask of known values and the values with 0 where unknown, both (N, M) float32."""
    known = np.isfinite(values)
    return torch.from_numpy(known.astype(np.float32)), torch.from_numpy(np.where(known, values, 0.0).astype(np.float32))
