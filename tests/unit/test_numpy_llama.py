"""Llama models on numpy: grouped-query attention as transformers computes it, and long prompts in pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eccos_core.backends.local import numpy_llama
from eccos_core.backends.local.gguf_llama import _halve
from eccos_core.backends.local.numpy_llama import NumpyBatch, NumpyLlama, load_numpy_llama
from eccos_core.pocket import pocket_path

PROMPTS = ([5, 6, 7, 8, 9, 10, 11], [12, 13], [20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37])


def grouped(folder: Path) -> tuple[NumpyLlama, Any]:
    """A tiny Llama in which three query heads read each key, here and in transformers."""
    import torch
    from safetensors.numpy import load_file
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 6}
    config = LlamaConfig(
        vocab_size=80, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True, initializer_range=0.3, **sizes
    )
    theirs = LlamaForCausalLM(config).eval()
    theirs.save_pretrained(folder)
    return NumpyLlama(config.to_dict(), load_file(folder / "model.safetensors")), theirs


def test_grouped_queries_equal_transformers(tmp_path: Path) -> None:
    import torch

    ours, theirs = grouped(tmp_path)
    batch = NumpyBatch(ours, 0)
    logits, cache, mask = batch.prefill(PROMPTS)
    batch.join(cache, mask)
    after = batch.step([40, 41, 42])
    for place, prompt in enumerate(PROMPTS):
        with torch.no_grad():
            wanted = theirs(torch.tensor([[*prompt, 40 + place]])).logits[0].numpy()
        np.testing.assert_allclose(logits[place], wanted[-2], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(after[place], wanted[-1], rtol=1e-3, atol=1e-3)


def test_a_long_prompt_is_read_in_pieces_and_means_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer, _ = load_numpy_llama(pocket_path("pocket-small"))
    batch = NumpyBatch(model, tokenizer.pad_token_id or 0)
    prompts = [list(range(5, 205)), list(range(100, 110))]
    whole, whole_cache, _ = batch.prefill(prompts)
    monkeypatch.setattr(numpy_llama, "_SCORES", 2 * 200 * 30)  # 30 tokens a piece
    pieces, cache, mask = batch.prefill(prompts)
    np.testing.assert_allclose(pieces, whole, rtol=1e-4, atol=1e-4)
    real = mask[:, None, :, None]
    for (keys, values), (whole_keys, whole_values) in zip(cache, whole_cache, strict=True):
        np.testing.assert_allclose(keys * real, whole_keys * real, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(values * real, whole_values * real, rtol=1e-4, atol=1e-4)


def test_the_rows_of_a_head_go_from_pairs_to_halves() -> None:
    """llama.cpp's converter sorts them the other way (`LlamaModel.permute` of convert_hf_to_gguf.py)."""
    weights = np.arange(2 * 8 * 3, dtype=np.float32).reshape(16, 3)
    packed = weights.reshape(2, 2, 4, 3).swapaxes(1, 2).reshape(16, 3)
    assert not np.array_equal(packed, weights)
    np.testing.assert_array_equal(_halve(packed, 2), weights)
