"""Variants in the format of `compressed-tensors`, which vLLM, SGLang and transformers load.

It is what `llmcompressor` writes. The linear layers get codes, with one scale per row in 8 bits and one per 64 weights
in 4 bits. Embeddings, the output layer and everything else stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.backends.local.quantise_weights import quantise_array
from eccos_core.backends.local.quantised import CODES, GROUP, SCALES, Scheme, dequantise_array
from eccos_core.domain import FloatArray
from eccos_core.errors import InputError
from eccos_core.io.optional import needs_extra


def write_compressed_tensors(folder: Path, scheme: Scheme, target: Path, moments: Mapping[str, FloatArray]) -> None:
    """Write the weights and `config.json` of a variant into `target`. The whole model is in memory meanwhile.

    Raises `InputError` for a model whose layers are no multiples of 64 wide (int4), or that has no linear layer.
    """
    with needs_extra("local", "the format compressed-tensors"):
        import torch
        from transformers import AutoModelForCausalLM
    with needs_extra("quantise", "the format compressed-tensors"):
        from compressed_tensors.compressors import ModelCompressor  # type: ignore[import-untyped, unused-ignore]
        from compressed_tensors.quantization import (  # type: ignore[import-untyped, unused-ignore]
            QuantizationArgs,
            QuantizationConfig,
            QuantizationScheme,
            QuantizationStatus,
            apply_quantization_config,
        )

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not model.get_output_embeddings()
    }
    if not layers:
        raise InputError(f"{folder} has no linear layer that could be quantised")
    if scheme == "int4":
        narrow = [name for name, layer in layers.items() if layer.in_features % GROUP]
        if narrow:
            raise InputError(
                f"{narrow[0]} of {folder} is {layers[narrow[0]].in_features} wide, and compressed-tensors needs a "
                f"multiple of {GROUP} in int4. Use --to int8, or --format eccos."
            )
    kept = [name for name, layer in model.named_modules() if layer is model.get_output_embeddings()]
    if scheme == "int8":
        weights = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="channel")
    else:
        weights = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=GROUP)
    groups = {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}
    status = QuantizationStatus.INITIALIZED
    apply_quantization_config(model, QuantizationConfig(config_groups=groups, ignore=kept, quantization_status=status))
    for name, layer in layers.items():
        _round(name, layer, scheme, moments.get(f"{name}.weight"))
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(target)
    compressor.update_config(target)


def _round(name: str, layer: Any, scheme: Scheme, moments: FloatArray | None) -> None:
    """Round the weights of a layer, and tell it the scales, from which the library finds the same codes again."""
    with needs_extra("local", "quantising for vLLM"):
        import torch

    weights = layer.weight.detach().to(torch.float32).numpy()
    stored = quantise_array("w", weights, scheme, moments)
    scales = stored["w" + SCALES].astype(np.float32)
    exact = dequantise_array(stored["w" + CODES], scales, weights.shape[-1])
    layer.weight.data = torch.from_numpy(exact).to(layer.weight.dtype)
    layer.weight_scale.data = torch.from_numpy(scales.reshape(len(weights), -1)).to(layer.weight_scale.dtype)
