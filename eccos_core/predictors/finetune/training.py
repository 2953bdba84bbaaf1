"""Training of the fine-tuned encoder on torch and transformers, with checkpoints that survive a kill."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.domain import Float32Array, IntArray, OutcomeTable
from eccos_core.errors import ArtifactError, InputError
from eccos_core.io.files import replace_atomically, temporary_sibling
from eccos_core.io.optional import needs_extra
from eccos_core.predictors.ensemble.standard_error import StandardErrorModel
from eccos_core.predictors.finetune.checkpoint import CHECKPOINT, in_order, write_json
from eccos_core.predictors.finetune.settings import FORMAT, VERSION, FineTuning, Progress, bucket_edges, bucket_tokens

with needs_extra("local", "fine-tuning"):
    import torch
    from safetensors.torch import load_file, save_file
    from torch.nn import functional

ENCODE_BATCH_SIZE = 32


class TextEncoder:
    """A transformer, mean-pooled, with vectors of unit length."""

    def __init__(self, folder: Path, device: str, max_tokens: int) -> None:
        with needs_extra("local", "fine-tuning"):
            from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        self.model = AutoModel.from_pretrained(str(folder), local_files_only=True).to(device).float()
        self.device = device
        self.max_tokens = min(max_tokens, int(getattr(self.model.config, "max_position_embeddings", max_tokens)))
        self.name = ""
        self._tokenizing = threading.Lock()  # a fast tokenizer fails when two threads set its truncation at once

    @property
    def dimensions(self) -> int:
        """D."""
        return int(self.model.config.hidden_size)

    def forward(self, texts: Sequence[str]) -> torch.Tensor:
        """(B, D) unit vectors, with gradients."""
        with self._tokenizing:
            tokens = self.tokenizer(
                list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
            ).to(self.device)
        with torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.device.startswith("cuda")):
            states = self.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None].float()
        return functional.normalize((states.float() * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0), dim=1)

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """(len(texts), D) float32, unit length."""
        self.model.eval()
        result = np.empty((len(texts), self.dimensions), dtype=np.float32)
        with torch.no_grad():
            for start in range(0, len(texts), ENCODE_BATCH_SIZE):
                stop = start + ENCODE_BATCH_SIZE
                result[start:stop] = self.forward(texts[start:stop]).cpu().numpy()
        return result


def load_encoder(folder: Path, device: str) -> TextEncoder:
    """The encoder of a finished run. Raises `ArtifactError` when there is none."""
    try:
        told = json.loads((folder / "eccos.json").read_text(encoding="utf-8"))
        encoder = TextEncoder(folder, device_of(device), int(told["max_tokens"]))
        digest = _weights_of(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{folder}: no fine-tuned encoder here ({error})") from error
    encoder.name = f"finetuned:{digest}/{told['max_tokens']}"
    return encoder


def _weights_of(folder: Path) -> str:
    """12 hexadecimal digits of an encoder's weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]


