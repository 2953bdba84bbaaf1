"""The folder of a fine-tuning run: what stands where, and what a killed run leaves is put in order."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eccos_core.errors import ArtifactError
from eccos_core.predictors.finetune.settings import FORMAT

CHECKPOINT = "checkpoint"
ENCODER = "encoder"


def in_order(folder: Path) -> None:
    """Puts back what a killed run was about to replace, and clears away what it left half-written.

    Raises `ArtifactError` for a folder that holds something else.
    """
    place = folder / CHECKPOINT
    for old in _named(folder, f"{CHECKPOINT}.old"):
        if not place.is_dir():
            old.rename(place)  # killed between two renames: the old one is whole
    for left in (
        *_named(folder.parent, folder.name),
        *_named(folder, CHECKPOINT),
        *_named(folder, f"{CHECKPOINT}.old"),
        *_named(folder, f"{ENCODER}.old"),
    ):
        shutil.rmtree(left, ignore_errors=True)
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or _is_ours(folder))):
        raise ArtifactError(f"{folder}: exists and is no fine-tuned predictor of eccos; name another folder")


def _is_ours(folder: Path) -> bool:
    if (folder / CHECKPOINT).is_dir() or (folder / ENCODER / "eccos.json").is_file():
        return True
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def _named(folder: Path, name: str) -> Iterator[Path]:
    """What `beside` and `put_in_place` named in a folder."""
    ours = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{32}}")
    return (each for each in list(folder.glob(".*")) if ours.fullmatch(each.name) and each.is_dir())


def write_json(path: Path, value: dict[str, Any]) -> None:
    """The value, indented."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
