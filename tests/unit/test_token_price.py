"""A token on your own GPU costs what its context costs: the roofline's price, and the error that the tables show."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from eccos_core.backends.local import measure_speed
from eccos_core.backends.local.measure_speed import measure_model
from eccos_core.domain import ContextPrice
from eccos_core.errors import InputError
from eccos_core.pocket import pocket_path
from eccos_core.roofline import (
    ARCHITECTURES,
    GPUS,
    MachineCost,
    MachineSpeed,
    MeasuredPass,
    ModelPass,
    ModelSpeed,
    RooflineCost,
    ServedModel,
    price_by_context,
    price_tokens,
    read_machine,
    serve_model,
    write_machine,
)
from eccos_core.roofline.machine import WORK, machine_file
from tools.roofline.measured_layers import (
    LAYERS,
    MeasuredLayer,
    forecast_layer_s,
    layer_error,
    leave_one_out,
    read_measured_layers,
    shipped_gpu,
)

H100, ONES = GPUS["h100"], (1.0,) * len(WORK)


def serve(model: str = "llama-3-8b", gpu: str = "h100", **settings: int) -> ServedModel:
    return serve_model(model, gpu, usd_per_gpu_hour=3.6, **settings)


def test_a_token_costs_its_share_of_the_hour() -> None:
    served, context = serve(), 4096
    price = price_tokens(served, context)
    cost = RooflineCost(H100, ARCHITECTURES["llama-3-8b"])
    step = cost.seconds(ModelPass.of([], [context] * price.batch))
    assert price.batch == cost.kv_tokens() // context < 256
    assert price.usd_per_output_token == pytest.approx(step / price.batch * 3.6 / 3600)
    assert price.usd_per_output_token * price.output_tokens_per_s * 3600 == pytest.approx(3.6)
    read = cost.seconds(ModelPass.of([(context, 0)] * 2, []))  # two such prompts share a pass of 8,192 tokens
    assert price.usd_per_input_token == pytest.approx(read / (2 * context) * 3.6 / 3600)


def test_a_long_prompt_is_read_in_chunks_that_see_those_before() -> None:
    cost = RooflineCost(H100, ARCHITECTURES["llama-3-8b"])
    chunks = [
        cost.seconds(ModelPass.of([(size, start)], [])) for size, start in ((8192, 0), (8192, 8192), (3616, 16384))
    ]
    assert serve().prompt_token_s(20_000) == pytest.approx(sum(chunks) / 20_000)


def test_prices_grow_with_the_context_and_fewer_kv_heads_grow_less() -> None:
    grouped, full = (price_by_context(serve(name)) for name in ("llama-3-8b", "llama-2-7b"))
    for price in (grouped, full):
        assert all(after >= before for before, after in pairwise(price.usd_per_output_token))
        assert price.usd_per_input_token[-1] > price.usd_per_input_token[0]
    assert float(full.output_usd(32_768, 1)) > 3 * float(grouped.output_usd(32_768, 1))


def test_two_gpus_cost_twice_the_hour_and_hold_more_than_twice_the_cache() -> None:
    one, two = serve(), serve(gpus=2)
    assert two.usd_per_hour == 2 * one.usd_per_hour
    assert two.kv_tokens > 2 * one.kv_tokens
    with pytest.raises(InputError, match="use more shards"):
        serve("llama-3-70b")
    assert price_tokens(serve("llama-3-70b", gpus=4), 1024).usd_per_output_token > 0


def test_a_context_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"one request of 9,000,000 tokens needs a cache of 9,000,000 tokens"):
        price_tokens(serve(), 9_000_000)
    with pytest.raises(InputError, match=r"a batch of 200 requests of 32,768 tokens"):
        price_tokens(serve(batch=200), 32_768)
    with pytest.raises(InputError, match="context is 0"):
        price_tokens(serve(), 0)


def mistral(tmp_path: Path, **more: object) -> str:
    """A folder of Mistral's shape."""
    shape = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    sizes = {"intermediate_size": 14336, "vocab_size": 32000, "hidden_act": "silu", "dtype": "bfloat16"}
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(shape | sizes | more))
    return str(folder)


