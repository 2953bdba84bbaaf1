"""A request that cannot be sent, or that would leave the pool, is refused before anything is decided."""

from __future__ import annotations

import datetime as dt
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from eccos_core.domain import Model, Request
from eccos_core.errors import FailureKind, RequestError
from eccos_core.router import Router
from eccos_core.routing.call_parameters import OPENAI_PARAMETERS, litellm_parameters, refused_parameters
from eccos_core.routing.request_check import DEEPEST, check_request
from eccos_core.testing import ScriptedBackend, scripted_router

HALF = json.loads('"Summarise this: \\ud83d"')
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


class Answer(BaseModel):
    text: str


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


BAD_MESSAGES = [
    ({"role": "user", "content": HALF}, r"messages\[0\]\.content has half a character \(surrogate U\+D83D at position"),
    ({"role": "user", "content": 5}, r"messages\[0\]\.content is of the type int"),
    ({"role": "user", "content": b"hi"}, r"messages\[0\]\.content is of the type bytes"),
    ({"role": "user", "content": {"type": "text"}}, "must be a text or a list of parts"),
    ({"role": "user", "content": ["hi"]}, r"content\[0\] is of the type str, must be a mapping with a 'type'"),
    ({"role": "user", "content": [{"type": "text", "text": 5}]}, r"content\[0\]\.text is of the type int"),
    ({"role": "user", "content": [{"type": "text", "text": HALF}]}, r"content\[0\]\.text has half a character"),
    ({"role": "user", "content": [{"type": "image_url"}]}, r"image_url has no 'url'"),
    ({"role": 5, "content": "hi"}, r"messages\[0\]\.role is of the type int"),
    ({"role": "user", "content": "hi", "name": {1: 2}}, "has the key 1, keys must be text"),
    ({"role": "assistant", "content": None, "tool_calls": [object()]}, r"tool_calls\[0\] is of the type object"),
]


@pytest.mark.parametrize(("message", "said"), BAD_MESSAGES)
def test_a_message_that_cannot_be_sent_is_named(message: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        check_request(Request(messages=(message,)))
    assert caught.value.kind is FailureKind.BAD_REQUEST


BAD_PARAMETERS = [
    ("temperature", float("nan"), "temperature is nan, must be a finite number"),
    ("top_p", float("inf"), "top_p is inf"),
    ("temperature", "hot", "temperature is of the type str, must be a number"),
    ("temperature", True, "temperature is of the type bool, must be a number"),
    ("n", "x", "n is of the type str, must be a whole number"),
    ("max_tokens", 10**30, "more than 64 bits"),
    ("stop", 5, "stop is of the type int"),
    ("stop", ["a", 5], r"stop is \['a', 5\]"),
    ("timeout", "abc", "timeout is of the type str"),
    ("timeout", 0, "timeout is 0 seconds, must be more than 0"),
    ("timeout", -1.5, "timeout is -1.5 seconds"),
    ("tools", [object()], r"tools\[0\] is of the type object, which is no JSON"),
    ("tools", ["f"], "tools holds something that is no mapping"),
    ("extra_body", {"x": b"1"}, r"extra_body\.x is of the type bytes"),
    ("metadata", {"at": dt.datetime(2026, 1, 1)}, r"metadata\.at is of the type datetime"),  # noqa: DTZ001
    ("metadata", {"deep": nested(DEEPEST)}, f"nested more than {DEEPEST} deep"),
    ("metadata", {HALF: 1}, "a key of metadata has half a character"),
    ("extra_headers", {"X-A": "a\r\nB: c"}, "bad header 'X-A'"),
    ("extra_headers", {"X-A": "ü€"}, "bad header 'X-A'"),
    ("extra_headers", {"X A": "a"}, "bad header 'X A'"),
    ("extra_headers", {"X-A": 5}, "bad header 'X-A'"),
    ("response_format", int, "response_format is of the type type"),
    ("top_k", {1, 2}, "top_k is of the type set"),
]


@pytest.mark.parametrize(("name", "value", "said"), BAD_PARAMETERS)
def test_a_parameter_that_cannot_be_sent_is_named(name: str, value: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        check_request(Request.of("hi", parameters={name: value}))


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": 0, "max_tokens": None, "stop": "END", "seed": 2**63, "n": 2, "logprobs": True},
        {"tools": [TOOL], "tool_choice": "auto", "response_format": Answer, "logit_bias": {"5": -100}},
        {"top_k": 40, "min_p": 0.05, "guided_json": {"type": "object"}, "thinking": {"type": "enabled"}},
        {"extra_headers": {"X-Trace": "a b"}, "extra_body": {"provider": {"order": ["x"]}}, "timeout": 0.5},
    ],
)
def test_what_openai_and_other_servers_take_passes(parameters: dict[str, Any]) -> None:
    request = Request.of([{"role": "user", "content": "grüße 🎉 你好"}], parameters=parameters)
    assert check_request(request) is request


STEERING = [
    "fallbacks", "context_window_fallbacks", "context_window_fallback_dict", "api_base", "base_url", "api_key",
    "model_list", "mock_response", "mock_tool_calls", "retry_policy", "retry_strategy", "num_retries", "max_retries",
    "custom_llm_provider", "deployment_id", "headers", "client", "api_version", "organization", "drop_params",
    "aws_bedrock_runtime_endpoint", "aws_access_key_id", "azure_ad_token", "vertex_credentials", "oci_key",
    "litellm_credential_name",
    "sagemaker_base_url", "gigachat_auth_url", "input_cost_per_token", "rpm", "tags", "cache", "guardrails", "device",
    "success_callback", "callbacks", "logger_fn", "_litellm_addressed_response_id", "model", "messages", "stream",
]  # fmt: skip


