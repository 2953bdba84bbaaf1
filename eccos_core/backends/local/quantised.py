"""Weights of a model folder in 8 or 4 bits, and reading them back.

A quantised folder holds `quantisation.json`, one `quantised*.safetensors` per file of weights, and everything else that
the model had. `int8`: one scale per output channel. `int4`: one float16 scale per 64 weights of a row, two weights per
byte. The matrices of the vocabulary (its embeddings and its output) stay in int8 there, because they lose the most.
Norms and biases stay as they are. Loading turns the codes back into floats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from eccos_core.domain import Float32Array
from eccos_core.errors import ArtifactError

Scheme: TypeAlias = Literal["int8", "int4"]
LocalEngineKind: TypeAlias = Literal["numpy", "torch"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
MANIFEST = "quantisation.json"
GROUP = 64  # weights of a row that share a scale in int4
FORMAT, VERSION = "eccos quantised weights", 2
CODES, SCALES = ".codes", ".scales"  # what follows the name of an array


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


class StoredWeights(NamedTuple):
    """An array as it is stored: its codes, its scales, and its width."""

    codes: npt.NDArray[Any]
    scales: npt.NDArray[Any]
    columns: int


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


def dequantise_array(codes: npt.NDArray[Any], scales: npt.NDArray[Any], columns: int) -> Float32Array:
    """Turn codes and scales back into weights (..., C). int8 codes have 8 bits, and uint8 codes twice 4.

    Raises `ValueError` where their shapes do not fit together.
    """
    exact = scales.astype(np.float32)
    if codes.dtype == np.int8:
        if codes.shape != (*scales.shape, columns):
            raise ValueError(f"codes {codes.shape} and scales {scales.shape} are not {columns} columns of int8")
        return codes.astype(np.float32) * exact[..., None]
    *rows, groups = scales.shape
    if codes.dtype != np.uint8 or codes.shape != (*rows, -(-columns // 2)) or groups != -(-columns // GROUP):
        raise ValueError(f"codes {codes.shape} and scales {scales.shape} are not {columns} columns of int4")
    weights = np.empty((*rows, 2 * codes.shape[-1]), dtype=np.float32)
    weights[..., 0::2], weights[..., 1::2] = codes & 15, codes >> 4
    weights = weights[..., :columns] - np.float32(8)
    weights *= exact.repeat(GROUP, axis=-1)[..., :columns]
    return weights


def read_quantised(folder: Path, manifest: QuantisationManifest) -> dict[str, npt.NDArray[Any]]:
    """Read all weights of a quantised folder, by their names in the base model. What was quantised is float32.

    Raises `OSError`, `SafetensorError`, `KeyError` or `ValueError` for files that are damaged.
    """
    quantised, plain = read_stored(folder, manifest)
    return plain | {name: dequantise_array(*stored) for name, stored in quantised.items()}


def read_stored(
    folder: Path, manifest: QuantisationManifest
) -> tuple[dict[str, StoredWeights], dict[str, npt.NDArray[Any]]]:
    """Read a quantised folder as it is stored: what is quantised, and the other arrays, both by their names.

    Raises what `read_quantised` raises.
    """
    from safetensors.numpy import load_file

    plain: dict[str, npt.NDArray[Any]] = {}
    for file in manifest.files:
        plain |= load_file(folder / file)
    quantised = {
        name: StoredWeights(plain.pop(name + CODES), plain.pop(name + SCALES), columns)
        for name, columns in manifest.columns.items()
    }
    return quantised, plain
