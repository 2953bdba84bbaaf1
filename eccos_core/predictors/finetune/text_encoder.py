"""The text encoder that is fine-tuned: a Hugging Face transformer, mean-pooled, with vectors of unit length."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eccos_core.domain import Float32Array
from eccos_core.errors import ArtifactError
from eccos_core.io.optional import needs_extra
from eccos_core.predictors.finetune.checkpoint import ENCODER_FILE, write_json

with needs_extra("local", "fine-tuning"):
    import torch
    from torch.nn import functional

ENCODE_BATCH_SIZE = 32


class TextEncoder:
    """A transformer and its tokenizer on a device. `name` is empty until the encoder is loaded from a finished run."""

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
        """Return (B, D) unit vectors, with gradients."""
        with self._tokenizing:
            tokens = self.tokenizer(
                list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
            ).to(self.device)
        with torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.device.startswith("cuda")):
            states = self.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None].float()
        return functional.normalize((states.float() * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0), dim=1)

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """Return (len(texts), D) float32 vectors of unit length."""
        self.model.eval()
        result = np.empty((len(texts), self.dimensions), dtype=np.float32)
        with torch.no_grad():
            for start in range(0, len(texts), ENCODE_BATCH_SIZE):
                stop = start + ENCODE_BATCH_SIZE
                result[start:stop] = self.forward(texts[start:stop]).cpu().numpy()
        return result

    def save(self, folder: Path) -> str:
        """Write the encoder into a folder. Return the digest of its weights."""
        self.model.save_pretrained(str(folder), safe_serialization=True)
        self.tokenizer.save_pretrained(str(folder))
        write_json(folder / ENCODER_FILE, {"max_tokens": self.max_tokens})
        return _weights_digest(folder)


def load_encoder(folder: Path, device: str) -> TextEncoder:
    """Load the encoder of a finished run. Raises `ArtifactError` when there is none."""
    try:
        max_tokens = int(json.loads((folder / ENCODER_FILE).read_text(encoding="utf-8"))["max_tokens"])
        encoder = TextEncoder(folder, resolve_device(device), max_tokens)
        digest = _weights_digest(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{folder}: no fine-tuned encoder here ({error})") from error
    encoder.name = f"finetuned:{digest}/{max_tokens}"
    return encoder


def resolve_device(device: str) -> str:
    """Replace `auto` by CUDA where there is one, else by the CPU."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def _weights_digest(folder: Path) -> str:
    """12 hexadecimal digits of an encoder's weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]