@pytest.mark.parametrize("name", STEERING)
def test_what_would_steer_the_call_past_the_router_is_refused_by_name(name: str) -> None:
    with pytest.raises(RequestError, match=rf"call parameters {name} would steer.*eccos\.allowed_call_params"):
        check_request(Request.of("hi", parameters={name: "x"}))


@pytest.mark.parametrize("header", ["Authorization", "api-key", "X-Api-Key", "Cookie", "Host", "x-goog-api-key"])
def test_headers_with_credentials_and_a_body_with_a_model_are_refused(header: str) -> None:
    assert refused_parameters({"extra_headers": {header: "x", "X-Ok": "y"}}, frozenset()) == [f"extra_headers.{header}"]
    assert refused_parameters({"extra_body": {"model": "x", "top_k": 1}}, frozenset()) == ["extra_body.model"]


def test_the_configuration_allows_parameters_one_by_one() -> None:
    request = Request.of("hi", parameters={"api_base": "http://x", "extra_headers": {"Authorization": "x"}})
    assert check_request(request, frozenset({"api_base", "extra_headers"})) is request
    with pytest.raises(RequestError, match=r"extra_headers\.Authorization"):
        check_request(request, frozenset({"api_base"}))
    assert refused_parameters({"model": "x"}, frozenset({"model"})) == ["model"], "nobody may choose past the router"


def test_the_lists_fit_the_installed_litellm() -> None:
    """Every name that LiteLLM's signature, lists and sources know is OpenAI's, refused, or known to be harmless."""
    litellm = pytest.importorskip("litellm")
    standard = set(litellm.constants.DEFAULT_CHAT_COMPLETION_PARAM_VALUES)
    steering = {
        "model", "messages", "stream", "custom_llm_provider", "max_retries", "api_version", "drop_params",
        "allowed_openai_params", "additional_drop_params",
    }  # fmt: skip
    assert standard - steering <= OPENAI_PARAMETERS, "LiteLLM knows a new OpenAI parameter: give it a type"
    assert steering <= litellm_parameters()
    assert set(inspect.signature(litellm.completion).parameters) - OPENAI_PARAMETERS <= litellm_parameters()
    sources = "".join(Path(inspect.getfile(module)).read_text() for module in (litellm.main, litellm.utils))
    read = set(re.findall(r"kwargs(?:\.get|\.pop)?[(\[]\s*[\"']([\w-]+)[\"']", sources))
    harmless = {  # of other calls than chat completions, or sent to the server as they are
        "acreate_batch", "acreate_fine_tuning_job", "amoderation", "arerank", "aresponses", "aspeech", "atranscription",
        "contents", "document", "file", "input", "prompt", "query", "session_id", "top_k", "top_n_tokens",
    }  # fmt: skip
    known = OPENAI_PARAMETERS | harmless
    passed = {name for name in read - known if not refused_parameters({name: "x"}, frozenset())}
    assert not passed, "LiteLLM obeys these, and a caller may give them"


@pytest.mark.parametrize("way", ["complete", "acomplete", "stream", "decide", "route", "complete_batch"])
async def test_no_model_is_asked_no_slot_held_and_no_failure_counted(way: str) -> None:
    backend = ScriptedBackend({"m": ["fine"]})
    router: Router = scripted_router(backend, (Model("m", 1e-6, 1e-6),), {"": [0.5]})
    asked = ["fine", HALF] if way in ("route", "complete_batch") else HALF

    async def ask() -> None:
        result = getattr(router, way)(asked)
        if way == "acomplete":
            await result
        elif way == "stream":
            next(result)

    with pytest.raises(RequestError, match="half a character"):
        await ask()
    status = router.status().workload.models[0]
    assert (backend.calls, status.in_flight, status.calls, status.failures) == ([], 0, 0, 0)
    assert router.complete("fine").text == "fine"


@pytest.mark.parametrize("deadline_s", [-1.0, float("nan")])
def test_a_wait_that_makes_no_sense_is_refused(deadline_s: float) -> None:
    with pytest.raises(RequestError, match="deadline_s"):
        Request.of("hi", deadline_s=deadline_s)


@pytest.mark.parametrize("way", ["complete_batch", "acomplete_batch"])
async def test_one_bad_request_of_a_batch_has_its_error_in_its_place(way: str) -> None:
    backend = ScriptedBackend({"m": ["fine"]})
    router: Router = scripted_router(backend, (Model("m", 1e-6, 1e-6),), {"": [0.5]})
    asked = ["one", HALF, "", Request.of("two", deny=frozenset({"m"})), "three"]
    answered = getattr(router, way)(asked, return_exceptions=True)
    results = await answered if way == "acomplete_batch" else answered
    kinds = [getattr(result, "text", type(result).__name__) for result in results]
    assert kinds == ["fine", "RequestError", "RequestError", "NoEligibleModelError", "fine"]
    assert len(backend.calls) == 2
    assert router.status().workload.in_flight == 0
