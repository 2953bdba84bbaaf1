"""Write quantised variants of a model folder. All are there when this ends well, and none when it does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from eccos_core.backends.local.compressed_format import write_compressed_tensors
from eccos_core.backends.local.quantise_weights import is_quantisable, quantise_array
from eccos_core.backends.local.quantised import MANIFEST, SCHEMES, LocalEngineKind, QuantisationManifest, Scheme
from eccos_core.backends.local.second_moments import measure_second_moments
from eccos_core.domain import FloatArray
from eccos_core.errors import DataError, InputError, did_you_mean
from eccos_core.io.files import parse_object, temporary_sibling
from eccos_core.io.optional import needs_extra
from eccos_core.pocket import pocket_models_folder

FileFormat: TypeAlias = Literal["eccos", "compressed-tensors"]
FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)
_WEIGHTS = "*.safetensors"
_KEPT_SUFFIXES = frozenset({".json", ".jinja", ".txt", ".model", ".md", ".tiktoken"})
_INDEX = ".safetensors.index.json"
_READABLE = frozenset({"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"})


@dataclass(frozen=True, slots=True)
class QuantisedVariant:
    """A variant that was written. Sizes in bytes are those of the files with weights."""

    scheme: Scheme
    folder: Path
    weight_bytes: int
    base_weight_bytes: int

    @property
    def share(self) -> float:
        """The bytes as a share of the base model's."""
        return self.weight_bytes / self.base_weight_bytes


def parse_schemes(text: str) -> tuple[Scheme, ...]:
    """Read schemes that commas separate, such as int8,int4. Raises `InputError`."""
    known: dict[str, Scheme] = {scheme: scheme for scheme in SCHEMES}
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise InputError(f"--to names no scheme; there are {', '.join(SCHEMES)}")
    for name in names:
        if name not in known:
            raise InputError(
                f"unknown scheme {name!r} in --to; there are {', '.join(SCHEMES)}{did_you_mean(name, known)}"
            )
    return tuple(known[name] for name in names)


def parse_format(text: str) -> FileFormat:
    """Read the name of a format. Raises `InputError`."""
    known: dict[str, FileFormat] = {name: name for name in FORMATS}
    if text not in known:
        raise InputError(f"unknown format {text!r}; there are {', '.join(FORMATS)}{did_you_mean(text, known)}")
    return known[text]


def quantise_folder(
    folder: Path,
    schemes: Sequence[Scheme],
    out: Path,
    prompts: Sequence[str] | None = None,
    file_format: FileFormat = "eccos",
) -> list[QuantisedVariant]:
    """Write each variant of a Hugging Face folder into `out / NAME-SCHEME`. Memory: one file of weights at a time.

    With `prompts` the model answers them first, and int4 is rounded so that its answers change least. The format
    "compressed-tensors" is for vLLM, and takes the memory of the whole model.

    Raises `InputError` for a folder that is not there, has no weights in safetensors or is quantised already, for a
    variant that exists, and where nothing can be written. `DataError` for damaged files.
    """
    folder = folder.expanduser().resolve()
    shards = _find_weights(folder)
    places = {scheme: out.expanduser().resolve() / f"{folder.name}-{scheme}" for scheme in schemes}
    for place in places.values():
        if place.exists():
            raise InputError(f"{place} exists, and nothing is overwritten. Remove it, or choose another --out.")
    base_bytes = sum(shard.stat().st_size for shard in shards)
    moments = _calibrate(folder, shards, prompts) if prompts is not None and "int4" in schemes else {}
    with ExitStack() as undo:
        fresh = {scheme: temporary_sibling(place) for scheme, place in places.items()}
        for temporary in fresh.values():
            undo.callback(shutil.rmtree, temporary, ignore_errors=True)
        try:
            for scheme, temporary in fresh.items():
                temporary.mkdir(parents=True)
                if file_format == "eccos":
                    _write(folder, shards, scheme, temporary, moments)
                else:
                    write_compressed_tensors(folder, scheme, temporary, moments)
                _copy_others(folder, temporary)
            for scheme, temporary in fresh.items():
                temporary.rename(places[scheme])
                undo.callback(shutil.rmtree, places[scheme], ignore_errors=True)
        except OSError as error:
            raise InputError(f"nothing was written to {out}: {error.strerror or error}") from error
        undo.pop_all()
    return [
        QuantisedVariant(scheme, place, sum(file.stat().st_size for file in place.glob(_WEIGHTS)), base_bytes)
        for scheme, place in places.items()
    ]


