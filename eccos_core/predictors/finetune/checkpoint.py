"""The folder of a fine-tuning run: what it holds, and how a killed run is repaired."""

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
ENCODER_FILE = "eccos.json"  # in the folder of the encoder


def repair_run_folder(folder: Path) -> None:
    """Put back the checkpoint that a killed run was replacing, and delete its unfinished files.

    Raises `ArtifactError` for a folder that holds something else.
    """
    place = folder / CHECKPOINT
    for old in _temporary_folders(folder, f"{CHECKPOINT}.old"):
        if not place.is_dir():
            old.rename(place)  # killed between two renames: the old one is whole
    for unfinished in (
        *_temporary_folders(folder.parent, folder.name),
        *_temporary_folders(folder, CHECKPOINT),
        *_temporary_folders(folder, f"{CHECKPOINT}.old"),
        *_temporary_folders(folder, f"{ENCODER}.old"),
    ):
        shutil.rmtree(unfinished, ignore_errors=True)
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or _holds_a_run(folder))):
        raise ArtifactError(f"{folder}: exists and is no fine-tuned predictor of eccos; name another folder")


def _holds_a_run(folder: Path) -> bool:
    if (folder / CHECKPOINT).is_dir() or (folder / ENCODER / ENCODER_FILE).is_file():
        return True
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def _temporary_folders(parent: Path, name: str) -> Iterator[Path]:
    """Folders that `temporary_sibling` and `replace_atomically` named."""
    pattern = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{32}}")
    return (each for each in list(parent.glob(".*")) if pattern.fullmatch(each.name) and each.is_dir())


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write the value, indented."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
