"""ECCOS-T (a): a small network on frozen embeddings, with a quality head and a length head (ECCOS, section 4.2).

Quality is the product of a question's position and a low-rank embedding of each model; log length is regressed beside
it. Labels that the history happens to carry (`dataset`, `category`) are a third task while learning, and are never read
afterwards. One network per fold, all trained at once as one batched computation: a row's held-out opinion comes from
the network that never saw it, and new questions get the mean of all (bagging).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, IntArray
from eccos_core.predictors.space import Look
from eccos_core.predictors.study import Arrays, Study
from eccos_core.predictors.targets import Signals

if TYPE_CHECKING:
    import torch

LENGTH_WEIGHT = 0.3  # of the squared error of standardised log length, beside the cross entropy of quality
LABEL_WEIGHT = 0.1  # of the cross entropy of each label


@dataclass(frozen=True, slots=True)
class Heads:
    """The network and how it is trained. One opinion.

    `hidden`: width; `rank`: of the model embeddings; `epochs`: most passes, the best by held-out loss is kept.
    """

    hidden: int = 128
    rank: int = 12
    epochs: int = 20
    batch: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    input_dropout: float = 0.3
    dropout: float = 0.5
    patience: int = 4
    name: str = "trained"

    def learn(self, study: Study) -> tuple[FittedHeads, Float32Array]:
        """Trains one network per fold; held out by each row's own fold."""
        scale = np.maximum(study.whole.std(axis=0), 1e-4).astype(np.float32)
        weights = _train(self, study, study.whole / scale)
        fitted = FittedHeads(study.targets.signals, scale, **weights)
        signals = fitted.each(study.whole)
        return fitted, np.ascontiguousarray(signals[study.fold, np.arange(len(study))][:, None, :])


@dataclass(frozen=True, slots=True, eq=False)
class FittedHeads:
    """K networks. scale (D + 1,); first (K, D + 1, H), bias (K, H); quality (K, H, r) @ models (K, r, M) + ...

    quality_bias (K, M); length (K, H, M), length_bias (K, M): residual log tokens.
    """

    signals: Signals
    scale: Float32Array
    first: Float32Array
    bias: Float32Array
    quality: Float32Array
    models: Float32Array
    quality_bias: Float32Array
    length: Float32Array
    length_bias: Float32Array

    def each(self, whole: Float32Array) -> Float32Array:
        """(K, R, C) what every network says; nothing of tokens relative to the mean."""
        parts = []
        axes = self.signals.axes.T.astype(np.float32)
        mean = self.signals.mean_quality.astype(np.float32)
        scaled = whole / self.scale
        for k in range(len(self.first)):
            before = scaled @ self.first[k] + self.bias[k]
            hidden = before / (1 + np.exp(-before))
            logits = hidden @ self.quality[k] @ self.models[k] + self.quality_bias[k]
            quality = (1 / (1 + np.exp(-logits)) - mean) @ axes
            said = np.zeros((len(whole), self.signals.count), dtype=np.float32)
            said[:, : quality.shape[1]] = quality
            if self.signals.counted:
                said[:, quality.shape[1] : 2 * quality.shape[1]] = hidden @ self.length[k] + self.length_bias[k]
            parts.append(said)
        return np.stack(parts)

    def predict(self, look: Look) -> Float32Array:
        """(R, 1, C) the mean of the networks."""
        return np.asarray(self.each(look.whole).mean(axis=0)[:, None, :])

    def arrays(self) -> Arrays:
        """The weights of all networks."""
        return {name: getattr(self, name) for name in _WEIGHTS} | {"scale": self.scale}

    @classmethod
    def of(cls, arrays: Arrays, signals: Signals) -> FittedHeads:
        """What `arrays` described."""
        read = {name: np.asarray(arrays[name], dtype=np.float32) for name in (*_WEIGHTS, "scale")}
        return cls(signals, **read)


_WEIGHTS = ("first", "bias", "quality", "models", "quality_bias", "length", "length_bias")


