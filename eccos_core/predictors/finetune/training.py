"""Training of the fine-tuned encoder on torch. A killed run resumes from its last epoch, and ends the same.

`docs/design/predictor.md` says why this is not the `Trainer` of transformers.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.domain import IntArray, OutcomeTable
from eccos_core.errors import ArtifactError, InputError
from eccos_core.io.files import replace_atomically, temporary_sibling
from eccos_core.io.optional import needs_extra
from eccos_core.predictors.ensemble.standard_error import StandardErrorModel
from eccos_core.predictors.finetune.checkpoint import CHECKPOINT, ENCODER, repair_run_folder, write_json
from eccos_core.predictors.finetune.settings import FORMAT, VERSION, FineTuning, Progress, bucket_edges, bucket_tokens
from eccos_core.predictors.finetune.text_encoder import TextEncoder, resolve_device

with needs_extra("local", "fine-tuning"):
    import torch
    from safetensors.torch import load_file, save_file
    from torch.nn import functional


def train_encoder(table: OutcomeTable, encoder: Path, folder: Path, settings: FineTuning, progress: Progress) -> None:
    """Train, and leave `encoder/`, `heads.safetensors` and `manifest.json` in the folder.

    The best epoch by validation loss is kept. Raises as `fine_tune`.
    """
    repair_run_folder(folder)
    torch.manual_seed(settings.seed)
    run = TrainingRun(table, encoder, settings)
    epochs_done, best_loss, epochs_without_gain = run.resume(folder)
    steps_per_epoch = -(-len(run.train_rows) // settings.batch_size)
    total = settings.epochs * steps_per_epoch
    for epoch in range(epochs_done, settings.epochs):
        if epochs_without_gain > settings.patience:
            break
        torch.manual_seed(settings.seed + epoch)  # so that a resumed run draws the same dropout
        for number, rows in enumerate(run.batches(epoch), start=1):
            step = epoch * steps_per_epoch + number
            loss = run.step(rows, learning_rate_factor(step - 1, total, settings.warmup))
            progress(step, total, loss)
        validation_loss = run.validation_loss()
        if validation_loss < best_loss:
            best_loss, epochs_without_gain = validation_loss, 0
            run.save_result(folder)
        else:
            epochs_without_gain += 1
        run.save_checkpoint(folder, epoch + 1, best_loss, epochs_without_gain)
    if best_loss == float("inf"):
        raise InputError(
            f"fine-tuning never had a finite loss on {len(run.validation_rows)} validation questions; "
            "lower its learning rates"
        )
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Return the share of the learning rate at a step: a linear rise, then a linear fall."""
    warmup_steps = max(1, round(warmup * total))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return max(0.0, (total - step) / max(1, total - warmup_steps))


