"""The speed of the machine at hand, as a calibration run measured it.

A data sheet says little about a CPU, and small models spend their time between the matrix products. So a calibration
fits seconds per pass, per layer and per unit of each kind of work, all of them >= 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.errors import InputError
from eccos_core.io.files import atomic_writer, cache_folder
from eccos_core.roofline.architecture import AttentionWindow, ModelArchitecture
from eccos_core.roofline.cost_model import ModelPass

THIS = "this"
_FORMAT = 1
_REACH = 8.0  # how many times larger or smaller than a measured model another may be
_CALIBRATE = "run `eccos price FOLDER --gpu this --calibrate`"
_SWEEPS = 5000

WORK = (
    "passes",
    "layers",
    "operations",
    "weights",
    "elements",
    "prompt_scores",
    "prompt_products",
    "answer_scores",
    "cached_numbers",
    "rows",
    "logits",
)
"""The kinds of work that a calibration tells apart."""


def count_work(model: ModelArchitecture, work: ModelPass) -> FloatArray:
    """Count each kind of work of a pass, in the order of `WORK`.

    Raises `InputError` for a mixture of experts and for sliding windows, which no calibration tells apart.
    """
    if model.experts or model.windowed_layers:
        what = "a mixture of experts" if model.experts else "a sliding window"
        raise InputError(f"{model.name} has {what}, which gpu {THIS!r} cannot price. Give tokens_per_hour.")
    samples = work.prefills + work.decodes
    layer = sum(inputs * outputs for inputs, outputs in model.layer_matrices())
    layers, head = float(model.layers), float(model.hidden * model.vocabulary)
    return np.array(
        [
            1.0,
            layers,
            2.0 * work.tokens * layers * layer + 2.0 * samples * head,
            layers * layer + head,
            work.tokens * layers * model.elementwise_width(),
            layers * model.heads * work.prefill_pairs,
            layers * model.heads * model.head_dim * work.prefill_pairs,
            layers * model.heads * work.decode_context,
            layers * model.kv_heads * model.head_dim * work.decode_context,
            samples,
            samples * model.vocabulary,
        ]
    )


@dataclass(frozen=True, slots=True)
class MeasuredPass:
    """One pass of a model and the seconds that it took."""

    model: ModelArchitecture
    work: ModelPass
    seconds: float


@dataclass(frozen=True, slots=True)
class MachineCost:
    """The cost of one model on a machine. A `PassCost`."""

    model: ModelArchitecture
    seconds_per_unit: tuple[float, ...]

    @property
    def window(self) -> AttentionWindow:
        """What the model keeps of a long sequence in its cache."""
        return self.model.attention_window

    def seconds(self, work: ModelPass) -> float:
        """Return the seconds of one pass. A pass without tokens takes none."""
        return float(count_work(self.model, work) @ np.array(self.seconds_per_unit)) if work.tokens else 0.0


@dataclass(frozen=True, slots=True)
class ModelSpeed:
    """The seconds per unit of `WORK` that one model takes. `runs_on` is what computed ("numpy on cpu")."""

    model: str
    weights: int
    runs_on: str
    seconds_per_unit: tuple[float, ...]

    @classmethod
    def fit(cls, measured: Sequence[MeasuredPass], runs_on: str) -> ModelSpeed:
        """Fit passes of one model, with the least relative squares and nothing negative."""
        model = measured[0].model
        seconds = np.array([each.seconds for each in measured])
        counts = np.array([count_work(model, each.work) for each in measured]) / seconds[:, None]
        found = _nonnegative_least_squares(counts, np.ones(len(measured)))
        return cls(model.name, model.weights, runs_on, tuple(map(float, found)))


@dataclass(frozen=True, slots=True)
class MachineSpeed:
    """A calibrated machine. A model takes what the measured model of the nearest size takes.

    `memory_bytes` is what weights and cache may take, `bytes_per_number` the width of both.
    """

    speeds: tuple[ModelSpeed, ...]
    memory_bytes: float
    bytes_per_number: float

    def cost_of(self, model: ModelArchitecture) -> MachineCost:
        """Return the cost of a model. Raises `InputError` when no model of about its size was measured."""
        nearest = min(self.speeds, key=lambda speed: abs(np.log(speed.weights / model.weights)))
        if not 1 / _REACH <= nearest.weights / model.weights <= _REACH:
            raise InputError(
                f"{model.name} has {model.weights:,} weights, and the nearest model that this machine was measured on, "
                f"{nearest.model}, has {nearest.weights:,}: {_CALIBRATE} with the folder of your model"
            )
        return MachineCost(model, nearest.seconds_per_unit)

    def kv_tokens(self, model: ModelArchitecture) -> int:
        """Return the tokens that fit in the cache beside the weights."""
        held = replace(model, bytes_per_weight=self.bytes_per_number, bytes_per_kv=self.bytes_per_number)
        return max(0, int((self.memory_bytes - held.weight_bytes) / held.kv_bytes_per_token))

    def add(self, other: MachineSpeed) -> MachineSpeed:
        """Take over the models of `other`, and keep those that it did not measure."""
        measured = {speed.model for speed in other.speeds}
        return replace(other, speeds=(*other.speeds, *(s for s in self.speeds if s.model not in measured)))


def _nonnegative_least_squares(counts: FloatArray, wanted: FloatArray) -> FloatArray:
    """Minimise |counts x - wanted|^2 over x >= 0, one coordinate after the other (Franc et al. 2005)."""
    scale = np.maximum(np.linalg.norm(counts, axis=0), 1e-300)
    gram, target = (counts / scale).T @ (counts / scale), (counts / scale).T @ wanted
    found = np.zeros(len(scale))
    slope = -target
    for _ in range(_SWEEPS):
        for at in range(len(found)):
            if gram[at, at] == 0:
                continue
            moved = max(found[at] - slope[at] / gram[at, at], 0.0)
            slope += (moved - found[at]) * gram[:, at]
            found[at] = moved
    return np.asarray(found / scale)


def machine_file() -> Path:
    """Where the last calibration of this machine is kept."""
    return cache_folder() / "machine.json"


def write_machine(machine: MachineSpeed) -> Path:
    """Keep a calibration, and return its file."""
    path = machine_file()
    with atomic_writer(path) as stream:
        stream.write(json.dumps({"format": _FORMAT, **asdict(machine)}, indent=2).encode() + b"\n")
    return path


def read_machine() -> MachineSpeed:
    """Read the last calibration. Raises `InputError` when there is none, or it is damaged."""
    path = machine_file()
    try:
        return _read(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"gpu is {THIS!r}, and this machine was never measured: {_CALIBRATE}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is no calibration that this version reads ({error}): {_CALIBRATE}") from error


def _read(kept: Mapping[str, Any]) -> MachineSpeed:
    if kept["format"] != _FORMAT or not kept["speeds"]:
        raise ValueError(f"format {kept['format']} with {len(kept['speeds'])} models")
    speeds = []
    for each in kept["speeds"]:
        seconds = tuple(float(value) for value in each["seconds_per_unit"])
        if len(seconds) != len(WORK) or min(seconds) < 0:
            raise ValueError(f"{len(seconds)} numbers for {each['model']}")
        speeds.append(ModelSpeed(str(each["model"]), int(each["weights"]), str(each["runs_on"]), seconds))
    return MachineSpeed(tuple(speeds), float(kept["memory_bytes"]), float(kept["bytes_per_number"]))