def test_a_window_keeps_the_cache_small_and_a_long_context_cheap(tmp_path: Path) -> None:
    full = serve(mistral(tmp_path))
    windowed = serve(mistral(tmp_path, sliding_window=4096))
    half = serve(mistral(tmp_path, sliding_window=4096, layer_types=["sliding_attention", "full_attention"] * 16))
    assert [served.held_tokens(32_768) for served in (full, half, windowed)] == [32_768, 18_432, 4096]
    assert [s.batch_at(32_768) for s in (full, half, windowed)] == [full.kv_tokens // n for n in (32_768, 18_432, 4096)]
    prices = [price_tokens(served, 32_768).usd_per_output_token for served in (windowed, half, full)]
    assert prices == sorted(prices)
    assert prices[2] > 5 * prices[0]
    assert price_tokens(windowed, 4096) == price_tokens(full, 4096)
    assert price_tokens(windowed, 8192).usd_per_output_token == pytest.approx(
        price_tokens(windowed, 32_768).usd_per_output_token
    )
    assert price_by_context(windowed).contexts[-1] == 1 << 20  # windows alone: no context is too long
    assert half.held_tokens(half.longest_context()) <= half.kv_tokens < half.held_tokens(half.longest_context() + 2)


def test_a_mixture_reads_few_experts_for_one_request_and_all_for_many() -> None:
    mixture, dense = (serve(name, gpus=2, batch=1) for name in ("mixtral-8x7b", "llama-2-13b"))
    many = serve("mixtral-8x7b", gpus=2, batch=64)
    alone, full = price_tokens(mixture, 1024), price_tokens(many, 1024)
    # 13 billion weights are active for one token, and 64 tokens read all 47 billion
    assert alone.usd_per_output_token == pytest.approx(price_tokens(dense, 1024).usd_per_output_token, rel=0.15)
    assert 2.5 < 64 * full.usd_per_output_token / alone.usd_per_output_token < 46.7 / 12.9


def test_latent_attention_and_a_window_on_this_machine_are_refused_by_name(tmp_path: Path, kept: Path) -> None:
    with pytest.raises(InputError, match="kv_lora_rank: latent attention has no cost model"):
        serve(mistral(tmp_path, kv_lora_rank=512))
    write_machine(MachineSpeed((ModelSpeed("m", 7_000_000_000, "x", ONES),), 1e12, 4.0))
    with pytest.raises(InputError, match="has a sliding window, which gpu 'this' cannot price"):
        price_tokens(serve(mistral(tmp_path, sliding_window=64), "this"), 128)


# ----------------------------------------------------------------------------- against measured tables


@pytest.fixture(scope="module")
def rows() -> list[MeasuredLayer]:
    return read_measured_layers()


def test_a_model_that_the_fit_did_not_see_is_within_10_per_cent(rows: list[MeasuredLayer]) -> None:
    pytest.importorskip("scipy")
    found = leave_one_out(rows)
    models = [each for each in found if each.left_out != "the GPU"]
    assert len(models) == 37
    assert max(each.error for each in models) < 0.10
    gpus = [each.error for each in found if each.left_out == "the GPU"]
    assert len(gpus) == 6
    assert max(gpus) < 0.10  # from the others of its generation
    # the numbers in gpus.py are those of the fit
    shipped = {(each.source, each.gpu, each.left_out): each.shipped for each in models}
    assert (
        max(error for (source, gpu, _), error in shipped.items() if (source, gpu) != ("aiconfigurator", "a100")) < 0.05
    )


def test_two_models_stand_in_the_measured_order_at_1k_and_32k(rows: list[MeasuredLayer]) -> None:
    """At 1k a small model with many KV bytes is cheap. At 32k its cache makes it as dear as larger ones."""
    layers = {"qwen3-1.7b": 28, "llama-3.2-3b": 28, "llama-3-8b": 32, "qwen3-8b": 36}
    for gpu in ("h100", "h200"):
        for context in (1024, 32_768):
            found = {
                row.model.name: (layers[row.model.name] * row.seconds, layers[row.model.name] * _forecast(row))
                for row in rows
                if (row.gpu, row.phase, row.context, row.tokens) == (gpu, "decode", context, 8)
                and row.model.name in layers
            }
            assert set(found) == set(layers)
            pairs = [(a, b) for a in found for b in found if found[a][0] > 1.05 * found[b][0]]
            assert len(pairs) >= 4
            assert all(found[a][1] > found[b][1] for a, b in pairs), (gpu, context)


def _forecast(row: MeasuredLayer) -> float:
    return forecast_layer_s(shipped_gpu(row), row)


def test_the_error_of_the_tables_sees_a_wrong_roofline(rows: list[MeasuredLayer]) -> None:
    def without_attention(row: MeasuredLayer):  # type: ignore[no-untyped-def]
        gpu = shipped_gpu(row)
        return replace(gpu, efficiency=replace(gpu.efficiency, attention_memory=100.0, attention_compute=100.0))

    long = [row for row in rows if row.gpu == "h100" and row.context == 32_768]
    assert layer_error(shipped_gpu, long) < 0.05 < 0.3 < layer_error(without_attention, long)
    assert LAYERS.stat().st_size < 40_000  # an extract, not the tables


# ----------------------------------------------------------------------------- this machine


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ECCOS_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["pocket-small", "pocket-medium", "pocket-large"])
def test_a_pocket_model_is_within_20_per_cent_at_contexts_that_the_fit_did_not_see(name: str) -> None:
    seen, unseen = (16, 64, 128, 224), (40, 96, 180)
    measured = measure_model(Path(pocket_path(name)), sorted(seen + unseen), (1, 3, 6), 3)
    held = [each for each in measured.passes if _context(each) in unseen]
    assert len(held) == 2 * 3 * 3
    speed = ModelSpeed.fit([each for each in measured.passes if _context(each) not in unseen], measured.runs_on)
    cost = MachineCost(held[0].model, speed.seconds_per_unit)
    assert float(np.median([abs(cost.seconds(each.work) / each.seconds - 1) for each in held])) < 0.20


