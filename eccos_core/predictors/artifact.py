"""Store a fitted predictor in a folder with `manifest.json` and `weights.safetensors`.

The folder is written under a temporary name, then renamed. A reader finds the old predictor or the new one, never half.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.errors import ArtifactError, InputError
from eccos_core.io.files import replace_atomically, temporary_sibling
from eccos_core.predictors.difficulty import DifficultyPredictor
from eccos_core.predictors.ensemble.calibration import ProbabilityCalibration
from eccos_core.predictors.ensemble.forecast_head import ForecastHead
from eccos_core.predictors.ensemble.group_error import GroupErrorModel
from eccos_core.predictors.ensemble.predictor import EnsemblePredictor
from eccos_core.predictors.ensemble.standard_error import StandardErrorModel
from eccos_core.predictors.ensemble.token_lengths import TokenLengthModel
from eccos_core.predictors.ensemble.weights import StackingWeights
from eccos_core.predictors.features.index import FittedIndex
from eccos_core.predictors.features.nearness import NearnessModel
from eccos_core.predictors.features.projection import ReferencePoints, projection_arrays, projection_from_arrays
from eccos_core.predictors.finetune.predictor import FineTunedPredictor
from eccos_core.predictors.learners.gaussian_process import FittedGaussianProcess
from eccos_core.predictors.learners.item_response import FittedItemResponse
from eccos_core.predictors.learners.kernel_regression import FittedKernelRegression
from eccos_core.predictors.learners.kmeans import FittedKMeans
from eccos_core.predictors.learners.knn import FittedNearestNeighbors
from eccos_core.predictors.learners.mlp import FittedMlpHeads
from eccos_core.predictors.learners.ridge_learner import FittedRidgeRegression
from eccos_core.predictors.learners.training_set import Arrays, FittedLearner
from eccos_core.predictors.targets.latent import LatentTargets
from eccos_core.predictors.training_forecast import TrainingForecast
from eccos_core.protocols import Predictor

FORMAT = "eccos-predictor"
VERSION = 7
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"


def save_predictor(predictor: EnsemblePredictor, folder: str | Path, *, encoder: str) -> Path:
    """Write the predictor to a folder, and replace a predictor that is there. Returns the folder.

    encoder: the name of the encoder whose vectors it reads. Raises `ArtifactError` if the folder holds something else.
    """
    from safetensors.numpy import save_file

    folder = Path(folder)
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"{folder}: exists and is no predictor of eccos; name another folder")
    fresh = temporary_sibling(folder)
    try:
        fresh.mkdir(parents=True)
        arrays = {name: np.ascontiguousarray(array) for name, array in _arrays_of(predictor).items()}
        save_file(arrays, str(fresh / WEIGHTS))
        if predictor.training is not None:
            predictor.training.save(fresh)
        text = json.dumps(_describe(predictor, encoder), indent=1, ensure_ascii=False)
        (fresh / MANIFEST).write_text(text + "\n", encoding="utf-8")
        replace_atomically(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def load_predictor(
    folder: str | Path, *, encoder: str | None = None, models: Sequence[str] | None = None
) -> EnsemblePredictor:
    """Load the predictor that `save_predictor` wrote.

    encoder: the name of your encoder. models: the pool's names, in the order of the forecast's columns. You may leave
    fitted models out. Raises `ArtifactError` for another encoder, a model that it was not fitted for, a damaged folder,
    or another format or version.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    try:
        _check(folder, manifest, encoder, models)
        predictor = dataclasses.replace(
            _build_predictor(manifest, _read_arrays(folder)), training=TrainingForecast.load(folder)
        )
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ArtifactError(f"{folder}: the predictor is damaged ({error}); run `eccos fit` again") from error
    return predictor if models is None else predictor.for_pool(models)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactError(f"{folder}: no predictor here ({MANIFEST} is missing); `eccos fit` writes one") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); run `eccos fit` again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactError(f"{path}: not a predictor of eccos (format is not {FORMAT!r})")
    if manifest.get("version") != VERSION:
        raise ArtifactError(
            f"{path}: format version {manifest.get('version')}, this eccos reads version {VERSION}; "
            "run `eccos fit` again with this version"
        )
    return manifest


