"""Weights of a model folder in 8 or 4 bits, and reading them back.

A quantised folder holds `quantisation.json`, one `quantised*.safetensors` per file of weights, and everything else that
the model had. `int8`: one scale per output channel, the greatest weight over 127. `int4`: one float16 scale per 32
weights of a row, two weights per byte, the scale with the least squared error of some (llama.cpp's Q4_0 with a search).
Norms and biases stay as they are. Loading turns the codes back into float32, so the memory at run time is the model's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from eccos_core.domain import Float32Array
from eccos_core.errors import ArtifactError, InputError

Scheme: TypeAlias = Literal["int8", "int4"]
LocalEngineKind: TypeAlias = Literal["numpy", "torch"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
MANIFEST = "quantisation.json"
GROUP = 32  # weights of a row that share a scale in int4
FORMAT, VERSION = "eccos quantised weights", 1
_LEAST_COLUMNS = 16  # a narrower array would hardly get smaller
_CODES, _SCALES = ".codes", ".scales"
_SHRINK = np.linspace(1.0, 0.7, 13, dtype=np.float32)  # shares of the greatest weight that a scale may reach
_CHUNK = 1 << 16  # groups whose scales are searched at once: bounds the memory


@dataclass(frozen=True, slots=True)
class QuantisationManifest:
    """What `quantisation.json` says. `columns`: the width of each quantised array, by its name. `runs_on`: the engine
    that the base model runs on when no device is named, "numpy" or "torch"."""

    scheme: Scheme
    base: str
    runs_on: LocalEngineKind
    files: tuple[str, ...]
    columns: Mapping[str, int]

    def write(self, folder: Path) -> None:
        """Write the file."""
        told = {"format": FORMAT, "version": VERSION, **asdict(self)}
        (folder / MANIFEST).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> QuantisationManifest | None:
    """Read what a folder says of its quantisation. None for a folder that is not quantised.

    Raises `ArtifactError` for a file that is damaged, or of another version.
    """
    place = folder / MANIFEST
    if not place.is_file():
        return None
    again = "Make it again with `eccos quantise`."
    try:
        told = json.loads(place.read_text(encoding="utf-8"))
        if (told.pop("format"), told.pop("version")) != (FORMAT, VERSION):
            raise ArtifactError(f"{place} is not of version {VERSION} of {FORMAT!r}. {again}")
        manifest = QuantisationManifest(**{**told, "files": tuple(told["files"])})
        columns = dict(manifest.columns)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{place} is damaged ({type(error).__name__}: {error}). {again}") from error
    inside = all(name == Path(name).name for name in manifest.files)
    if manifest.scheme not in SCHEMES or manifest.runs_on not in get_args(LocalEngineKind) or not inside:
        raise ArtifactError(f"{place} is damaged: it names an unknown scheme or engine, or files elsewhere. {again}")
    if not all(type(width) is int and width > 0 for width in columns.values()):
        raise ArtifactError(f"{place} is damaged: a width is no whole number above 0. {again}")
    return manifest


def is_quantisable(array: npt.NDArray[Any]) -> bool:
    """Tell whether an array is a matrix of floats, wide enough to become smaller."""
    return array.ndim >= 2 and array.dtype.kind == "f" and array.shape[-1] >= _LEAST_COLUMNS


def quantise_array(name: str, array: npt.NDArray[Any], scheme: Scheme) -> dict[str, npt.NDArray[Any]]:
    """Quantise an array (..., C). Return its codes and scales under the names that are stored.

    int8: codes int8 (..., C), scales float32 (...). int4: codes uint8 (..., G * 16), scales float16 (..., G), with G
    groups of 32, the last one filled up with zeros. Raises `InputError` for weights that are not finite, or too large.
    """
    weights = np.asarray(array, dtype=np.float32)
    if not np.isfinite(weights).all():
        raise InputError(f"the weights {name!r} are not all finite numbers, so they cannot be quantised")
    codes, scales = _to_int8(weights) if scheme == "int8" else _to_int4(weights)
    if not np.isfinite(scales).all():
        raise InputError(f"the weights {name!r} are too large for the float16 scales of {scheme}. Use --to int8.")
    return {name + _CODES: codes, name + _SCALES: scales}


def _to_int8(weights: Float32Array) -> tuple[npt.NDArray[np.int8], Float32Array]:
    scales = np.abs(weights).max(axis=-1) / np.float32(127)
    divisor = np.where(scales > 0, scales, np.float32(1))[..., None]
    return np.rint(weights / divisor).clip(-127, 127).astype(np.int8), scales


def _to_int4(weights: Float32Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    *rows, columns = weights.shape
    count = -(-columns // GROUP)
    padded = np.pad(weights, [(0, 0)] * len(rows) + [(0, count * GROUP - columns)])
    groups = padded.reshape(-1, GROUP)
    scales = np.concatenate([_best_scales(groups[i : i + _CHUNK]) for i in range(0, len(groups), _CHUNK)])
    codes = _codes(groups, scales.astype(np.float32)).astype(np.uint8).reshape(*rows, count * GROUP)
    packed: npt.NDArray[np.uint8] = codes[..., 0::2] | codes[..., 1::2] << np.uint8(4)
    return packed, scales.reshape(*rows, count)


def _best_scales(groups: Float32Array) -> npt.NDArray[np.float16]:
    """Return the scale (N,) of each group (N, 32) that leaves the least squared error. The greatest is -8 scales."""
    greatest = np.take_along_axis(groups, np.abs(groups).argmax(axis=1)[:, None], axis=1)[:, 0]
    best = np.zeros(len(groups), dtype=np.float16)
    least = np.full(len(groups), np.inf, dtype=np.float32)
    for share in _SHRINK:
        with np.errstate(over="ignore"):  # a scale that float16 cannot hold is infinite, and refused by name
            scales = (greatest * share / np.float32(-8)).astype(np.float16)
        exact = scales.astype(np.float32)
        with np.errstate(invalid="ignore"):
            error = (((_codes(groups, exact) - 8) * exact[:, None] - groups) ** 2).sum(axis=1)
        better = (error < least) | ~np.isfinite(exact)
        best[better], least[better] = scales[better], error[better]
    return best


def _codes(groups: Float32Array, scales: Float32Array) -> Float32Array:
    """Return the whole numbers 0 to 15 of groups (N, 32). 8 stands for zero."""
    divisor = np.where(scales != 0, scales, np.float32(1))[:, None]
    codes: Float32Array = np.rint(groups / divisor).clip(-8, 7) + np.float32(8)
    return codes


def dequantise_array(codes: npt.NDArray[Any], scales: npt.NDArray[Any], scheme: Scheme, columns: int) -> Float32Array:
    """Turn codes and scales back into weights (..., C). Raises `ValueError` where their shapes do not fit together."""
    exact = scales.astype(np.float32)
    if scheme == "int8":
        if codes.dtype != np.int8 or codes.shape != (*scales.shape, columns):
            raise ValueError(f"codes {codes.shape} and scales {scales.shape} are not {columns} columns of int8")
        return codes.astype(np.float32) * exact[..., None]
    *rows, groups = scales.shape
    if codes.dtype != np.uint8 or codes.shape != (*rows, groups * GROUP // 2) or groups != -(-columns // GROUP):
        raise ValueError(f"codes {codes.shape} and scales {scales.shape} are not {columns} columns of int4")
    weights = np.empty((*rows, groups * GROUP), dtype=np.float32)
    weights[..., 0::2], weights[..., 1::2] = codes & 15, codes >> 4
    weights -= np.float32(8)
    weights *= exact.repeat(GROUP, axis=-1)
    return np.ascontiguousarray(weights[..., :columns])


def read_quantised(folder: Path, manifest: QuantisationManifest) -> dict[str, npt.NDArray[Any]]:
    """Read all weights of a quantised folder, by their names in the base model. What was quantised is float32.

    Raises `OSError`, `SafetensorError`, `KeyError` or `ValueError` for files that are damaged.
    """
    from safetensors.numpy import load_file

    stored: dict[str, npt.NDArray[Any]] = {}
    for file in manifest.files:
        stored |= load_file(folder / file)
    weights = {}
    for name, columns in manifest.columns.items():
        codes, scales = stored.pop(name + _CODES), stored.pop(name + _SCALES)
        weights[name] = dequantise_array(codes, scales, manifest.scheme, columns)
    return {**stored, **weights}
