"""A price by context, from the file to the decision: long prompts go where they are cheap."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eccos_core.backends.litellm.responses import CallRecord
from eccos_core.backends.local import measure_speed
from eccos_core.cli import app
from eccos_core.cli.output import DONE, YOUR_INPUT, run
from eccos_core.config import Config, load_config
from eccos_core.domain import ContextPrice, Model, QualityPrice, Request
from eccos_core.errors import ConfigError
from eccos_core.pocket import pocket_path
from eccos_core.routing.pricing import cost_usd, worst_usd
from eccos_core.testing import ScriptedBackend, scripted_router

GROWING = ContextPrice((128, 8192), (1e-7, 1e-6), (1e-6, 1e-5))


def load(tmp_path: Path, info: str, model: str = "openai/x") -> Config:
    file = tmp_path / "eccos.yaml"
    file.write_text(
        f"model_list:\n- {{model_name: m, litellm_params: {{model: {model}, api_base: 'http://127.0.0.1:1/v1'}}, "
        f"model_info: {{{info}}}}}\neccos: {{encoder: static}}\n"
    )
    return load_config(file)


def test_a_model_of_the_file_costs_what_its_context_costs(tmp_path: Path) -> None:
    config = load(tmp_path, "usd_per_gpu_hour: 3.6, gpu: h100, architecture: llama-3-8b, max_input_tokens: 32768")
    [model] = config.models
    price = model.context_price
    assert price is not None
    assert price.contexts[-1] == 32_768
    assert model.usd_per_output_token == pytest.approx(float(price.output_usd(1024, 1)), rel=1e-3)
    short, long = (float(model.call_usd(tokens, 100)) for tokens in (1000, 30_000))
    assert long > 40 * short  # 30 times the tokens, at a higher price
    # the optimizer's matrix, the budget's bound and the bill of the call agree
    matrix = cost_usd([model], np.array([1000.0, 30_000.0]), np.array([[100.0], [100.0]]))
    assert matrix[:, 0].tolist() == pytest.approx([short, long])
    request = Request.of("hi", parameters={"max_tokens": 100})
    assert worst_usd(model, request, 30_000) == pytest.approx(long)
    record = CallRecord(model, request, config.pool[0].deployments[0], 0.0)
    assert not record.priced_by_litellm()


def test_max_concurrency_bounds_the_batch_and_so_the_price(tmp_path: Path) -> None:
    info = "usd_per_gpu_hour: 3.6, gpu: h100, architecture: llama-3-8b"
    [alone] = load(tmp_path, info + ", max_concurrency: 1").models
    [many] = load(tmp_path, info + ", max_concurrency: 64").models
    assert float(alone.call_usd(1000, 100)) > 5 * float(many.call_usd(1000, 100))


@pytest.mark.parametrize(
    ("info", "place", "says"),
    [
        ("usd_per_gpu_hour: 2", "usd_per_gpu_hour", "needs tokens_per_hour beside it"),
        ("usd_per_gpu_hour: 2, gpu: h100", "usd_per_gpu_hour", "or gpu (such as h100) and architecture"),
        ("usd_per_gpu_hour: 2, gpu: h10, architecture: llama-3-8b", "architecture", "did you mean 'h100'?"),
        ("usd_per_gpu_hour: 2, gpu: h100, architecture: nowhere", "architecture", "or a folder with a config.json"),
        ("usd_per_gpu_hour: 2, gpu: a40, architecture: llama-3-70b", "architecture", "use more shards or another GPU"),
        ("usd_per_gpu_hour: 2, gpu: h100, architecture: llama-3-8b, gpus: 0", "gpus", "must be a whole number >= 1"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, info: str, place: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, info)
    found = [problem for problem in caught.value.problems if problem.place.endswith(f"model_info.{place}")]
    assert len(found) == 1
    assert says in found[0].message


def test_deployments_are_all_priced_alike(tmp_path: Path) -> None:
    file = tmp_path / "eccos.yaml"
    one = "{model_name: m, litellm_params: {model: openai/x}, model_info: {usd_per_gpu_hour: 2, "
    file.write_text(
        f"model_list:\n- {one}gpu: h100, architecture: llama-3-8b}}}}\n- {one}tokens_per_hour: 1e6}}}}\neccos: {{}}\n"
    )
    with pytest.raises(ConfigError, match="price all alike"):
        load_config(file)


def test_a_long_prompt_goes_to_the_model_whose_context_is_cheap() -> None:
    models = [Model("grows", 1e-7, 1e-6, context_price=GROWING), Model("flat", 4e-7, 4e-6)]
    backend = ScriptedBackend({model.name: ["yes"] for model in models}, models)
    router = scripted_router(backend, models, {"": [0.8, 0.8]}, policy=QualityPrice(0.01))
    assert router.complete("short question").model == "grows"
    assert router.complete("word " * 8000).model == "flat"


def test_the_command_prices_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    folder = pocket_path("pocket-large")
    arguments = ["price", str(folder), "--gpu", "a100", "--context", "128,1k", "--usd-per-hour", "2", "--json"]
    assert run(app, arguments) == DONE
    told = json.loads(capsys.readouterr().out)
    assert [each["context"] for each in told["prices"]] == [128, 1024]
    assert told["usd_per_hour"] == 2.0
    assert run(app, ["price", "llama-3-8b", "--gpu", "h100", "--context", "32k"]) == DONE
    assert "32,768" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["llama-3-8b", "--gpu", "h100", "--context", "many"], "must be tokens such as 4096 or 32k"),
        (["llama-3-8b", "--gpu", "h100", "--calibrate"], "Use --gpu this"),
        (["llama-3-8b", "--gpu", "this", "--calibrate"], "is no folder with a config.json"),
        (["lama-3-8b", "--gpu", "h100"], "did you mean 'llama-3-8b'"),
    ],
)
def test_the_command_names_wrong_input(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["price", *arguments]) == YOUR_INPUT
    assert says in capsys.readouterr().err


def test_the_command_measures_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ECCOS_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(measure_speed, "ROWS", (1, 2))
    monkeypatch.setattr(measure_speed, "TRIES", 1)
    assert run(app, ["price", "pocket-small", "--gpu", "this", "--calibrate", "--context", "200", "--json"]) == DONE
    [price] = json.loads(capsys.readouterr().out)["prices"]
    assert price["output_tokens_per_s"] > 100
    info = "usd_per_gpu_hour: 0.5, gpu: this"
    [model] = load(tmp_path, info, model="eccos-local/pocket-small").models
    assert float(model.call_usd(100, 50)) > 0
