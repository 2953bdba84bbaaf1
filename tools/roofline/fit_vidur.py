"""Fit the shares of a GPU's peak that kernels reach to Vidur's tables, and say how far off a left-out model is.

    python -m tools.roofline.fit_vidur vidur/data/profiling/compute

The folder has `GPU/OWNER/MODEL/mlp.csv` and `attention.csv` (github.com/microsoft/vidur, MIT). Only medians are read.
It prints the numbers that `eccos_core/roofline/gpus.py` holds, and the errors on models that the fit did not see.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eccos_core.roofline import GPUS, Gpu, ModelArchitecture, ModelPass, RooflineCost, RooflineEfficiency

PRODUCTS = ("attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj")
ELEMENTWISE = ("input_layernorm", "attn_rope", "post_attention_layernorm", "mlp_act", "add")


@dataclass(frozen=True)
class LayerTime:
    """One row of `mlp.csv`: the seconds of the four products, and of all that is elementwise."""

    model: ModelArchitecture
    tokens: int
    shards: int
    products_s: tuple[float, ...]
    elementwise_s: float


@dataclass(frozen=True)
class AttentionTime:
    """One row of `attention.csv`."""

    model: ModelArchitecture
    shards: int
    work: ModelPass
    seconds: float


def read_layers(folder: Path) -> list[LayerTime]:
    """Read `mlp.csv` of one GPU and model."""
    return [
        LayerTime(
            model=_architecture(folder.name, row, int(row["n_expanded_embd"]), row["use_gated_mlp"] == "True"),
            tokens=int(row["num_tokens"]),
            shards=int(row["num_tensor_parallel_workers"]),
            products_s=tuple(_milliseconds(row, name) for name in PRODUCTS),
            elementwise_s=sum(_milliseconds(row, name) for name in ELEMENTWISE),
        )
        for row in _rows(folder / "mlp.csv")
    ]


def read_attention(folder: Path) -> list[AttentionTime]:
    """Read `attention.csv` of one GPU and model; the rows of prompts and of decoding."""
    found = []
    for row in _rows(folder / "attention.csv"):
        batch, cached, read = int(row["batch_size"]), int(row["kv_cache_size"]), int(row["prefill_chunk_size"])
        is_prefill = row["is_prefill"] == "True"
        work = ModelPass.of([(read, cached)] * batch, []) if is_prefill else ModelPass.of([], [cached] * batch)
        seconds = _milliseconds(row, "attn_prefill" if is_prefill else "attn_decode")
        model = _architecture(folder.name, {**row, "n_head": row["n_q_head"]}, 1, True)
        found.append(AttentionTime(model, int(row["num_tensor_parallel_workers"]), work, seconds))
    return found


def fit_layers(gpu: Gpu, rows: Sequence[LayerTime]) -> Gpu:
    """Fit compute, memory and elementwise shares and the seconds per kernel, to the logarithm of the times."""

    def errors(values: np.ndarray) -> np.ndarray:
        tried = _with(gpu, compute=values[0], memory=values[1], kernel_s=values[2] * 1e-6)
        return np.array(
            [np.log(p / m) for row in rows for p, m in zip(_products(tried, row), row.products_s, strict=True)]
        )

    def elementwise_errors(values: np.ndarray) -> np.ndarray:
        tried = _with(gpu, elementwise=values[0], elementwise_kernel_s=values[1] * 1e-6)
        return np.array([np.log(_elementwise(tried, row) / row.elementwise_s) for row in rows])

    compute, memory, kernel = _least_squares(errors, [0.7, 0.8, 3.0], [1.0, 1.0, 20.0])
    share, elementwise_kernel = _least_squares(elementwise_errors, [0.5, 2.0], [1.0, 20.0])
    return _with(
        gpu,
        compute=compute,
        memory=memory,
        kernel_s=kernel * 1e-6,
        elementwise=share,
        elementwise_kernel_s=elementwise_kernel * 1e-6,
    )


def fit_attention(gpu: Gpu, rows: Sequence[AttentionTime]) -> Gpu:
    """Fit the shares of attention and the seconds per kernel, to the logarithm of the times."""

    def errors(values: np.ndarray) -> np.ndarray:
        tried = _with(gpu, attention_compute=values[0], attention_memory=values[1], attention_kernel_s=values[2] * 1e-6)
        return np.array([np.log(_attention(tried, row) / row.seconds) for row in rows])

    compute, memory, kernel = _least_squares(errors, [0.4, 0.6, 10.0], [1.0, 1.0, 200.0])
    return _with(gpu, attention_compute=compute, attention_memory=memory, attention_kernel_s=kernel * 1e-6)


def layer_error(gpu: Gpu, rows: Sequence[LayerTime]) -> float:
    """Return the median of |forecast / measured - 1| of a layer without attention."""
    forecast = np.array([sum(_products(gpu, row)) + _elementwise(gpu, row) for row in rows])
    measured = np.array([sum(row.products_s) + row.elementwise_s for row in rows])
    return float(np.median(np.abs(forecast / measured - 1)))


def attention_error(gpu: Gpu, rows: Sequence[AttentionTime]) -> float:
    """Return the median of |forecast / measured - 1| of attention."""
    forecast = np.array([_attention(gpu, row) for row in rows])
    return float(np.median(np.abs(forecast / np.array([row.seconds for row in rows]) - 1)))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _milliseconds(row: dict[str, str], name: str) -> float:
    return float(row.get(f"time_stats.{name}.median") or 0.0) * 1e-3


def _architecture(name: str, row: dict[str, str], inner: int, gated: bool) -> ModelArchitecture:
    hidden, heads = int(row["n_embd"]), int(row["n_head"])
    return ModelArchitecture(
        name, 1, hidden, heads, int(row["n_kv_head"]), hidden // heads, inner, 1 << 15, gated=gated
    )


def _with(gpu: Gpu, **shares: float) -> Gpu:
    return replace(gpu, memory_bytes=1e15, efficiency=replace(gpu.efficiency, **shares))


def _products(gpu: Gpu, row: LayerTime) -> list[float]:
    cost = RooflineCost(gpu, row.model, row.shards)
    return [cost.matrix_s(row.tokens, *sizes) for sizes in row.model.layer_matrices(row.shards)]


def _elementwise(gpu: Gpu, row: LayerTime) -> float:
    return RooflineCost(gpu, row.model, row.shards).layer_s(row.tokens) - sum(_products(gpu, row))


def _attention(gpu: Gpu, row: AttentionTime) -> float:
    return RooflineCost(gpu, row.model, row.shards).attention_s(row.work)


def _least_squares(errors, start: list[float], top: list[float]) -> list[float]:  # type: ignore[no-untyped-def]
    from scipy.optimize import least_squares

    found = least_squares(errors, start, bounds=([0.01] * len(start), top), loss="soft_l1", f_scale=0.1)
    return [float(value) for value in found.x]


def main() -> int:
    """Print the fitted shares of every GPU, and the errors on each model when it is left out."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        print("usage: python -m tools.roofline.fit_vidur vidur/data/profiling/compute")
        return 2
    root = Path(sys.argv[1])
    attention_gpu = GPUS["a100"]
    attention = {path.parent: read_attention(path.parent) for path in sorted(root.glob("a100/*/*/attention.csv"))}
    print("gpu   left out                     rows  error with it in  error left out")
    if attention:
        attention_gpu = fit_attention(attention_gpu, [row for rows in attention.values() for row in rows])
        for folder, rows in attention.items():
            others = [row for other, found in attention.items() if other != folder for row in found]
            left_out = f"{attention_error(fit_attention(GPUS['a100'], others), rows):.1%}" if others else "-"
            inside = attention_error(attention_gpu, rows)
            print(f"a100  {folder.name + ' attention':28} {len(rows):4d}  {inside:16.1%}  {left_out:>14}")
    fitted = {}
    for name, gpu in GPUS.items():
        layers = {path.parent: read_layers(path.parent) for path in sorted(root.glob(f"{name}/*/*/mlp.csv"))}
        if not layers:
            continue
        fitted[name] = fit_layers(
            replace(gpu, efficiency=attention_gpu.efficiency), [r for x in layers.values() for r in x]
        )
        for folder, found in layers.items():
            others_in = [row for other, rows in layers.items() if other != folder for row in rows]
            left_out = f"{layer_error(fit_layers(gpu, others_in), found):.1%}" if others_in else "-"
            print(
                f"{name:5} {folder.name:28} {len(found):4d}  {layer_error(fitted[name], found):16.1%}  {left_out:>14}"
            )
    for name, gpu in fitted.items():
        print(name, _shares(gpu.efficiency))
    return 0


def _shares(shares: RooflineEfficiency) -> str:
    values = (
        f"{shares.compute:.3f}, {shares.memory:.3f}, {shares.kernel_s:.2e}, {shares.elementwise:.3f}, "
        f"{shares.elementwise_kernel_s:.2e}, {shares.attention_compute:.3f}, {shares.attention_memory:.3f}, "
        f"{shares.attention_kernel_s:.2e}"
    )
    return f"RooflineEfficiency({values})"


if __name__ == "__main__":
    sys.exit(main())
