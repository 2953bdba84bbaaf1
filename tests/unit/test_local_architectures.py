"""Any causal language model of `transformers` with a key-value cache: batched answers equal its own `generate`."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import pytest

from eccos_core.backends.local.engine import LocalEngine
from eccos_core.backends.local.generation import Delivery, Generated, Generation
from eccos_core.errors import BackendError
from eccos_core.testing import build_tiny_model

SMALL = {"vocab_size": 80, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.5}
WIDE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
ARCHITECTURES = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},  # learnt absolute positions
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},  # positions by attention bias
    "qwen2": {**WIDE, "num_key_value_heads": 2, "max_position_embeddings": 128},
    "mistral": {**WIDE, "num_key_value_heads": 2, "sliding_window": 16},  # a cache that cannot be put side by side
    "gemma2": {**WIDE, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 16},  # both kinds of layers
}
RECURRENT = {"mamba": "MambaForCausalLM", "qwen3_next": "Qwen3NextForCausalLM"}  # a state per layer, or per some layers
QUESTIONS = ["What is 12 + 7?", "Hi", "Name the capital of France, please, and of Spain.", "1"]


def build(folder: Path, kind: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    build_tiny_model(folder)
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, **SMALL, **ARCHITECTURES.get(kind, WIDE))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def ask_together(engine: LocalEngine) -> list[Delivery]:
    arrived: list[queue.SimpleQueue[Delivery]] = [queue.SimpleQueue() for _ in QUESTIONS * 3]
    for place, box in enumerate(arrived):
        content = QUESTIONS[place % len(QUESTIONS)]
        engine.submit(Generation(({"role": "user", "content": content},), max_tokens=10, temperature=0.0), box.put)
    return [box.get(timeout=120) for box in arrived]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_batched_answers_equal_generate(tmp_path: Path, kind: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    build(tmp_path, kind)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    engine = LocalEngine(kind, tmp_path)
    found = ask_together(engine)
    for place, answer in enumerate(found):
        chat = [{"role": "user", "content": QUESTIONS[place % len(QUESTIONS)]}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        output = model.generate(**ids, max_new_tokens=10, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert isinstance(answer, Generated), answer
        assert answer.text == tokenizer.decode(output, skip_special_tokens=True)
    engine.close()


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_model_without_a_key_value_cache_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    build(tmp_path, kind)
    engine = LocalEngine(kind, tmp_path)
    for answer in ask_together(engine):
        assert isinstance(answer, BackendError)
        assert f"{RECURRENT[kind]} keeps no key-value cache" in str(answer)
        assert not answer.retryable
    engine.close()
