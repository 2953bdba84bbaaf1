"""Fit the shares of a GPU's peak to measured layers, and say how far off a model or a GPU is that the fit did not see.

    python -m tools.roofline.measured_layers

It reads `tests/data/roofline/layers.csv`, prints the numbers that `eccos_core/roofline/gpus.py` holds, and the errors.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.roofline import GPUS, Gpu, ModelArchitecture, ModelPass, RooflineCost

LAYERS = Path(__file__).resolve().parents[2] / "tests" / "data" / "roofline" / "layers.csv"
_PRODUCTS = ("qkv_ms", "out_ms", "gate_up_ms", "down_ms")


@dataclass(frozen=True)
class MeasuredLayer:
    """One line of the table. `other_s` and `attention_s` are None where the source did not measure them."""

    source: str
    gpu: str
    model: ModelArchitecture
    gpus: int
    phase: str
    tokens: int
    context: int
    products_s: tuple[float, ...]
    other_s: float | None
    attention_s: float | None

    @property
    def seconds(self) -> float:
        """All that was measured of the layer."""
        return sum(self.products_s) + (self.other_s or 0.0) + (self.attention_s or 0.0)

    @property
    def work(self) -> ModelPass:
        """The pass that was measured."""
        if self.phase == "prefill":
            return ModelPass.of([(self.tokens, 0)], [])
        return ModelPass.of([], [self.context] * self.tokens)


def read_measured_layers(path: Path = LAYERS) -> list[MeasuredLayer]:
    """Read the table."""
    with path.open(encoding="utf-8", newline="") as lines:
        return [_row(row) for row in csv.DictReader(lines)]


def _row(row: dict[str, str]) -> MeasuredLayer:
    sizes = [int(row[name]) for name in ("hidden", "heads", "kv_heads", "head_dim", "inner")]
    return MeasuredLayer(
        source=row["source"],
        gpu=row["gpu"],
        model=ModelArchitecture(row["model"], 1, *sizes, vocabulary=1),
        gpus=int(row["gpus"]),
        phase=row["phase"],
        tokens=int(row["tokens"]),
        context=int(row["context"] or 0),
        products_s=tuple(float(row[name]) * 1e-3 for name in _PRODUCTS),
        other_s=float(row["other_ms"]) * 1e-3 if row["other_ms"] else None,
        attention_s=float(row["attention_ms"]) * 1e-3 if row["attention_ms"] else None,
    )


def forecast_products_s(gpu: Gpu, row: MeasuredLayer) -> list[float]:
    """Return the seconds of the four products of a row."""
    cost = RooflineCost(gpu, row.model, row.gpus)
    return [cost.matrix_s(row.tokens, *sizes) for sizes in row.model.layer_matrices(row.gpus)]


def forecast_layer_s(gpu: Gpu, row: MeasuredLayer) -> float:
    """Return the seconds of all that a row measured."""
    seconds = sum(forecast_products_s(gpu, row))
    if row.other_s is not None:
        seconds += _forecast_other_s(gpu, row)
    if row.attention_s is not None:
        seconds += RooflineCost(gpu, row.model, row.gpus).attention_s(row.work)
    return seconds


def _forecast_other_s(gpu: Gpu, row: MeasuredLayer) -> float:
    return RooflineCost(gpu, row.model, row.gpus).layer_s(row.tokens) - sum(forecast_products_s(gpu, row))


def layer_error(fitted: Callable[[MeasuredLayer], Gpu], rows: Iterable[MeasuredLayer]) -> float:
    """Return the median of |forecast / measured - 1|."""
    return float(np.median([abs(forecast_layer_s(fitted(row), row) / row.seconds - 1) for row in rows]))


def fit_shares(rows: Sequence[MeasuredLayer]) -> dict[str, float]:
    """Fit the shares to rows of one or more GPUs, to the logarithm of the times. Return those that the rows tell.

    The sum of the products counts twice as much as each of them.
    """

    def products(values: np.ndarray) -> np.ndarray:
        errors = []
        for row in rows:
            found = forecast_products_s(_with(row, compute=values[0], memory=values[1], kernel_s=values[2] * 1e-6), row)
            errors += [np.log(f / m) for f, m in zip(found, row.products_s, strict=True)]
            errors.append(2 * np.log(sum(found) / sum(row.products_s)))
        return np.array(errors)

    def others(values: np.ndarray) -> np.ndarray:
        shares = {"elementwise": values[0], "elementwise_kernel_s": values[1] * 1e-6}
        return np.array(
            [np.log(_forecast_other_s(_with(r, **shares), r) / r.other_s) for r in rows if r.other_s is not None]
        )

    def attention(values: np.ndarray) -> np.ndarray:
        shares = {
            "attention_compute": values[0],
            "attention_memory": values[1],
            "attention_kernel_s": values[2] * 1e-6,
        }
        costs = [
            (RooflineCost(_with(row, **shares), row.model, row.gpus).attention_s(row.work), row.attention_s)
            for row in rows
            if row.attention_s is not None
        ]
        return np.array([np.log(forecast / measured) for forecast, measured in costs])

    compute, memory, kernel = _least_squares(products, [0.7, 0.8, 3.0], [1.0, 1.0, 20.0])
    fitted = {"compute": compute, "memory": memory, "kernel_s": kernel * 1e-6}
    if any(row.other_s is not None for row in rows):
        share, kernel = _least_squares(others, [0.5, 2.0], [1.0, 20.0])
        fitted |= {"elementwise": share, "elementwise_kernel_s": kernel * 1e-6}
    if any(row.attention_s is not None for row in rows):
        compute, memory, kernel = _least_squares(attention, [0.5, 0.8, 12.0], [1.0, 1.0, 60.0])
        fitted |= {"attention_compute": compute, "attention_memory": memory, "attention_kernel_s": kernel * 1e-6}
    return fitted


def fitted_gpu(shares: dict[str, float]) -> Callable[[MeasuredLayer], Gpu]:
    """Return what gives each row its GPU, with these shares instead of its own."""
    return lambda row: _with(row, **shares)


def shipped_gpu(row: MeasuredLayer) -> Gpu:
    """Return the GPU of a row as eccos has it."""
    return _with(row)


def _with(row: MeasuredLayer, **shares: float) -> Gpu:
    gpu = GPUS[row.gpu]
    return replace(gpu, memory_bytes=1e15, efficiency=replace(gpu.efficiency, **shares))


def _least_squares(errors: Callable[..., Any], start: list[float], top: list[float]) -> list[float]:
    from scipy.optimize import least_squares

    found = least_squares(errors, start, bounds=([0.01] * len(start), top), loss="soft_l1", f_scale=0.1)
    return [float(value) for value in found.x]


@dataclass(frozen=True)
class LeftOutError:
    """The median error on rows that a fit did not see, and that of the shares that eccos has."""

    source: str
    gpu: str
    left_out: str
    rows: int
    error: float
    shipped: float


def leave_one_out(rows: Sequence[MeasuredLayer]) -> list[LeftOutError]:
    """Leave out each model of each GPU and source, then each GPU of each source.

    A GPU that is left out has the shares of the other GPUs of its generation, from every source.
    """
    found = []
    for source, gpu in sorted({(row.source, row.gpu) for row in rows}):
        here = [row for row in rows if (row.source, row.gpu) == (source, gpu)]
        for model in sorted({row.model.name for row in here}):
            held = [row for row in here if row.model.name == model]
            rest = fit_shares([row for row in here if row.model.name != model])
            errors = layer_error(fitted_gpu(rest), held), layer_error(shipped_gpu, held)
            found.append(LeftOutError(source, gpu, model, len(held), *errors))
        generation = GPUS[gpu].generation
        rest = fit_shares([row for row in rows if row.gpu != gpu and GPUS[row.gpu].generation == generation])
        errors = layer_error(fitted_gpu(rest), here), layer_error(shipped_gpu, here)
        found.append(LeftOutError(source, gpu, "the GPU", len(here), *errors))
    return found


def main() -> None:
    """Print the shares of every GPU, and the errors."""
    rows = read_measured_layers()
    for source, gpu in sorted({(row.source, row.gpu) for row in rows}):
        shares = fit_shares([row for row in rows if (row.source, row.gpu) == (source, gpu)])
        print(source, gpu, {name: float(f"{value:.3g}") for name, value in shares.items()})
    for each in leave_one_out(rows):
        print(f"{each.source:14} {each.gpu:5} {each.left_out:14} {each.rows:3d} {each.error:6.1%} {each.shipped:6.1%}")


if __name__ == "__main__":
    main()