def _read_arrays(folder: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(str(folder / WEIGHTS)))
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{folder / WEIGHTS}: cannot be read ({error}); run `eccos fit` again") from error


def _check(folder: Path, manifest: Mapping[str, Any], encoder: str | None, models: Sequence[str] | None) -> None:
    if encoder is not None and encoder != manifest["encoder"]:
        raise ArtifactError(
            f"{folder}: fitted on vectors of encoder {manifest['encoder']!r}, this router reads with {encoder!r}; "
            "configure that encoder, or run `eccos fit` again"
        )
    fitted = manifest["models"]
    missing = [name for name in models or () if name not in fitted]
    if missing:
        raise ArtifactError(
            f"{folder}: fitted for another pool: it does not know {', '.join(missing)} "
            f"(it knows {', '.join(fitted)}); run `eccos fit` again"
        )


def _describe(predictor: EnsemblePredictor, encoder: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": predictor.kind,
        "encoder": encoder,
        "dimensions": predictor.dimensions,
        "models": list(predictor.models),
        "tokens_counted": predictor.head.latent_targets.counted,
        "calibration": {"slope": predictor.head.calibration.slope, "intercept": predictor.head.calibration.intercept},
        "group_error": {name: getattr(predictor.head.group_errors, name) for name in _GROUP_ERROR},
        "index": None if predictor.index is None else _describe_index(predictor.index),
    }


def _describe_index(index: FittedIndex) -> dict[str, Any]:
    return {
        "landmarks": len(index.landmarks.points),
        "learners": [name for name, _ in index.learners],
        "typical_squared_distance": index.typical_distance,
        "nearness": {
            "radius": index.nearness.radius if np.isfinite(index.nearness.radius) else None,
            "scale": index.nearness.scale,
            "usual_error": index.nearness.usual_error,
        },
    }


def _arrays_of(predictor: EnsemblePredictor) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "stacking_weights": predictor.stack.weights,
        "usd_per_unit": predictor.head.usd_per_unit,
        "group_error.deviation": predictor.head.group_errors.deviation,
    }
    if predictor.columns is not None:
        arrays["columns"] = predictor.columns
    for name, part, fields in (
        ("latent_targets", predictor.head.latent_targets, _LATENT_TARGETS),
        ("token_lengths", predictor.head.token_lengths, _TOKEN_LENGTHS),
        ("standard_error", predictor.head.standard_errors, _STANDARD_ERROR),
    ):
        arrays |= {f"{name}.{field}": getattr(part, field) for field in fields}
    if predictor.index is not None:
        arrays["landmarks"] = predictor.index.landmarks.points
        arrays |= {f"projection.{name}": array for name, array in projection_arrays(predictor.index.projection).items()}
        for number, (_, learner) in enumerate(predictor.index.learners):
            arrays |= {f"learner{number}.{name}": array for name, array in learner.to_arrays().items()}
    return arrays


_LATENT_TARGETS = ("mean_quality", "axes", "mean_log_tokens", "mean_tokens")
_TOKEN_LENGTHS = ("slope", "intercept", "log_quantile")
_GROUP_ERROR = ("unsupported", "midpoint", "slope")
_STANDARD_ERROR = ("residual_variance", "forecast_variance", "counts")


