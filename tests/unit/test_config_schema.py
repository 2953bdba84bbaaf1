"""The JSON schema of the configuration file: shipped, complete, and of one mind with `load_config`."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from eccos_core.cli import app
from eccos_core.cli.output import DONE, YOUR_INPUT, run
from eccos_core.config import Config, load_config
from eccos_core.config.json_schema import MODEL_INFO, SCHEMA_FILE, build_schema, render_schema
from eccos_core.config.parse_model import CAPABILITY_KEYS, OUR_KEYS
from eccos_core.config.parse_price import KEYS as PRICE_KEYS
from eccos_core.config.schema import EccosSection
from eccos_core.pocket import pool_config_path

EXAMPLES = Path(__file__).parents[2] / "examples" / "configs"
MODEL = {"model_name": "small", "litellm_params": {"model": "openai/x"}, "model_info": {"free": True, "tags": ["eu"]}}
SECTIONS = list(EccosSection.model_fields)


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


def document(**section: Any) -> dict[str, Any]:
    return {"model_list": [MODEL], "eccos": section}


def load(folder: Path, value: dict[str, Any], name: str = "eccos.yaml") -> Config:
    (folder / name).write_text(yaml.safe_dump(value))
    return load_config(folder / name, environment={"CHROMA_TOKEN": "t"})


def examples_of(key: str) -> list[Any]:
    extra = EccosSection.model_fields[key].json_schema_extra
    assert isinstance(extra, dict)
    examples = extra["examples"]
    assert isinstance(examples, list)
    return examples


def test_the_shipped_schema_is_what_the_models_say() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == render_schema()


def test_the_schema_is_a_schema_of_its_draft() -> None:
    schema = build_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("file", [*sorted(EXAMPLES.glob("*.yaml")), pool_config_path()], ids=lambda file: file.name)
def test_every_sample_configuration_is_valid(validator: Draft202012Validator, file: Path) -> None:
    assert [error.message for error in validator.iter_errors(yaml.safe_load(file.read_text()))] == []


def test_a_file_without_our_section_and_with_litellms_is_valid(validator: Draft202012Validator) -> None:
    assert validator.is_valid({"model_list": [MODEL], "router_settings": {"a": 1}, "eccos": None})


@pytest.mark.parametrize(
    "wrong",
    [
        {"model_list": [{"model_name": "m"}]},
        {"model_list": [{"model_name": "m", "litellm_params": {}}]},
        {"model_list": [{**MODEL, "model_info": {"assumed_quality": 2}}]},
        {"eccos": {}},
        document(polcy={}),
        document(policy={"quality_flor": 0.5}),
        document(policy={"quality_floor": 0.5, "budget_usd": 1}),
        document(policy={}),
        document(stream={"window_ms": 51}),
        document(stream={"usd_per_hour": 1, "usd_per_day": 1}),
        document(stream={"floor_insurance": "seen"}),
        document(encoder={"kind": "static", "dimension": 3}),
        document(encoder={"model": "minilm"}),
        document(predictor={"kind": "prior", "neighbours": 3}),
        document(predictor="hybird"),
        document(history={}),
        document(history="chroma"),
        document(groups=[{"at_least": 0.5}]),
        document(workload={"queue_length": 1.5}),
        document(telemetry={"enabled": 1}),
        document(tenants={"a": {"floor": 1}}),
    ],
    ids=str,
)
def test_a_wrong_file_is_refused(validator: Draft202012Validator, wrong: dict[str, Any]) -> None:
    assert not validator.is_valid(wrong)


SERVED = {
    "model_name": "served",
    "litellm_params": {"model": "hosted_vllm/served", "api_base": "http://localhost:8000/v1"},
    "model_info": {"free": True},
}


@pytest.mark.parametrize("key", SECTIONS)
def test_every_example_is_valid_and_loads(validator: Draft202012Validator, tmp_path: Path, key: str) -> None:
    assert examples_of(key)
    (tmp_path / "template.jinja").write_text("")
    for example in examples_of(key):
        assert [error.message for error in validator.iter_errors(document(**{key: example}))] == []
        file = document(**{key: example})
        file["model_list"] = [*file["model_list"], SERVED] if key == "stop_early" else file["model_list"]
        load(tmp_path, file)


@pytest.mark.parametrize("key", SECTIONS)
def test_the_default_in_the_schema_is_the_default(tmp_path: Path, key: str) -> None:
    rule = build_schema()["$defs"]["EccosSection"]["properties"][key]
    if "default" in rule:
        written = load(tmp_path, document(**{key: rule["default"]}))
        assert getattr(written, key) == getattr(load(tmp_path, {"model_list": [MODEL]}), key)


def test_every_key_is_described() -> None:
    for name, definition in build_schema()["$defs"].items():
        for key, rule in definition["properties"].items():
            assert rule.get("description"), f"{name}.{key}"


def test_every_key_of_model_info_that_we_read_is_in_the_schema() -> None:
    assert {*OUR_KEYS, *CAPABILITY_KEYS.values(), *PRICE_KEYS} <= set(MODEL_INFO)


# ------------------------------------------------------------------ eccos schema


def test_the_command_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["schema"]) == DONE
    captured = capsys.readouterr()
    assert captured.out == SCHEMA_FILE.read_text(encoding="utf-8")
    assert captured.err == ""


def test_the_command_writes_the_schema_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "schema.json"
    assert run(app, ["schema", "--out", str(out), "--json"]) == DONE
    assert json.loads(capsys.readouterr().out) == {"file": str(out)}
    assert out.read_text(encoding="utf-8") == SCHEMA_FILE.read_text(encoding="utf-8")
    assert [file.name for file in out.parent.iterdir()] == ["schema.json"]


def test_a_file_that_cannot_be_written_is_your_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(app, ["schema", "--out", str(tmp_path / "file" / "schema.json")]) == YOUR_INPUT
    assert "cannot be written" in capsys.readouterr().err
