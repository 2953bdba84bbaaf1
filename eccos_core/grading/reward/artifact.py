"""Keep a reward model in a folder with `reward.json` and `weights.safetensors`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.errors import ArtifactError
from eccos_core.grading.reward.features import SURFACE
from eccos_core.grading.reward.model import RewardModel
from eccos_core.grading.reward.report import RewardReport
from eccos_core.io.files import replace_atomically, temporary_sibling
from eccos_core.protocols import Encoder

FORMAT, VERSION = "eccos-reward", 1
MANIFEST, WEIGHTS = "reward.json", "weights.safetensors"


def save_reward(reward: RewardModel, report: RewardReport, folder: Path) -> None:
    """Write a reward model and its report to a folder, in place of a reward model that is there.

    Raises `ArtifactError` if the folder holds something else.
    """
    from safetensors.numpy import save_file

    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"{folder}: exists and is no reward model of eccos. Name another folder.")
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "encoder": reward.encoder.name,
        "models": list(reward.models),
        "held_out": asdict(report),
    }
    fresh = temporary_sibling(folder)
    try:
        fresh.mkdir(parents=True)
        save_file({"weights": reward.weights, "offsets": reward.offsets}, str(fresh / WEIGHTS))
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        (fresh / MANIFEST).write_text(text, encoding="utf-8")
        replace_atomically(fresh, folder)
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def load_reward(folder: Path, encoder: Encoder, models: Sequence[str]) -> RewardModel:
    """Load the reward model of a folder. `models`: the pool, whose answers it will see. They may be fewer than fitted.

    Raises `ArtifactError` for another encoder, a model it was not fitted to, a damaged folder, or another version.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        manifest: Any = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        arrays = load_file(str(folder / WEIGHTS))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactError(f"{folder}: no reward model here. `eccos fit-reward` writes one.") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{folder}: cannot be read ({error}). Run `eccos fit-reward` again.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise ArtifactError(
            f"{folder}: this is no reward model of version {VERSION}. Run `eccos fit-reward` again with this eccos."
        )
    if manifest.get("encoder") != encoder.name:
        raise ArtifactError(
            f"{folder}: fitted with encoder {manifest.get('encoder')!r}, this router reads with {encoder.name!r}. "
            "Configure that encoder, or run `eccos fit-reward` again."
        )
    fitted = tuple(map(str, manifest.get("models", ())))
    if missing := [name for name in models if name not in fitted]:
        raise ArtifactError(
            f"{folder}: fitted for another pool. It saw no answer of {', '.join(missing)}, only of "
            f"{', '.join(fitted)}. Collect answers of the whole pool and run `eccos fit-reward` again."
        )
    weights, offsets = arrays.get("weights"), arrays.get("offsets")
    shapes = ((3 * encoder.dimensions + len(SURFACE),), (len(fitted),))
    if weights is None or offsets is None or (weights.shape, offsets.shape) != shapes:
        raise ArtifactError(f"{folder}: the weights are damaged. Run `eccos fit-reward` again.")
    if not (np.isfinite(weights).all() and np.isfinite(offsets).all()):
        raise ArtifactError(f"{folder}: the weights are not all numbers. Run `eccos fit-reward` again.")
    return RewardModel(encoder, fitted, weights.astype(np.float64), offsets.astype(np.float64))