def _build_predictor(manifest: Mapping[str, Any], arrays: Arrays) -> EnsemblePredictor:
    quality, axes, logs, tokens = (
        np.asarray(arrays[f"latent_targets.{name}"], dtype=np.float64) for name in _LATENT_TARGETS
    )
    latent_targets = LatentTargets(quality, axes, logs, tokens, counted=bool(manifest["tokens_counted"]))
    calibration = manifest["calibration"]
    return EnsemblePredictor(
        kind=str(manifest["kind"]),
        models=tuple(manifest["models"]),
        dimensions=int(manifest["dimensions"]),
        index=None if manifest["index"] is None else _build_index(manifest["index"], arrays, latent_targets),
        stack=StackingWeights(np.asarray(arrays["stacking_weights"], dtype=np.float32)),
        head=ForecastHead(
            latent_targets,
            ProbabilityCalibration(float(calibration["slope"]), float(calibration["intercept"])),
            TokenLengthModel(
                *(np.asarray(arrays[f"token_lengths.{name}"], dtype=np.float64) for name in _TOKEN_LENGTHS)
            ),
            StandardErrorModel(
                *(np.asarray(arrays[f"standard_error.{name}"], dtype=np.float64) for name in _STANDARD_ERROR)
            ),
            GroupErrorModel(
                np.asarray(arrays["group_error.deviation"], dtype=np.float64),
                *(float(manifest["group_error"][name]) for name in _GROUP_ERROR),
            ),
            np.asarray(arrays["usd_per_unit"], dtype=np.float64),
        ),
        columns=np.asarray(arrays["columns"], dtype=np.int64) if "columns" in arrays else None,
    )


def _build_index(described: Mapping[str, Any], arrays: Arrays, latent_targets: LatentTargets) -> FittedIndex:
    nearness = described["nearness"]
    radius = nearness["radius"]
    return FittedIndex(
        projection=projection_from_arrays(_part(arrays, "projection")),
        landmarks=ReferencePoints(np.asarray(arrays["landmarks"], dtype=np.float32)),
        learners=tuple(
            (name, _build_learner(name, _part(arrays, f"learner{number}"), latent_targets))
            for number, name in enumerate(described["learners"])
        ),
        nearness=NearnessModel(
            float("inf") if radius is None else float(radius),
            float(nearness["scale"]),
            float(nearness["usual_error"]),
        ),
        typical_distance=float(described["typical_squared_distance"]),
    )


def _part(arrays: Arrays, prefix: str) -> dict[str, Any]:
    return {name[len(prefix) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{prefix}.")}


def _build_learner(name: str, arrays: Arrays, latent_targets: LatentTargets) -> FittedLearner:
    match name:
        case "retrieval":
            return FittedNearestNeighbors.from_arrays(arrays)
        case "kernel":
            return FittedGaussianProcess.from_arrays(arrays)
        case "linear":
            return FittedRidgeRegression.from_arrays(arrays)
        case "clusters":
            return FittedKMeans.from_arrays(arrays)
        case "kernel_regression":
            return FittedKernelRegression.from_arrays(arrays)
        case "item_response":
            return FittedItemResponse.from_arrays(arrays, latent_targets)
        case "trained":
            return FittedMlpHeads.from_arrays(arrays, latent_targets)
    raise ValueError(f"unknown base learner {name!r}")


def digest_predictor(predictor: Predictor) -> str:
    """Return 32 hexadecimal digits of what a fitted predictor forecasts from, the same before and after a save.

    Raises `InputError` for a predictor that changes while it serves.
    """
    match predictor:
        case EnsemblePredictor():
            arrays, about = _arrays_of(predictor), _describe(predictor, encoder="")
        case DifficultyPredictor():
            arrays, about = _arrays_of(predictor.means), _describe(predictor.means, encoder="")
            arrays |= {"difficulty.weights": predictor.difficulty.weights}
            about |= {"difficulty": predictor.difficulty.offset}
        case FineTunedPredictor():
            arrays = {
                f"{type(part).__name__}.{field.name}": getattr(part, field.name)
                for part in (predictor.heads, predictor.standard_errors)
                for field in dataclasses.fields(part)
            }
            about = {"models": list(predictor.models)}
        case _:
            raise InputError(
                f"a predictor of the type {type(predictor).__name__} changes while it serves, so nothing can be "
                "certified for it. Fit one with `eccos fit`."
            )
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        kept = np.ascontiguousarray(array)
        single = kept.astype(np.float32) if np.issubdtype(kept.dtype, np.floating) else kept.astype(np.int64)
        digest.update(f"{name}{single.shape}".encode() + single.tobytes())
    return digest.hexdigest()[:32]
