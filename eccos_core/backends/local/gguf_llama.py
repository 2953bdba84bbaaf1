"""A Llama model in a GGUF file, on numpy: SmolLM2 without torch and transformers.

GGUF is the file format of llama.cpp: metadata, a tokenizer and quantised weights in one file
(github.com/ggml-org/ggml/blob/master/docs/gguf.md). The package `gguf` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from eccos_core.backends.local.numpy_llama import NumpyLlama, NumpyTokenizer
from eccos_core.domain import Float32Array
from eccos_core.io.optional import needs_extra

_CONTROL = 3  # gguf.TokenType.CONTROL: a token that no text contains
_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def load_gguf_llama(file: Path) -> tuple[NumpyLlama, NumpyTokenizer]:
    """Read SmolLM2's file. Return the model, its weights in float32, and its tokenizer.

    Raises OSError, ValueError, KeyError or IndexError for a file that is damaged or holds another architecture or
    tokenizer, and `MissingDependencyError` without `eccos[smol]`.
    """
    with needs_extra("smol", f"the model {file.name}"):
        from gguf import GGUFReader
        from gguf.quants import dequantize

    reader = GGUFReader(file)
    told = {name: field.contents() for name, field in reader.fields.items()}
    kinds = (told["general.architecture"], told["tokenizer.ggml.model"], told["tokenizer.ggml.pre"])
    weights = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    if kinds != ("llama", "gpt2", "smollm") or "output.weight" in weights:
        raise ValueError(f"{file} is no SmolLM2: its architecture and tokenizer are {', '.join(kinds)}")
    config = _config(told)
    return NumpyLlama(config, _rename(weights, config)), _tokenizer(told)


def _config(told: Mapping[str, Any]) -> dict[str, Any]:
    """What `NumpyLlama` needs to know, in Hugging Face's words."""
    heads = told["llama.attention.head_count"]
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": told["llama.attention.head_count_kv"],
        "head_dim": told["llama.embedding_length"] // heads,
        "num_hidden_layers": told["llama.block_count"],
        "max_position_embeddings": told["llama.context_length"],
        "rms_norm_eps": told["llama.attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_type": "default", "rope_theta": told["llama.rope.freq_base"]},
    }


def _rename(weights: Mapping[str, npt.NDArray[Any]], config: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    named = {
        "model.embed_tokens.weight": weights["token_embd.weight"],
        "model.norm.weight": weights["output_norm.weight"],
    }
    rotated = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for layer in range(config["num_hidden_layers"]):
        for part, name in _PARTS.items():
            array = weights[f"blk.{layer}.{part}.weight"]
            array = _halve(array, rotated[part]) if part in rotated else array
            named[f"model.layers.{layer}.{name}.weight"] = array
    return named


def _halve(array: Float32Array, heads: int) -> Float32Array:
    """Sort the rows of each head from llama.cpp's pairs (rotated together as neighbours) into Llama's halves."""
    rows, columns = array.shape
    return array.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _tokenizer(told: Mapping[str, Any]) -> NumpyTokenizer:
    """Byte-pair encoding in which each digit is a token, as SmolLM2's own tokenizer.json describes it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = told["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in told["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: place for place, token in enumerate(tokens)}, merges=merges))
    digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, told["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token, kind in kinds if kind == _CONTROL])
    pad, end = (tokens[told[f"tokenizer.ggml.{name}_token_id"]] for name in ("padding", "eos"))
    return NumpyTokenizer(tokenizer, told["tokenizer.chat_template"], pad=pad, end=end)
