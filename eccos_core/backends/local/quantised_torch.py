"""A quantised folder on torch whose weights stay in 8 or 4 bits in memory. Each layer expands its own when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.backends.local.quantised import (
    GROUP,
    QuantisationManifest,
    StoredWeights,
    dequantise_array,
    read_stored,
)
from eccos_core.io.optional import needs_extra

with needs_extra("local", "a quantised model in memory"):
    import torch
    from torch import Tensor, nn
    from torch.nn import functional
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights


class QuantisedLinear(nn.Module):
    """A linear layer with codes instead of weights."""

    def __init__(self, stored: StoredWeights, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features, self.out_features = stored.columns, len(stored.codes)
        self.codes, self.scales = _buffers(stored, dtype)
        self.bias = bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply (..., C) with the weights."""
        if self.codes.dtype == torch.int8:  # the scale of a row of weights is one of the product's columns
            product = functional.linear(inputs, self.codes.to(inputs.dtype)) * self.scales
            return product if self.bias is None else product + self.bias
        return functional.linear(inputs, _expand(self.codes, self.scales, self.in_features), self.bias)


class QuantisedEmbedding(nn.Module):
    """An embedding with codes instead of weights."""

    def __init__(self, stored: StoredWeights, dtype: torch.dtype) -> None:
        super().__init__()
        self.columns = stored.columns
        self.codes, self.scales = _buffers(stored, dtype)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors (..., C) of tokens."""
        codes, scales = self.codes[ids], self.scales[ids]
        if codes.dtype == torch.int8:
            return codes.to(scales.dtype) * scales[..., None]
        return _expand(codes, scales, self.columns)


def read_quantised_transformer(folder: Path, manifest: QuantisationManifest, dtype: torch.dtype) -> Any:
    """Build the model of a quantised folder, its linear layers and embeddings in codes. Other arrays are expanded.

    Raises what `read_quantised` raises, and `ValueError` for weights that are missing.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    model: Any
    with no_init_weights():  # memory that nobody writes to is not taken
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    quantised, plain = read_stored(folder, manifest)
    kept: dict[str, StoredWeights] = {}
    for name, stored in quantised.items():
        place = name.removesuffix(".weight")
        layer = model.get_submodule(place) if name.endswith(".weight") else None
        if isinstance(layer, nn.Linear):
            model.set_submodule(place, QuantisedLinear(stored, layer.bias, dtype))
            kept[name] = stored
        elif isinstance(layer, nn.Embedding):
            model.set_submodule(place, QuantisedEmbedding(stored, dtype))
            kept[name] = stored
        else:
            plain[name] = dequantise_array(stored.codes, stored.scales, stored.columns)
    embedding = f"{_name_of(model, model.get_input_embeddings())}.weight"
    if config.get_text_config().tie_word_embeddings and embedding in kept:
        output = _name_of(model, model.get_output_embeddings())
        model.set_submodule(output, QuantisedLinear(kept[embedding], None, dtype))
    state = {name: torch.from_numpy(np.ascontiguousarray(array)).to(dtype) for name, array in plain.items()}
    told = model.load_state_dict(state, strict=False, assign=True)
    if missing := [name for name in told.missing_keys if not name.endswith((".codes", ".scales"))]:
        raise ValueError(f"weights are missing: {', '.join(missing)}. Make it again with `eccos quantise`.")
    return model


def _name_of(model: Any, wanted: Any) -> str:
    names = (name for name, layer in model.named_modules() if layer is wanted)
    return str(next(names))


def _buffers(stored: StoredWeights, dtype: torch.dtype) -> tuple[nn.Buffer, nn.Buffer]:
    codes = nn.Buffer(torch.from_numpy(stored.codes))
    return codes, nn.Buffer(torch.from_numpy(stored.scales).to(dtype))


def _expand(codes: Tensor, scales: Tensor, columns: int) -> Tensor:
    """Turn 4-bit codes (..., C / 2 rounded up) and scales (..., G) into weights (..., C) of the scales' type."""
    pairs = torch.empty((*codes.shape, 2), dtype=scales.dtype, device=codes.device)  # both halves go where they stay
    pairs[..., 0], pairs[..., 1] = codes & 15, codes >> 4
    weights: Tensor = pairs.flatten(-2)[..., :columns].sub_(8)
    whole = columns // GROUP  # groups. The one after them may be shorter
    groups = weights[..., : whole * GROUP].view(*codes.shape[:-1], whole, GROUP)
    groups.mul_(scales[..., :whole, None])
    weights[..., whole * GROUP :].mul_(scales[..., whole:])
    return weights