def device_of(device: str) -> str:
    """`auto` is CUDA where there is one."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def train_encoder(table: OutcomeTable, encoder: Path, folder: Path, settings: FineTuning, progress: Progress) -> None:
    """Trains, and leaves `encoder/`, `heads.safetensors` and `manifest.json` in the folder."""
    in_order(folder)
    torch.manual_seed(settings.seed)
    run = _TrainingRun(table, encoder, settings)
    done, best, waited = run.resume(folder)
    steps_an_epoch = -(-len(run.learning) // settings.batch)
    total = settings.epochs * steps_an_epoch
    for epoch in range(done, settings.epochs):
        if waited > settings.patience:
            break
        for number, rows in enumerate(run.batches(epoch), start=1):
            step = epoch * steps_an_epoch + number
            loss = run.step(rows, _rate(step - 1, total, settings.warm_up))
            progress(step, total, loss)
        held_out = run.held_out_loss()
        better = held_out < best
        best, waited = (held_out, 0) if better else (best, waited + 1)
        if better:
            run.keep(folder)
        run.checkpoint(folder, epoch + 1, best, waited)
    if best == float("inf"):
        raise InputError(
            f"fine-tuning never had a finite loss on {len(run.held_out)} held-out questions; lower its rates"
        )
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)


def _rate(step: int, total: int, warm_up: float) -> float:
    """Share of the learning rate: up in a line, then down in a line."""
    ramp = max(1, round(warm_up * total))
    return (step + 1) / ramp if step < ramp else max(0.0, (total - step) / max(1, total - ramp))


class _TrainingRun:
    """One run: model, heads, optimizer and rows."""

    def __init__(self, table: OutcomeTable, encoder: Path, settings: FineTuning) -> None:
        self.settings, self.table = settings, table
        self.device = device_of(settings.device)
        try:
            self.text = TextEncoder(encoder, self.device, settings.max_tokens)
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{encoder}: no Hugging Face encoder with its tokenizer here ({error})") from error
        self.edges = bucket_edges(table.output_tokens, settings.buckets)
        self.tokens = bucket_tokens(table.output_tokens, self.edges)
        order = np.random.default_rng(settings.seed).permutation(len(table))
        kept = max(1, round(settings.held_out * len(table)))
        self.held_out: IntArray = order[:kept]
        self.learning: IntArray = order[kept:]
        self.quality = torch.from_numpy(np.nan_to_num(table.quality).astype(np.float32)).to(self.device)
        self.known = torch.from_numpy(~np.isnan(table.quality)).float().to(self.device)
        counted = ~np.isnan(table.output_tokens)
        bucket = np.searchsorted(self.edges, np.log1p(np.where(counted, table.output_tokens, 0.0)))
        self.bucket = torch.from_numpy(np.where(counted, bucket, -1)).to(self.device)
        self.heads = torch.nn.ParameterDict(self._start()).to(self.device)
        self._rates = (settings.learning_rate, settings.head_learning_rate)
        self.optimizer = torch.optim.AdamW(
            [{"params": list(self.text.model.parameters())}, {"params": list(self.heads.values())}],
            weight_decay=settings.weight_decay,
        )

    def _start(self) -> dict[str, torch.nn.Parameter]:
        width, (models, buckets) = self.text.dimensions, self.tokens.shape
        rank = min(self.settings.rank, width)
        mean = np.clip(np.nanmean(self.table.quality[self.learning], axis=0), 0.02, 0.98)
        odds = np.log(np.nan_to_num(mean, nan=0.5) / (1 - np.nan_to_num(mean, nan=0.5)))
        return {
            "quality": torch.nn.Parameter(torch.randn(width, rank)),
            "models": torch.nn.Parameter(torch.randn(rank, models) / rank**0.5),
            "quality_bias": torch.nn.Parameter(torch.from_numpy(odds.astype(np.float32))),
            "length": torch.nn.Parameter(torch.randn(width, models * buckets) * 0.1),
            "length_bias": torch.nn.Parameter(torch.zeros(models * buckets)),
        }

    def batches(self, epoch: int) -> Iterator[IntArray]:
        """The learning rows in an order of the epoch's own."""
        order = np.random.default_rng((self.settings.seed, epoch)).permutation(self.learning)
        for start in range(0, len(order), self.settings.batch):
            yield order[start : start + self.settings.batch]

    def step(self, rows: IntArray, rate: float) -> float:
        """One step of the optimizer at this share of the learning rates; the loss before it."""
        for group, full in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * full
        self.text.model.train()
        loss = self._loss(rows)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([*self.text.model.parameters(), *self.heads.values()], 1.0)
        self.optimizer.step()
        return float(loss.detach())

    def _loss(self, rows: IntArray) -> torch.Tensor:
        vectors = self.text.forward([self.table.queries[row] for row in rows])
        at = torch.from_numpy(rows).to(self.device)
        logits = vectors @ self.heads["quality"] @ self.heads["models"] + self.heads["quality_bias"]
        cross = functional.binary_cross_entropy_with_logits(logits, self.quality[at], reduction="none")
        loss: torch.Tensor = (cross * self.known[at]).sum() / self.known[at].sum().clamp(min=1.0)
        if len(self.edges):
            scores = vectors @ self.heads["length"] + self.heads["length_bias"]
            wanted = self.bucket[at].flatten()
            surprise = functional.cross_entropy(
                scores.view(len(wanted), -1), wanted, ignore_index=-1, reduction="sum"
            ) / (wanted >= 0).sum().clamp(min=1)
            loss = loss + self.settings.length_weight * surprise
        return loss

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean loss on the rows that are not learnt from."""
        self.text.model.eval()
        losses = [
            float(self._loss(rows)) * len(rows)
            for start in range(0, len(self.held_out), self.settings.batch)
            for rows in [self.held_out[start : start + self.settings.batch]]
        ]
        return sum(losses) / len(self.held_out)

    def keep(self, folder: Path) -> None:
        """Writes the run's result so far: the best epoch's encoder and heads."""
        held_out = self.table.rows(self.held_out)
        vectors = self.text.encode(held_out.queries)
        heads = {name: value.detach().cpu().float().contiguous() for name, value in self.heads.items()}
        logits = torch.from_numpy(vectors) @ heads["quality"] @ heads["models"] + heads["quality_bias"]
        standard_errors = StandardErrorModel.fit(held_out, torch.sigmoid(logits).numpy().astype(np.float64))
        extra = {
            "tokens": self.tokens,
            "residual_variance": standard_errors.residual_variance,
            "forecast_variance": standard_errors.forecast_variance,
            "counts": standard_errors.counts,
        }
        fresh = temporary_sibling(folder)
        try:
            (fresh / "encoder").mkdir(parents=True)
            self.text.model.save_pretrained(str(fresh / "encoder"), safe_serialization=True)
            self.text.tokenizer.save_pretrained(str(fresh / "encoder"))
            write_json(fresh / "encoder" / "eccos.json", {"max_tokens": self.text.max_tokens})
            tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in extra.items()}
            save_file(heads | tensors, str(fresh / "heads.safetensors"))
            manifest = {
                "format": FORMAT,
                "version": VERSION,
                "models": list(self.table.models),
                "weights": _weights_of(fresh / "encoder"),
                "settings": asdict(self.settings),
            }
            write_json(fresh / "manifest.json", manifest)
            folder.mkdir(parents=True, exist_ok=True)
            for part in ("encoder", "heads.safetensors", "manifest.json"):
                replace_atomically(fresh / part, folder / part)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def fingerprint(self) -> str:
        """Of what a checkpoint must agree on: rows, outcomes and settings."""
        digest = hashlib.sha256(json.dumps(asdict(self.settings), sort_keys=True).encode())
        digest.update("\n".join((*self.table.models, *self.table.question_ids)).encode())
        digest.update(np.nan_to_num(self.table.quality, nan=-1.0).tobytes())
        return digest.hexdigest()

    def checkpoint(self, folder: Path, epochs: int, best: float, waited: int) -> None:
        """Writes everything needed to go on after this epoch."""
        fresh = temporary_sibling(folder / CHECKPOINT)
        fresh.mkdir(parents=True)
        state: dict[str, torch.Tensor] = {f"model.{n}": v for n, v in self.text.model.state_dict().items()}
        state |= {f"heads.{name}": value.detach() for name, value in self.heads.items()}
        for number, slots in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in slots.items()}
        save_file(
            {name: v.detach().cpu().clone().contiguous() for name, v in state.items()}, str(fresh / "state.safetensors")
        )
        told = {"epochs": epochs, "best": best, "waited": waited, "fingerprint": self.fingerprint()}
        write_json(fresh / "progress.json", told)
        replace_atomically(fresh, folder / CHECKPOINT)

    def resume(self, folder: Path) -> tuple[int, float, int]:
        """(whole epochs done, best held-out loss, epochs since) of a checkpoint that fits; else a fresh start."""
        path = folder / CHECKPOINT
        if not path.is_dir():
            return 0, float("inf"), 0
        try:
            told = json.loads((path / "progress.json").read_text(encoding="utf-8"))
            state = load_file(str(path / "state.safetensors"))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path}: the checkpoint is damaged ({error}); remove it to start afresh") from error
        if told["fingerprint"] != self.fingerprint():
            raise ArtifactError(
                f"{path}: a checkpoint of another run (other outcomes or settings); remove it, or use another folder"
            )
        self.text.model.load_state_dict(_part(state, "model."))
        for name, value in _part(state, "heads.").items():
            self.heads[name].data.copy_(value)
        slots: dict[int, dict[str, Any]] = {}
        for name, value in _part(state, "optimizer.").items():
            number, _, slot = name.partition(".")
            slots.setdefault(int(number), {})[slot] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": slots})
        return int(told["epochs"]), float(told["best"]), int(told["waited"])


def _part(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
