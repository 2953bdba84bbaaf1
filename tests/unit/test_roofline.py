"""A roofline takes the larger of computing and reading, and a fit finds the shares that made a table."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from eccos_core.errors import InputError
from eccos_core.roofline import (
    ARCHITECTURES,
    GPUS,
    LinearCost,
    ModelArchitecture,
    ModelPass,
    RooflineCost,
    architecture_named,
    count_pairs,
    gpu_named,
    read_architecture,
)
from tools.roofline.fit_vidur import ELEMENTWISE, PRODUCTS, fit_layers, read_layers

A100, LLAMA = GPUS["a100"], ARCHITECTURES["llama-2-7b"]


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("llama-2-7b", 6.74),
        ("llama-3-8b", 8.03),
        ("llama-2-70b", 68.98),
        ("llama-3-70b", 70.55),
        ("phi-2", 2.78),
        ("mixtral-8x7b", 46.7),
    ],
)
def test_the_weights_are_those_that_are_published(name: str, billions: float) -> None:
    assert ARCHITECTURES[name].weights == pytest.approx(billions * 1e9, rel=0.01)


def test_the_cache_takes_what_its_heads_take() -> None:
    assert LLAMA.kv_bytes_per_token == 2 * 32 * 32 * 128 * 2  # half a megabyte
    assert ARCHITECTURES["llama-3-8b"].kv_bytes_per_token == LLAMA.kv_bytes_per_token / 4
    kept = RooflineCost(A100, LLAMA).kv_tokens(0.9)
    assert kept == int((0.9 * 80e9 - LLAMA.weight_bytes) / LLAMA.kv_bytes_per_token)


def test_a_small_batch_reads_the_weights_and_a_large_one_computes() -> None:
    cost = RooflineCost(A100, LLAMA)
    assert cost.matrix_s(1, 4096, 4096) == pytest.approx(
        (4096 * 4096 * 2 + 2 * 4096 * 2) / (A100.efficiency.memory * A100.bandwidth) + A100.efficiency.kernel_s
    )
    assert cost.matrix_s(8192, 4096, 4096) == pytest.approx(
        2 * 8192 * 4096 * 4096 / (A100.efficiency.compute * A100.flops) + A100.efficiency.kernel_s
    )


def test_decoding_together_costs_little_more_than_alone() -> None:
    cost = RooflineCost(A100, LLAMA)
    alone = cost.seconds(ModelPass.of([], [100]))
    together = cost.seconds(ModelPass.of([], [100] * 32))
    assert LLAMA.weight_bytes / A100.bandwidth < alone < together < 1.6 * alone
    assert cost.seconds(ModelPass()) == 0.0


def test_a_long_context_costs_more_and_the_shares_of_several_gpus_less() -> None:
    cost = RooflineCost(A100, LLAMA)
    assert cost.seconds(ModelPass.of([], [32_000])) > 1.3 * cost.seconds(ModelPass.of([], [1000]))
    large = ARCHITECTURES["llama-2-70b"]
    halves = [RooflineCost(A100, large, shards).seconds(ModelPass.of([(2048, 0)], [])) for shards in (2, 4, 8)]
    assert halves[0] > halves[1] > halves[2] > halves[0] / 4  # what they send each other is not free


def test_a_pass_counts_its_chunks() -> None:
    work = ModelPass.of([(10, 0), (5, 20)], [7, 9])
    assert (work.tokens, work.prefill_pairs, work.decode_context) == (17, 10 * 11 // 2 + 5 * 20 + 5 * 6 // 2, 16)
    assert LinearCost(1.0, 0.5, 0.25, 0.125).seconds(work) == 1.0 + 0.5 * 15 + 0.25 * 2 + 0.125 * 16


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: gpu_named("h10"), "did you mean 'h100'"),
        (lambda: architecture_named("llama-2-7bb"), "did you mean 'llama-2-7b'"),
        (lambda: RooflineCost(A100, ARCHITECTURES["llama-2-70b"]), "needs 138 GB"),
        (lambda: RooflineCost(A100, ARCHITECTURES["llama-3-8b"], 3), "must divide the 8 KV heads"),
        (lambda: RooflineCost(A100, LLAMA, overhead_s=-1.0), "overhead is -1.0 s"),
        (lambda: replace(LLAMA, kv_heads=5), "do not divide"),
        (lambda: replace(LLAMA, layers=0), "a size below 1"),
    ],
)
def test_wrong_input_is_named(build, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=says):
        build()


CONFIG = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
}
EXPERTS = {"num_local_experts": 8, "num_experts_per_tok": 2}


def read(tmp_path: Path, **more: object) -> ModelArchitecture:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **more}), encoding="utf-8")
    return read_architecture(tmp_path)


def test_experts_are_read_where_a_token_uses_them_and_computed_where_it_passes(tmp_path: Path) -> None:
    model = read(tmp_path, vocab_size=32000, **EXPERTS)
    assert replace(model, name="mixtral-8x7b") == ARCHITECTURES["mixtral-8x7b"]
    # one token uses 2 of 8, two use 8 (1 - (6/8)^2) = 3.5, and many use all
    assert [model.experts_read(tokens) for tokens in (1, 2, 500)] == pytest.approx([2.0, 3.5, 8.0])
    gpu = replace(GPUS["h100"], memory_bytes=1e12)
    cost, efficiency = RooflineCost(gpu, model), gpu.efficiency
    read_s = (3.5 * 4096 * 28672 * 2 + 2 * 2 * (4096 + 28672) * 2) / (efficiency.memory * gpu.bandwidth)
    assert cost.experts_s(2, 4096, 28672) == pytest.approx(read_s + efficiency.kernel_s)
    computed_s = 2 * 8192 * 2 * 4096 * 28672 / (efficiency.compute * gpu.flops)
    assert cost.experts_s(8192, 4096, 28672) == pytest.approx(computed_s + efficiency.kernel_s)


def test_a_qwen_mixture_has_its_own_width_and_an_expert_that_all_share(tmp_path: Path) -> None:
    own = {"num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408}
    model = read(tmp_path, **own, shared_expert_intermediate_size=5632, decoder_sparse_step=1, mlp_only_layers=[])
    assert (model.experts, model.active_experts, model.expert_inner, model.inner) == (60, 4, 1408, 5632)
    attention = 4096 * (4096 + 2 * 1024) + 4096 * 4096
    layer = attention + 3 * 4096 * 5632 + 60 * 3 * 4096 * 1408 + 4096 * 60
    assert model.weights == 32 * layer + 2 * 128256 * 4096


@pytest.mark.parametrize(
    ("more", "layers"),
    [
        ({"sliding_window": 4096}, 32),  # Mistral
        ({"sliding_window": 4096, "use_sliding_window": False}, 0),  # Qwen writes a window that it does not use
        ({"sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 28}, 4),
        ({"sliding_window": 4096, "model_type": "gemma2"}, 16),
        ({"sliding_window": 4096, "sliding_window_pattern": 6}, 27),  # Gemma 3
        ({"sliding_window": 4096, "layer_types": ["sliding_attention", "full_attention"] * 16}, 16),
    ],
)
def test_a_folder_tells_which_layers_have_a_window(tmp_path: Path, more: dict[str, object], layers: int) -> None:
    model = read(tmp_path, **more)
    assert (model.window, model.windowed_layers) == ((4096, layers) if layers else (0, 0))


def test_a_window_bounds_what_a_token_sees() -> None:
    assert count_pairs(5, 0, 3) == 1 + 2 + 3 + 3 + 3
    assert count_pairs(4, 2, 3) == 3 * 4
    assert count_pairs(4, 1, 3) == 2 + 3 + 3 + 3
    assert count_pairs(4, 1, 100) == count_pairs(4, 1)
    full = ARCHITECTURES["mistral-7b"]
    half = replace(full, window=4096, windowed_layers=16)
    long = ModelPass.of([], [32_768] * 4, 4096)
    wide, narrow = (RooflineCost(A100, model) for model in (full, half))
    layer_s = [narrow.attention_s(ModelPass.of([], [context] * 4)) for context in (32_768, 4096)]
    assert narrow.seconds(long) == pytest.approx(wide.seconds(long) - 16 * (layer_s[0] - layer_s[1]))
    # a pass that does not count windows is reckoned with the most that they allow
    assert narrow.seconds(ModelPass.of([], [32_768] * 4)) == pytest.approx(narrow.seconds(long))
    short = ModelPass.of([(100, 0)], [4000])
    assert narrow.seconds(short) == wide.seconds(short)


def test_a_folder_tells_its_shape(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    assert replace(read_architecture(tmp_path), name="llama-3-8b") == ARCHITECTURES["llama-3-8b"]
    assert architecture_named(str(tmp_path)).kv_heads == 8


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (json.dumps({**CONFIG, "kv_lora_rank": 512}), "kv_lora_rank: latent attention has no cost model"),
        (json.dumps({**CONFIG, "layer_types": ["linear_attention"] * 32}), "layers of linear_attention"),
        (json.dumps({**CONFIG, **EXPERTS, "decoder_sparse_step": 2}), "decoder_sparse_step: dense layers between"),
        (json.dumps({**CONFIG, **EXPERTS, "num_experts_per_tok": 9}), "uses 9 of 8 experts"),
        (json.dumps({**CONFIG, "hidden_size": 0}), "no positive hidden_size"),
        (json.dumps({**CONFIG, "torch_dtype": "int3"}), "data type 'int3'"),
        ("[1]", "no JSON object"),
        ("{", "no JSON"),
    ],
)
def test_a_folder_that_cannot_be_read_says_why(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=says):
        read_architecture(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_architecture(tmp_path / "away")


def test_the_fit_finds_the_shares_that_made_a_table(tmp_path: Path) -> None:
    planted = replace(A100, efficiency=replace(A100.efficiency, compute=0.55, memory=0.66, elementwise=0.44))
    folder = tmp_path / "llama"
    folder.mkdir()
    fixed = {"n_head": 32, "n_kv_head": 32, "n_embd": 4096, "n_expanded_embd": 11008, "use_gated_mlp": True}
    cost = RooflineCost(planted, LLAMA)
    rows = []
    for tokens in (1, 8, 64, 256, 1024, 4096):
        products = [cost.matrix_s(tokens, *sizes) for sizes in LLAMA.layer_matrices()]
        rest = cost.layer_s(tokens) - sum(products)
        rows.append(
            {**fixed, "num_tokens": tokens, "num_tensor_parallel_workers": 1}
            | {f"time_stats.{name}.median": 1e3 * s for name, s in zip(PRODUCTS, products, strict=True)}
            | {f"time_stats.{name}.median": 1e3 * rest / len(ELEMENTWISE) for name in ELEMENTWISE}
        )
    with (folder / "mlp.csv").open("w", encoding="utf-8", newline="") as lines:
        table = csv.DictWriter(lines, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    found = fit_layers(A100, read_layers(folder)).efficiency
    assert (found.compute, found.memory, found.elementwise) == pytest.approx((0.55, 0.66, 0.44), rel=0.02)
