"""Weights that stay in 4 bits in memory are expanded to the very numbers of the plain model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eccos_core.backends.local.quantise_weights import quantise_array
from eccos_core.backends.local.quantised import CODES, SCALES, StoredWeights, dequantise_array

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from eccos_core.backends.local.quantised_torch import QuantisedEmbedding, QuantisedLinear  # noqa: E402


def quantised(rows: int, columns: int) -> tuple[StoredWeights, Any]:
    """Return random weights in 4 bits, and as floats."""
    weights = np.random.default_rng(rows + columns).standard_normal((rows, columns)).astype(np.float32)
    arrays = quantise_array("w", weights, "int4")
    stored = StoredWeights(arrays["w" + CODES], arrays["w" + SCALES], columns)
    return stored, torch.from_numpy(dequantise_array(stored.codes, stored.scales, columns))


@pytest.mark.parametrize("columns", [16, 17, 63, 64, 65, 128, 150, 151])  # short groups, whole ones, odd ends
@pytest.mark.parametrize("rows", [1, 9])
def test_four_bits_become_the_same_numbers(rows: int, columns: int) -> None:
    stored, weights = quantised(rows, columns)
    layer = QuantisedLinear(stored, None, torch.float32)
    assert torch.equal(layer(torch.eye(columns)).T, weights)
    assert torch.equal(layer(torch.eye(columns)).T, weights)  # the codes are as they were


def test_vectors_of_tokens_are_the_rows() -> None:
    stored, weights = quantised(7, 100)
    ids = torch.tensor([[3, 0], [6, 3]])
    assert torch.equal(QuantisedEmbedding(stored, torch.float32)(ids), weights[ids])
