"""`eccos quantise` from the command to answers: the printed entries run, and a transformer's variant is its model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file

from eccos_core import Request, Router
from eccos_core.backends.local.model import EngineOptions, load_model
from eccos_core.backends.local.quantise_folder import quantise_folder
from eccos_core.backends.local.quantised import SCHEMES, Scheme
from eccos_core.cli import app
from eccos_core.cli.output import DONE, YOUR_INPUT, run
from eccos_core.config import load_config
from eccos_core.errors import BackendError
from eccos_core.pocket import pocket_path, pool_config_path
from eccos_core.testing import build_tiny_model


def test_the_printed_entries_join_the_pool_and_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["quantise", "pocket-small", "--to", "int8,int4", "--out", str(tmp_path)]) == DONE
    printed = capsys.readouterr()
    assert "pocket-small-int8: " in printed.err
    entries = yaml.safe_load(printed.out)
    assert [entry["model_info"]["assume_like"] for entry in entries] == ["pocket-small"] * 2
    pool = yaml.safe_load(pool_config_path().read_text())["model_list"]
    file = tmp_path / "eccos.yaml"
    file.write_text(yaml.safe_dump({"model_list": pool + entries, "eccos": {"encoder": "static"}}))
    models = {model.name: model for model in load_config(file).models}
    assert models["pocket-small-int8"].usd_per_output_token == models["pocket-small"].usd_per_output_token
    with Router.from_yaml(file) as router:
        assert router.decide("What is the capital of France?").quality_source
        for name in ("pocket-small-int8", "pocket-small-int4"):
            answer = router.backend.complete(name, Request.of("What is the capital of France?"))
            assert answer.text == "Paris"


def test_a_pool_gives_the_name_and_the_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build_tiny_model(tmp_path / "mine")
    file = tmp_path / "eccos.yaml"
    file.write_text(
        f"model_list:\n- model_name: own\n"
        f"  litellm_params: {{model: eccos-local/{folder}, max_batch: 4, api_key: s3cret}}\n"
        "  model_info: {usd_per_gpu_hour: 1.2, tokens_per_hour: 9000000, assumed_quality: 0.5, id: only-once}\n"
    )
    options = ["--to", "int8", "--out", str(tmp_path)]
    assert run(app, ["quantise", str(folder), *options, "--config", str(file), "--json"]) == DONE
    out = capsys.readouterr().out
    assert "s3cret" not in out
    assert json.loads(out)["model_list"] == [
        {
            "model_name": "own-int8",
            "litellm_params": {"model": f"eccos-local/{tmp_path}/mine-int8", "max_batch": 4},
            "model_info": {"usd_per_gpu_hour": 1.2, "tokens_per_hour": 9000000, "assume_like": "own"},
        }
    ]
    assert run(app, ["quantise", str(folder), "--to", "int4", "--out", str(tmp_path)]) == DONE
    assert "Write what a token costs" in capsys.readouterr().err
    other = build_tiny_model(tmp_path / "other")
    assert run(app, ["quantise", str(other), *options, "--config", str(file)]) == YOUR_INPUT
    assert "has no model eccos-local/" in capsys.readouterr().err
    assert not (tmp_path / "other-int8").exists()


@pytest.mark.parametrize(
    ("folder", "error"), [("nothing-here", "there is no folder 'nothing-here'"), (".", "it has no config.json")]
)
def test_a_wrong_folder_is_an_error_of_yours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: str, error: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(app, ["quantise", folder, "--to", "int8"]) == YOUR_INPUT
    assert error in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_transformer_in_int8_has_nearly_its_weights(tmp_path: Path, dtype: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = build_tiny_model(tmp_path / "mine")
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    base.save_pretrained(folder)
    [variant] = quantise_folder(folder, ["int8"], tmp_path)
    loaded = load_model("mine", variant.folder, EngineOptions(device="cpu"))
    found = loaded.model.state_dict()
    assert loaded.end_ids == {2}
    assert found.keys() == base.state_dict().keys()
    for name, weights in base.float().state_dict().items():
        allowed = weights.abs().amax(dim=-1, keepdim=True) / 253 if weights.ndim == 2 else 0.0
        assert bool(((found[name] - weights).abs() <= allowed).all()), name
    ids = torch.tensor([[5, 17, 23, 41, 9]])
    with torch.inference_mode():
        alike = torch.cosine_similarity(base(ids).logits, loaded.model(ids).logits, dim=-1)
    assert bool((alike > 0.98).all())


def test_a_pocket_variant_runs_on_torch_too(tmp_path: Path) -> None:
    [variant] = quantise_folder(pocket_path("pocket-small"), ["int8"], tmp_path)
    loaded = load_model("m", variant.folder, EngineOptions(dtype="float32"))
    assert type(loaded.model).__name__ == "LlamaForCausalLM"
    assert loaded.max_new_tokens == 16


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_kept_codes_give_the_logits_of_expanded_ones(tmp_path: Path, scheme: Scheme) -> None:
    import torch

    [variant] = quantise_folder(build_tiny_model(tmp_path / "mine"), [scheme], tmp_path)
    expanded, kept = (
        load_model("m", variant.folder, EngineOptions(device="cpu", keep_quantised=keep)).model
        for keep in (False, True)
    )
    ids = torch.tensor([[5, 17, 23, 41, 9]])
    with torch.inference_mode():
        torch.testing.assert_close(kept(ids).logits, expanded(ids).logits, rtol=1e-4, atol=1e-4)
    assert not [name for name, array in kept.named_parameters() if array.ndim > 1]
    held = sum(array.nbytes for array in kept.state_dict().values())
    assert held < 0.3 * sum(array.nbytes for array in expanded.state_dict().values())


def test_a_folder_that_is_not_quantised_cannot_be_kept_so() -> None:
    with pytest.raises(BackendError, match="is no variant of `eccos quantise`"):
        load_model("m", pocket_path("pocket-small"), EngineOptions(keep_quantised=True))


def test_a_calibration_changes_int4_alone(tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"id": "q1", "query": "What is 12 + 7?", "reference": 19, "grader": "number"}\n')
    told = ["quantise", "pocket-small", "--to", "int8,int4", "--out"]
    assert run(app, [*told, str(tmp_path / "plain")]) == DONE
    assert run(app, [*told, str(tmp_path / "calibrated"), "--calibrate", str(questions)]) == DONE
    plain, calibrated = (
        {scheme: load_file(tmp_path / made / f"pocket-small-{scheme}" / "quantised.safetensors") for scheme in SCHEMES}
        for made in ("plain", "calibrated")
    )
    changed = {
        scheme: {name for name, array in plain[scheme].items() if (array != calibrated[scheme][name]).any()}
        for scheme in SCHEMES
    }
    assert not changed["int8"]
    assert "model.layers.0.mlp.up_proj.weight.codes" in changed["int4"]
    assert "model.embed_tokens.weight.codes" not in changed["int4"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_folder_for_vllm_is_read_by_transformers_and_by_eccos(tmp_path: Path, scheme: Scheme) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = build_tiny_model(tmp_path / "mine")
    ours, theirs = (
        quantise_folder(folder, [scheme], tmp_path / made, file_format=made)[0]
        for made in ("eccos", "compressed-tensors")
    )
    told = json.loads((theirs.folder / "config.json").read_text())["quantization_config"]
    assert (told["quant_method"], told["format"]) == ("compressed-tensors", "pack-quantized")
    assert told["config_groups"]["group_0"]["weights"]["num_bits"] == (8 if scheme == "int8" else 4)
    assert theirs.share < 0.7  # its embeddings stay floats
    model = AutoModelForCausalLM.from_pretrained(theirs.folder, dtype=torch.float32)
    expanded = load_model("m", ours.folder, EngineOptions(device="cpu")).model
    with torch.inference_mode():
        model(torch.tensor([[5, 17]]))  # it expands its weights when it runs first
    for (name, layer), (_, other) in zip(model.named_modules(), expanded.named_modules(), strict=True):
        if isinstance(layer, torch.nn.Linear) and "lm_head" not in name:
            torch.testing.assert_close(layer.weight, other.weight, rtol=1e-3, atol=1e-5)
    loaded = load_model("m", theirs.folder, EngineOptions(device="cpu"))
    assert loaded.prompt_ids([{"role": "user", "content": "a"}])


def test_a_format_that_is_not_known_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["quantise", "pocket-small", "--to", "int8", "--out", str(tmp_path), "--format", "gguf"]
    assert run(app, told) == YOUR_INPUT
    assert "there are eccos, compressed-tensors" in capsys.readouterr().err
