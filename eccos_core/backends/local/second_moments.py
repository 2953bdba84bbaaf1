"""The second moments of what flows into a model's layers while it answers: what a calibration learns for int4."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.backends.local.model import EngineOptions, load_model
from eccos_core.domain import FloatArray
from eccos_core.errors import InputError
from eccos_core.io.optional import needs_extra

MOST_PROMPTS = 256
_ANSWER_TOKENS = 16


def measure_second_moments(folder: Path, prompts: Sequence[str]) -> dict[str, FloatArray]:
    """Answer up to 256 prompts. Return the sum of x x' (C, C) over the inputs of each layer, by its weights' name.

    Raises `InputError` where there is no prompt, and `BackendError` for a folder that cannot be loaded.
    """
    if not prompts:
        raise InputError("a calibration needs at least one prompt")
    with needs_extra("local", "calibrating int4"):
        import torch

    loaded = load_model(folder.name, folder, EngineOptions(dtype="float32"))
    longest = (loaded.context_window or 2048) - _ANSWER_TOKENS
    moments: dict[str, FloatArray] = {}
    with _listening(loaded.model, moments), torch.inference_mode():
        for prompt in prompts[:MOST_PROMPTS]:
            ids = loaded.prompt_ids([{"role": "user", "content": prompt}])[:longest]
            tokens = torch.tensor([ids], device=loaded.model.device)
            loaded.model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=_ANSWER_TOKENS,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=sorted(loaded.end_ids) or None,
                pad_token_id=loaded.tokenizer.pad_token_id,
            )
    return moments


@contextmanager
def _listening(model: Any, moments: dict[str, FloatArray]) -> Iterator[None]:
    """Add up the moments of each linear layer while the model runs."""
    with needs_extra("local", "calibrating int4"):
        import torch

    def listen(name: str) -> Callable[[Any, tuple[Any, ...]], None]:
        def add(_: Any, inputs: tuple[Any, ...]) -> None:
            rows = inputs[0].reshape(-1, inputs[0].shape[-1]).to("cpu", torch.float32).numpy()
            moments[name] += rows.T @ rows

        return add

    hooks = []
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and layer is not model.get_output_embeddings():
            moments[f"{name}.weight"] = np.zeros((layer.in_features, layer.in_features))
            hooks.append(layer.register_forward_pre_hook(listen(f"{name}.weight")))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
