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
    ModelPass,
    RooflineCost,
    architecture_named,
    gpu_named,
    read_architecture,
)
from tools.roofline.fit_vidur import ELEMENTWISE, PRODUCTS, fit_layers, read_layers

A100, LLAMA = GPUS["a100"], ARCHITECTURES["llama-2-7b"]


@pytest.mark.parametrize(
    ("name", "billions"),
    [("llama-2-7b", 6.74), ("llama-3-8b", 8.03), ("llama-2-70b", 68.98), ("llama-3-70b", 70.55), ("phi-2", 2.78)],
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


def test_a_folder_tells_its_shape(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    assert replace(read_architecture(tmp_path), name="llama-3-8b") == ARCHITECTURES["llama-3-8b"]
    assert architecture_named(str(tmp_path)).kv_heads == 8


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (json.dumps({**CONFIG, "num_local_experts": 8}), "mixture of experts"),
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
