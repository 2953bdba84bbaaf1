"""Rounding weights to 8 or 4 bits.

`int8`: one scale per row, the greatest weight over 127. `int4`: one float16 scale per 64 weights of a row, and two
weights per byte. Of some scales, the one with the least squared error is taken. With the second moments of a layer's
inputs, each rounded column corrects those that follow it (Frantar et al. 2023, "GPTQ", arXiv 2210.17323, Algorithm 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from eccos_core.backends.local.quantised import CODES, GROUP, SCALES, Scheme
from eccos_core.domain import Float32Array, FloatArray
from eccos_core.errors import InputError

_LEAST_COLUMNS = 16  # a narrower array would hardly get smaller
_SHARES = np.linspace(1.0, 0.65, 16, dtype=np.float32)  # of greatest / 7 that a scale may be
_DAMPING = 0.01  # of the mean moment, added to each: GPTQ's own


def is_quantisable(array: npt.NDArray[Any]) -> bool:
    """Tell whether an array is a matrix of floats, wide enough to become smaller."""
    return array.ndim >= 2 and array.dtype.kind == "f" and array.shape[-1] >= _LEAST_COLUMNS


def quantise_array(
    name: str, array: npt.NDArray[Any], scheme: Scheme, moments: FloatArray | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Quantise an array (..., C). Return its codes and scales under the names that are stored.

    int8: codes int8 (..., C), scales float32 (...). int4: codes uint8 (..., C / 2 rounded up), scales float16 (..., G),
    with G groups of 64 weights, the last of which may be shorter. `moments` (C, C) sums x x' over the inputs of the
    layer, and only int4 uses it. Raises `InputError` for weights that are not finite, or too large.
    """
    weights = np.asarray(array, dtype=np.float32)
    if not np.isfinite(weights).all():
        raise InputError(f"the weights {name!r} are not all finite numbers, so they cannot be quantised")
    rows = weights.reshape(-1, weights.shape[-1])
    codes, scales = _to_int8(rows) if scheme == "int8" else _to_int4(rows, moments)
    if not np.isfinite(scales).all():
        raise InputError(f"the weights {name!r} are too large for the float16 scales of {scheme}. Use --to int8.")
    outer = weights.shape[:-1]
    scales = scales.reshape(outer) if scheme == "int8" else scales.reshape(*outer, -1)
    return {name + CODES: codes.reshape(*outer, -1), name + SCALES: scales}


def _to_int8(rows: Float32Array) -> tuple[npt.NDArray[np.int8], Float32Array]:
    scales = np.abs(rows).max(axis=1) / np.float32(127)
    codes = _round(rows, scales, -127, 127).astype(np.int8)
    return codes, scales


def _to_int4(rows: Float32Array, moments: FloatArray | None) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    """Quantise rows (N, C), one group of columns after the other."""
    columns = rows.shape[1]
    factor = None if moments is None else _inverse_factor(moments)
    left = rows.copy()  # what the columns to come must represent
    codes = np.zeros((len(rows), columns + columns % 2), dtype=np.uint8)
    scales = []
    for start in range(0, columns, GROUP):
        end = min(start + GROUP, columns)
        group = left[:, start:end]
        if factor is None:
            found = best_scales(group, np.ones(end - start, dtype=np.float32))
            rounded = _round(group, found.astype(np.float32))
        else:
            corner = factor[start:end, start:end]
            found = best_scales(group, (1 / np.diag(corner) ** 2).astype(np.float32))
            rounded, errors = _round_in_turn(group, found.astype(np.float32), corner)
            left[:, end:] -= errors @ factor[start:end, end:]
        codes[:, start:end] = rounded + 8
        scales.append(found)
    packed: npt.NDArray[np.uint8] = codes[:, 0::2] | codes[:, 1::2] << np.uint8(4)
    return packed, np.stack(scales, axis=1)


def best_scales(group: Float32Array, importance: Float32Array) -> npt.NDArray[np.float16]:
    """Return the scale (N,) of each row (N, K) whose squared error, weighed by `importance` (K,), is the least."""
    greatest = np.abs(group).max(axis=1)
    best = np.zeros(len(group), dtype=np.float16)
    least = np.full(len(group), np.inf, dtype=np.float32)
    for share in _SHARES:
        with np.errstate(over="ignore"):  # a scale that float16 cannot hold is infinite, and refused by name
            scales = (greatest * share / np.float32(7)).astype(np.float16)
        exact = scales.astype(np.float32)
        with np.errstate(invalid="ignore"):
            error = ((_round(group, exact) * exact[:, None] - group) ** 2) @ importance
        better = (error < least) | ~np.isfinite(exact)
        best[better], least[better] = scales[better], error[better]
    return best


def _round(rows: Float32Array, scales: Float32Array, least: int = -8, greatest: int = 7) -> Float32Array:
    """Return the whole numbers, from `least` to `greatest`, of rows (N, K) with a scale (N,) each."""
    divisor = np.where(scales > 0, scales, np.float32(1))[:, None]
    whole: Float32Array = np.rint(rows / divisor).clip(least, greatest)
    return whole


def _round_in_turn(
    group: Float32Array, scales: Float32Array, factor: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """Round the columns (N, K) in turn. Return the whole numbers, and the errors (N, K) that the columns to come share.

    `factor` (K, K) is the corner of the upper Cholesky factor of the inverse moments.
    """
    left, errors, rounded = group.copy(), np.empty_like(group), np.empty_like(group)
    for column in range(group.shape[1]):
        now = left[:, column : column + 1]
        whole = _round(now, scales)
        error = (now - whole * scales[:, None]) / factor[column, column]
        left[:, column + 1 :] -= error * factor[column, column + 1 :]
        rounded[:, column], errors[:, column] = whole[:, 0], error[:, 0]
    return rounded, errors


def _inverse_factor(moments: FloatArray) -> Float32Array | None:
    """Return the upper factor U (C, C) of the inverse of the moments, U'U. None where no input was ever above 0."""
    mean = float(np.diag(moments).mean())
    if mean <= 0:
        return None
    damped = moments + _DAMPING * mean * np.eye(len(moments))
    factor: Float32Array = np.linalg.cholesky(np.linalg.inv(damped)).T.astype(np.float32)
    return factor