def _find_weights(folder: Path) -> list[Path]:
    """Return the files with weights of a folder that can be quantised."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} is no Hugging Face model folder: it has no config.json")
    config = parse_object((folder / "config.json").read_bytes(), str(folder / "config.json"), None)
    if (folder / MANIFEST).exists() or config.get("quantization_config"):
        raise InputError(f"{folder} is quantised already. Quantise the model that it was made from.")
    indexed = [file for file in folder.glob(f"*{_INDEX}") if file.is_file()]
    whole = folder / "model.safetensors"
    shards = [whole] if whole.is_file() else sorted(folder.glob(_WEIGHTS))
    if indexed and not whole.is_file():
        try:
            names = set(json.loads(indexed[0].read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError) as error:
            raise DataError(str(indexed[0]), f"cannot be read as an index of weights ({error})") from error
        shards = [folder / name for name in sorted(names)]
        if missing := [shard.name for shard in shards if not shard.is_file()]:
            raise InputError(f"{folder} lacks files that {indexed[0].name} names: {', '.join(missing)}")
    if not shards:
        raise InputError(
            f"{folder} holds no .safetensors weights. Save the model in that format: `model.save_pretrained(folder)`."
        )
    return shards


def _calibrate(folder: Path, shards: Sequence[Path], prompts: Sequence[str]) -> Mapping[str, FloatArray]:
    """Measure the inputs of the layers whose weights stand in the files."""
    moments = measure_second_moments(folder, prompts)
    stored = {name for shard in shards for name in _kinds(shard)}
    if not moments.keys() & stored:
        raise InputError(f"the layers of {folder} have other names than its weights, so it cannot be calibrated")
    return moments


def _write(
    folder: Path, shards: Sequence[Path], scheme: Scheme, target: Path, moments: Mapping[str, FloatArray]
) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    columns: dict[str, int] = {}
    files = []
    vocabulary = _vocabulary(folder)
    for number, shard in enumerate(shards, start=1):
        stored: dict[str, npt.NDArray[Any]] = {}
        for name, array in _read_arrays(shard):
            if is_quantisable(array):
                kept = "int8" if array.shape[0] == vocabulary else scheme
                stored |= quantise_array(name, array, kept, moments.get(name))
                columns[name] = array.shape[-1]
            else:
                stored[name] = array
        files.append("quantised.safetensors" if len(shards) == 1 else f"quantised-{number:05d}.safetensors")
        try:
            save_file(stored, target / files[-1])
        except SafetensorError as error:
            raise OSError(str(error)) from error
        (target / files[-1]).chmod(0o644)  # safetensors writes files that only their owner can read
    if not columns:
        raise InputError(f"{folder} has no matrix of weights that could be quantised")
    engine: LocalEngineKind = "numpy" if folder.parent == pocket_models_folder() else "torch"
    QuantisationManifest(scheme, folder.name, engine, tuple(files), columns).write(target)


def _copy_others(folder: Path, target: Path) -> None:
    """Copy what is no weights: the configuration, the tokenizer, the licence. What was written stays."""
    for file in sorted(folder.iterdir()):
        is_kept = file.suffix in _KEPT_SUFFIXES or file.stem.upper() in ("LICENSE", "NOTICE")
        if is_kept and file.is_file() and not (target / file.name).exists() and not file.name.endswith(_INDEX):
            shutil.copyfile(file, target / file.name)


def _read_arrays(shard: Path) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield the arrays of a file. numpy knows no bfloat16, so these are read by torch, as float32."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="numpy") as stream:
            for name, kind in _kinds(shard).items():
                if kind not in _READABLE:
                    raise InputError(f"{shard} holds {name!r} as {kind}, and eccos quantises F64, F32, F16 and BF16")
                yield name, _read_bfloat16(shard, name) if kind == "BF16" else stream.get_tensor(name)
    except SafetensorError as error:
        raise DataError(str(shard), f"cannot be read as safetensors ({error})") from error


def _kinds(shard: Path) -> dict[str, str]:
    """Return the data type of each array of a file."""
    from safetensors import safe_open

    with safe_open(shard, framework="numpy") as stream:
        return {name: str(stream.get_slice(name).get_dtype()) for name in stream.keys()}  # noqa: SIM118


def _vocabulary(folder: Path) -> int | None:
    """Return how many tokens the model knows. None where its configuration does not say."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    size: int | None = config.get("text_config", config).get("vocab_size")
    return size


def _read_bfloat16(shard: Path, name: str) -> npt.NDArray[np.float32]:
    from safetensors import safe_open

    with needs_extra("local", "quantising bfloat16 weights"):
        import torch
    with safe_open(shard, framework="pt") as stream:
        array: npt.NDArray[np.float32] = stream.get_tensor(name).to(torch.float32).numpy()
    return array