def _train(settings: Heads, study: Study, features: Float32Array) -> dict[str, Float32Array]:
    """The weights of K networks (as `FittedHeads` names them) after the epoch with the best held-out loss."""
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(study.seed)
    rows, width = features.shape
    models, folds = study.quality.shape[1], study.folds
    labels = {name: group for name, group in study.labels.items() if group.max() > 0}
    start = _start(settings, study, width, labels, generator)
    parameters = {name: torch.nn.Parameter(value) for name, value in start.items()}
    decayed = [p for name, p in parameters.items() if "bias" not in name]
    rest = [p for name, p in parameters.items() if "bias" in name]
    batches = max(1, round(rows / settings.batch))
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=settings.learning_rate,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * batches, pct_start=0.2
    )
    x = torch.from_numpy(features)
    residual = study.log_tokens - study.targets.signals.mean_log_tokens
    spread = max(float(np.nanstd(residual)), 1e-3) if np.isfinite(residual).any() else 1.0
    known, quality = _masked(study.quality)
    counted, length = _masked(residual / spread)
    groups = {name: torch.from_numpy(group) for name, group in labels.items()}
    member = torch.arange(folds)[:, None] != torch.from_numpy(study.fold)[None, :]  # (K, N): may network k see row n
    if folds == 1:
        member[:] = True

    def hidden_of(block: torch.Tensor, training: bool) -> torch.Tensor:
        spread_out = block.expand(folds, *block.shape)
        if training:
            spread_out = spread_out * _dropout(spread_out.shape, settings.input_dropout, generator)
        before = torch.baddbmm(parameters["bias"][:, None], spread_out, parameters["first"])
        after = functional.silu(before)
        return after * _dropout(after.shape, settings.dropout, generator) if training else after

    def losses(chosen: torch.Tensor, training: bool) -> torch.Tensor:
        """(K, B) the loss of each network on each row."""
        hidden = hidden_of(x[chosen], training)
        logits = hidden @ parameters["quality"] @ parameters["models"] + parameters["quality_bias"][:, None]
        wanted = quality[chosen].expand_as(logits)
        cross = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        loss = (cross * known[chosen]).sum(-1) / models
        off = hidden @ parameters["length"] + parameters["length_bias"][:, None] - length[chosen]
        loss = loss + LENGTH_WEIGHT * (off.square() * counted[chosen]).sum(-1) / models
        if training:
            for name, group in groups.items():
                scores = hidden @ parameters[f"label {name}"] + parameters[f"label bias {name}"][:, None]
                wanted_group = group[chosen].expand(folds, -1)
                surprise = functional.cross_entropy(
                    scores.flatten(0, 1), wanted_group.flatten(), ignore_index=-1, reduction="none"
                )
                loss = loss + LABEL_WEIGHT * surprise.view(folds, -1)
        return loss

    best, best_loss, waited = start, np.inf, 0
    for _ in range(settings.epochs):
        for chosen in torch.randperm(rows, generator=generator).tensor_split(batches):
            seen = member[:, chosen]
            loss = (losses(chosen, training=True) * seen).sum() / seen.sum(dim=1).clamp(min=1).float().mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            held_out = sum(
                float(
                    (losses(chosen, training=False) * (member[:, chosen] if folds == 1 else ~member[:, chosen])).sum()
                )
                for chosen in torch.arange(rows).split(4096)
            )
        if held_out < best_loss:
            best_loss, waited = held_out, 0
            best = {name: value.detach().clone() for name, value in parameters.items()}
        else:
            waited += 1
            if waited >= settings.patience:
                break
    result = {name: best[name].detach().numpy().astype(np.float32) for name in _WEIGHTS}
    return result | {
        "length": result["length"] * np.float32(spread),
        "length_bias": result["length_bias"] * np.float32(spread),
    }


def _start(
    settings: Heads, study: Study, width: int, labels: Mapping[str, IntArray], generator: object
) -> dict[str, torch.Tensor]:
    """Where training starts: every network at the models' means, with small random weights before."""
    import torch

    folds, models, hidden = study.folds, study.quality.shape[1], settings.hidden
    rank = min(settings.rank, models)

    def small(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / shape[-2] ** 0.5  # type: ignore[call-overload,no-any-return]

    mean = np.clip(study.targets.signals.mean_quality, 0.01, 0.99)
    logit = torch.from_numpy(np.log(mean / (1 - mean)).astype(np.float32))
    start = {
        "first": small(folds, width, hidden) * 0.5,
        "bias": torch.zeros(folds, hidden),
        "quality": small(folds, hidden, rank) * 0.3,
        "models": small(folds, rank, models),
        "quality_bias": logit.expand(folds, -1).clone(),
        "length": small(folds, hidden, models) * 0.1,
        "length_bias": torch.zeros(folds, models),
    }
    for name, group in labels.items():
        start[f"label {name}"] = small(folds, hidden, int(group.max()) + 1) * 0.1
        start[f"label bias {name}"] = torch.zeros(folds, int(group.max()) + 1)
    return start


def _masked(values: FloatArray) -> tuple[torch.Tensor, torch.Tensor]:
    """(1 where known, the values with 0 where not), both (N, M) float32."""
    import torch

    known = np.isfinite(values)
    return torch.from_numpy(known.astype(np.float32)), torch.from_numpy(np.where(known, values, 0.0).astype(np.float32))


def _dropout(shape: tuple[int, ...], rate: float, generator: object) -> torch.Tensor:
    """A mask that keeps 1 - rate of the cells, scaled so that the mean stays."""
    import torch

    kept = torch.rand(*shape, generator=generator) >= rate  # type: ignore[call-overload]
    return kept.float() / (1 - rate)
