"""No secret of a configuration is ever shown: not by repr, not by an error, not by `eccos check`, not by pickling."""

import copy
import json
import pickle
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eccos_core.cli import app
from eccos_core.cli.frame import run
from eccos_core.config import load_config
from eccos_core.errors import ConfigError

MARK = "hunter2"  # every secret below contains it
secrets = st.text("abcXYZ019-_./:+=@ é'\"\\", max_size=12).map(lambda text: f"{MARK}{text}{MARK}")
secret_keys = st.sampled_from(
    ["api_key", "api_base", "organization", "aws_secret_access_key", "azure_ad_token", "vertex_credentials", "anything"]
)
values = st.recursive(
    secrets,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["Authorization", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)
wrong = st.sampled_from(
    [
        {},
        {"rpm": "os.environ/SECRET"},
        {"model": "os.environ/SECRET"},
        {"input_cost_per_token": "os.environ/SECRET"},
        {"tags": "os.environ/SECRET"},
        {"weight": ["os.environ/SECRET"]},
        {"max_parallel_requests": 0},
        {"api_base": "os.environ/UNSET"},
        {"extra_headers": {"key": ["os.environ/SECRET"]}},
        {"custom_llm_provider": "os.environ/SECRET"},
    ]
)
ours = st.sampled_from(
    [
        {},
        {"polcy": MARK},
        {"policy": MARK},
        {"history": MARK},
        {"history": {"url": f"https://me:{MARK}@host"}},
        {"history": {"url": "https://host", "headers": {"token": "os.environ/SECRET"}}},
        {"history": {"url": "https://host", "headers": {"token": MARK}}},
        {"history": {"url": "https://host", "headers": {"token": [MARK]}}},
        {"tenants": MARK},
        {"groups": [MARK]},
    ]
)


@given(
    parameters=st.dictionaries(secret_keys, values, max_size=3),
    wrong=wrong,
    ours=ours,
    settings_of_litellm=st.dictionaries(st.sampled_from(["general_settings", "environment_variables"]), values),
    from_environment=secrets,
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_secret_is_shown_by_repr_errors_or_check(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    parameters: dict[str, Any],
    wrong: dict[str, Any],
    ours: dict[str, Any],
    settings_of_litellm: dict[str, Any],
    from_environment: str,
) -> None:
    file = tmp_path / "eccos.yaml"
    entry = {"model_name": "m", "litellm_params": {"model": "openai/x", **parameters, **wrong}}
    entry["model_info"] = {"free": True, "note": MARK, **({"tokens": parameters} if parameters else {})}
    file.write_text(json.dumps({"model_list": [entry], "eccos": ours, **settings_of_litellm}))
    monkeypatch.setenv("SECRET", from_environment)
    monkeypatch.delenv("UNSET", raising=False)
    try:
        config = load_config(file)
        told = repr(config) + str(config) + repr(config.litellm_sections) + repr(config.pool[0].deployments)
        assert set(parameters) <= set(config.pool[0].deployments[0].parameters) | set(wrong)
    except ConfigError as error:
        told = str(error) + repr(error) + repr(error.problems)
    for options in ([], ["--json"]):
        run(app, ["check", str(file), *options])
        captured = capsys.readouterr()
        told += captured.out + captured.err
    assert MARK not in told


def test_what_yaml_complains_about_is_not_quoted(tmp_path: Path) -> None:
    for text in (
        f"a: *{MARK}",
        f"a: !{MARK} b",
        f"a: &x{MARK} [1]\nb: &x{MARK} [2]\nc: [",
        f'a: "{MARK}',
        f"{MARK}: [}}",
    ):
        (tmp_path / "eccos.yaml").write_text(text)
        with pytest.raises(ConfigError) as raised:
            load_config(tmp_path / "eccos.yaml")
        assert MARK not in str(raised.value)


@pytest.fixture
def config(tmp_path: Path):
    (tmp_path / "eccos.yaml").write_text(
        "model_list: [{model_name: m, litellm_params: {model: gpt-4o, api_key: hunter2}}]\n"
        "general_settings: {master_key: hunter2}\n"
    )
    return load_config(tmp_path / "eccos.yaml")


def test_a_configuration_cannot_be_pickled_or_copied_deeply(config) -> None:
    deployment = config.pool[0].deployments[0]
    for secret_holder in (config, deployment, deployment.parameters, config.litellm_sections):
        with pytest.raises(TypeError, match="holds secrets and is never pickled"):
            pickle.dumps(secret_holder)
        with pytest.raises(TypeError, match="holds secrets and is never pickled"):
            copy.deepcopy(secret_holder)
    with pytest.raises(TypeError, match="holds secrets and is never pickled"):
        asdict(config)


def test_a_configuration_can_still_be_changed_in_one_field(config) -> None:
    assert replace(config, warnings=("a",)).pool == config.pool


def test_parameters_are_a_mapping_that_nobody_can_change(config) -> None:
    parameters = config.pool[0].deployments[0].parameters
    assert dict(parameters) == {"model": "gpt-4o", "api_key": "hunter2"}
    assert repr(parameters) == "{'model': 'gpt-4o', 'api_key': ***}"
    with pytest.raises(TypeError):
        parameters["api_key"] = "other"
