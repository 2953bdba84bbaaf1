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
from eccos_core.cli.output import run
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
FROM_ENVIRONMENT = [
    {"rpm": "os.environ/SECRET"},
    {"model": "os.environ/SECRET"},
    {"model": "os.environ/SECRET", "input_cost_per_token": 1e-6},
    {"input_cost_per_token": "os.environ/SECRET"},
    {"tags": "os.environ/SECRET"},
    {"tags": ["os.environ/SECRET"]},
    {"region_name": "os.environ/SECRET"},
    {"mode": "os.environ/SECRET"},
    {"litellm_credential_name": "os.environ/SECRET"},
    {"weight": ["os.environ/SECRET"]},
    {"custom_llm_provider": "os.environ/SECRET"},
    {"base_model": "os.environ/SECRET"},
    {"max_parallel_requests": 0, "api_key": "os.environ/SECRET"},
    {"api_base": "os.environ/UNSET", "api_key": MARK},
    {"extra_headers": {"key": ["os.environ/SECRET"]}},
]
OURS = [
    {"polcy": MARK},
    {"policy": MARK},
    {"history": MARK},
    {"history": {"url": f"https://me:{MARK}@host"}},
    {"history": {"url": f"https://host?token={MARK}"}},
    {"history": {"url": "https://host", "headers": {"token": "os.environ/SECRET"}}},
    {"history": {"url": "https://host", "headers": {"token": MARK}}},
    {"history": {"url": "https://host", "headers": {"token": [MARK]}}},
    {"tenants": MARK},
    {"groups": [MARK]},
]


@pytest.fixture
def told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """All that anybody can see of a file: repr, errors, and both outputs of `eccos check`."""

    def told_of(document: dict[str, Any], secret: str = MARK) -> str:
        monkeypatch.setenv("SECRET", secret)
        monkeypatch.delenv("UNSET", raising=False)
        file = tmp_path / "eccos.yaml"
        file.write_text(json.dumps(document))
        try:
            config = load_config(file)
            told = repr(config) + str(config) + repr(config.pool[0].deployments)
        except ConfigError as error:
            told = str(error) + repr(error) + repr(error.problems)
        for options in ([], ["--json"]):
            run(app, ["check", str(file), *options])
            captured = capsys.readouterr()
            told += captured.out + captured.err
        return told

    return told_of


def pool_of(parameters: dict[str, Any]) -> dict[str, Any]:
    info = {"free": True, "note": MARK, "more": {"token": MARK}}
    return {
        "model_list": [{"model_name": "m", "litellm_params": {"model": "openai/x", **parameters}, "model_info": info}]
    }


@pytest.mark.parametrize("parameters", FROM_ENVIRONMENT, ids=str)
def test_what_comes_from_the_environment_is_never_shown(told_of, parameters: dict[str, Any]) -> None:
    assert MARK not in told_of(pool_of(parameters))


@pytest.mark.parametrize("ours", OURS, ids=str)
def test_a_secret_at_a_wrong_place_is_not_repeated(told_of, ours: dict[str, Any]) -> None:
    assert MARK not in told_of({**pool_of({}), "eccos": ours})


@given(
    parameters=st.dictionaries(secret_keys, values, max_size=3),
    litellm=st.dictionaries(st.sampled_from(["general_settings", "environment_variables"]), values),
    wrong=st.sampled_from([{}, *FROM_ENVIRONMENT]),
    secret=secrets,
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_secret_is_shown_whatever_its_form_and_place(
    told_of, parameters: dict[str, Any], litellm: dict[str, Any], wrong: dict[str, Any], secret: str
) -> None:
    assert MARK not in told_of({**pool_of({**parameters, **wrong}), **litellm}, secret)


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
    for secret_holder in (config, deployment, deployment.parameters):
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