def _context(measured: MeasuredPass) -> int:
    """The tokens of the prompt that was read, or that was there before the steps (two of them are in the middle)."""
    work = measured.work
    return work.prefill_tokens // work.prefills if work.prefills else work.decode_context // work.decodes - 2


def test_a_calibration_is_kept_and_prices_models_of_its_size(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="this machine was never measured"):
        serve_model("llama-3-8b", "this", usd_per_gpu_hour=1.0)
    monkeypatch.setattr(measure_speed, "ROWS", (1, 2))
    monkeypatch.setattr(measure_speed, "TRIES", 1)
    calibrated = measure_speed.calibrate(Path(pocket_path("pocket-medium")))
    write_machine(calibrated)
    assert read_machine() == calibrated
    assert [speed.model for speed in calibrated.speeds] == ["pocket-small", "pocket-medium", "pocket-large"]
    small, large = (
        serve_model(str(pocket_path(n)), "this", usd_per_gpu_hour=1.0) for n in ("pocket-small", "pocket-large")
    )
    assert price_tokens(large, 128).usd_per_output_token > 1.5 * price_tokens(small, 128).usd_per_output_token
    assert price_tokens(large, 200).batch == 64
    with pytest.raises(InputError, match=r"the nearest model that this machine was measured on, pocket-large"):
        serve_model("llama-3-8b", "this", usd_per_gpu_hour=1.0)
    with pytest.raises(InputError, match="gpus is 2, must be 1"):
        serve_model("llama-3-8b", "this", usd_per_gpu_hour=1.0, gpus=2)


def test_a_later_calibration_keeps_the_models_that_it_did_not_measure() -> None:
    first = MachineSpeed((ModelSpeed("a", 10, "x", ONES), ModelSpeed("b", 20, "x", ONES)), 1e9, 4.0)
    second = MachineSpeed((ModelSpeed("b", 30, "y", ONES),), 2e9, 2.0)
    both = first.add(second)
    assert [(speed.model, speed.weights) for speed in both.speeds] == [("b", 30), ("a", 10)]
    assert both.memory_bytes == 2e9


def test_a_fit_finds_the_seconds_that_made_the_times() -> None:
    model, truth = ARCHITECTURES["llama-2-7b"], np.linspace(1, 2, len(WORK)) * 1e-9
    works = [ModelPass.of([(n, 0)] * r, []) for n in (8, 64, 512) for r in (1, 3, 9)]
    works += [ModelPass.of([], [n] * r) for n in (8, 64, 512) for r in (1, 3, 9)]
    times = [MeasuredPass(model, work, MachineCost(model, tuple(truth)).seconds(work)) for work in works]
    cost = MachineCost(model, ModelSpeed.fit(times, "nothing").seconds_per_unit)
    assert min(cost.seconds_per_unit) >= 0
    other = ModelPass.of([(100, 0)] * 2, [200] * 5)
    assert cost.seconds(other) == pytest.approx(MachineCost(model, tuple(truth)).seconds(other), rel=0.01)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2, "speeds": [1]}', '{"format": 1, "speeds": [{}]}'])
def test_a_damaged_calibration_is_named(kept: Path, text: str) -> None:
    machine_file().parent.mkdir(parents=True, exist_ok=True)
    machine_file().write_text(text)
    with pytest.raises(InputError, match=r"machine.json is no calibration that this version reads"):
        read_machine()


# ----------------------------------------------------------------------------- the value


def test_a_context_price_is_a_line_between_its_lengths() -> None:
    price = ContextPrice((100, 200, 400), (1.0, 1.0, 2.0), (3.0, 4.0, 8.0))
    assert price.input_usd(np.array([50.0, 300.0])).tolist() == [50.0, 450.0]
    # an answer from 100 to 200 is written at 150 on the whole
    assert float(price.output_usd(100, 100)) == pytest.approx(350.0)
    assert float(price.output_usd(590, 20)) == pytest.approx(20 * 12.0)  # goes on along the last line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (((1,), (1.0,), (1.0,)), "at least 2"),
        (((2, 1), (1.0, 1.0), (1.0, 1.0)), "must be >= 1 and rise"),
        (((1, 2), (1.0, -1.0), (1.0, 1.0)), "must be a number >= 0"),
        (((1, 2), (1.0, 1.0), (1.0, float("nan"))), "must be a number >= 0"),
    ],
)
def test_a_wrong_context_price_is_refused(arguments, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=says):
        ContextPrice(*arguments)