class TrainingRun:
    """One run: encoder, heads, optimizer and rows."""

    def __init__(self, table: OutcomeTable, encoder: Path, settings: FineTuning) -> None:
        self.settings, self.table = settings, table
        self.device = resolve_device(settings.device)
        try:
            self.encoder = TextEncoder(encoder, self.device, settings.max_tokens)
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{encoder}: no Hugging Face encoder with its tokenizer here ({error})") from error
        self.edges = bucket_edges(table.output_tokens, settings.buckets)
        self.tokens = bucket_tokens(table.output_tokens, self.edges)
        order = np.random.default_rng(settings.seed).permutation(len(table))
        validation_count = max(1, round(settings.validation_share * len(table)))
        self.validation_rows: IntArray = order[:validation_count]
        self.train_rows: IntArray = order[validation_count:]
        self.quality = torch.from_numpy(np.nan_to_num(table.quality).astype(np.float32)).to(self.device)
        self.known = torch.from_numpy(~np.isnan(table.quality)).float().to(self.device)
        counted = ~np.isnan(table.output_tokens)
        bucket = np.searchsorted(self.edges, np.log1p(np.where(counted, table.output_tokens, 0.0)))
        self.bucket = torch.from_numpy(np.where(counted, bucket, -1)).to(self.device)
        self.heads = torch.nn.ParameterDict(self._initial_heads()).to(self.device)
        self.optimizer = torch.optim.AdamW(
            [{"params": list(self.encoder.model.parameters())}, {"params": list(self.heads.values())}],
            weight_decay=settings.weight_decay,
        )

    def _initial_heads(self) -> dict[str, torch.nn.Parameter]:
        width, (models, buckets) = self.encoder.dimensions, self.tokens.shape
        rank = min(self.settings.rank, width)
        mean = np.nan_to_num(np.clip(np.nanmean(self.table.quality[self.train_rows], axis=0), 0.02, 0.98), nan=0.5)
        return {
            "quality": torch.nn.Parameter(torch.randn(width, rank)),
            "models": torch.nn.Parameter(torch.randn(rank, models) / rank**0.5),
            "quality_bias": torch.nn.Parameter(torch.from_numpy(np.log(mean / (1 - mean)).astype(np.float32))),
            "length": torch.nn.Parameter(torch.randn(width, models * buckets) * 0.1),
            "length_bias": torch.nn.Parameter(torch.zeros(models * buckets)),
        }

    def batches(self, epoch: int) -> Iterator[IntArray]:
        """Yield the training rows in batches, in an order that depends on the seed and the epoch only."""
        order = np.random.default_rng((self.settings.seed, epoch)).permutation(self.train_rows)
        for start in range(0, len(order), self.settings.batch_size):
            yield order[start : start + self.settings.batch_size]

    def step(self, rows: IntArray, factor: float) -> float:
        """Take one step of the optimizer at this share of the learning rates. Return the loss before it."""
        rates = (self.settings.learning_rate, self.settings.head_learning_rate)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = factor * rate
        self.encoder.model.train()
        loss = self.loss(rows)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([*self.encoder.model.parameters(), *self.heads.values()], 1.0)
        self.optimizer.step()
        return float(loss.detach())

    def loss(self, rows: IntArray) -> torch.Tensor:
        """Return the mean cross-entropy of quality, plus the weighted one of the length bucket."""
        vectors = self.encoder.forward([self.table.queries[row] for row in rows])
        at = torch.from_numpy(rows).to(self.device)
        logits = vectors @ self.heads["quality"] @ self.heads["models"] + self.heads["quality_bias"]
        cross_entropy = functional.binary_cross_entropy_with_logits(logits, self.quality[at], reduction="none")
        loss: torch.Tensor = (cross_entropy * self.known[at]).sum() / self.known[at].sum().clamp(min=1.0)
        if len(self.edges):
            scores = vectors @ self.heads["length"] + self.heads["length_bias"]
            target = self.bucket[at].flatten()
            length_loss = functional.cross_entropy(
                scores.view(len(target), -1), target, ignore_index=-1, reduction="sum"
            ) / (target >= 0).sum().clamp(min=1)
            loss = loss + self.settings.length_weight * length_loss
        return loss

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the mean loss on the validation rows."""
        self.encoder.model.eval()
        losses = [
            float(self.loss(rows)) * len(rows)
            for start in range(0, len(self.validation_rows), self.settings.batch_size)
            for rows in [self.validation_rows[start : start + self.settings.batch_size]]
        ]
        return sum(losses) / len(self.validation_rows)

    def save_result(self, folder: Path) -> None:
        """Write the encoder and the heads of this epoch as the result of the run."""
        validation = self.table.rows(self.validation_rows)
        vectors = self.encoder.encode(validation.queries)
        heads = {name: value.detach().cpu().float().contiguous() for name, value in self.heads.items()}
        logits = torch.from_numpy(vectors) @ heads["quality"] @ heads["models"] + heads["quality_bias"]
        errors = StandardErrorModel.fit(validation, torch.sigmoid(logits).numpy().astype(np.float64))
        arrays = {
            "tokens": self.tokens,
            "residual_variance": errors.residual_variance,
            "forecast_variance": errors.forecast_variance,
            "counts": errors.counts,
        }
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
        fresh = temporary_sibling(folder)
        try:
            (fresh / ENCODER).mkdir(parents=True)
            weights = self.encoder.save(fresh / ENCODER)
            save_file(heads | tensors, str(fresh / "heads.safetensors"))
            manifest = {
                "format": FORMAT,
                "version": VERSION,
                "models": list(self.table.models),
                "weights": weights,
                "settings": asdict(self.settings),
            }
            write_json(fresh / "manifest.json", manifest)
            folder.mkdir(parents=True, exist_ok=True)
            for part in (ENCODER, "heads.safetensors", "manifest.json"):
                replace_atomically(fresh / part, folder / part)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def fingerprint(self) -> str:
        """Return a digest of what a checkpoint must agree on: settings, models, questions and outcomes."""
        digest = hashlib.sha256(json.dumps(asdict(self.settings), sort_keys=True).encode())
        digest.update("\n".join((*self.table.models, *self.table.question_ids)).encode())
        digest.update(np.nan_to_num(self.table.quality, nan=-1.0).tobytes())
        return digest.hexdigest()

    def save_checkpoint(self, folder: Path, epochs: int, best_loss: float, epochs_without_gain: int) -> None:
        """Write everything that `resume` needs after this epoch."""
        state: dict[str, torch.Tensor] = {f"model.{n}": v for n, v in self.encoder.model.state_dict().items()}
        state |= {f"heads.{name}": value for name, value in self.heads.items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in values.items()}
        fresh = temporary_sibling(folder / CHECKPOINT)
        fresh.mkdir(parents=True)
        save_file(
            {name: v.detach().cpu().clone().contiguous() for name, v in state.items()}, str(fresh / "state.safetensors")
        )
        progress = {
            "epochs": epochs,
            "best_loss": best_loss,
            "epochs_without_gain": epochs_without_gain,
            "fingerprint": self.fingerprint(),
        }
        write_json(fresh / "progress.json", progress)
        replace_atomically(fresh, folder / CHECKPOINT)

    def resume(self, folder: Path) -> tuple[int, float, int]:
        """Load the checkpoint of a killed run, if there is one.

        Return epochs done, best validation loss, and epochs without gain since. Raises `ArtifactError` for a checkpoint
        that is damaged, or of other outcomes or settings.
        """
        path = folder / CHECKPOINT
        if not path.is_dir():
            return 0, float("inf"), 0
        try:
            progress = json.loads((path / "progress.json").read_text(encoding="utf-8"))
            state = load_file(str(path / "state.safetensors"))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path}: the checkpoint is damaged ({error}); remove it to start afresh") from error
        if progress["fingerprint"] != self.fingerprint():
            raise ArtifactError(
                f"{path}: a checkpoint of another run (other outcomes or settings); remove it, or use another folder"
            )
        self.encoder.model.load_state_dict(_with_prefix(state, "model."))
        self.heads.load_state_dict(_with_prefix(state, "heads."))
        optimizer: dict[int, dict[str, Any]] = {}
        for name, value in _with_prefix(state, "optimizer.").items():
            number, _, key = name.partition(".")
            optimizer.setdefault(int(number), {})[key] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": optimizer})
        return int(progress["epochs"]), float(progress["best_loss"]), int(progress["epochs_without_gain"])


def _with_prefix(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
