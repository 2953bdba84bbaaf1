"""A parameter that only some models take narrows the pool, and never fails a request that another model can serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from eccos_core.backends import LiteLLMBackend, LocalBackend, PerModelBackend, RetryingBackend
from eccos_core.config.schema import Deployment
from eccos_core.domain import Model, Request
from eccos_core.errors import AttemptsExhausted, BackendError, ExclusionKind, NoEligibleModelError
from eccos_core.protocols import unsupported_parameters
from eccos_core.testing import ScriptedBackend, scripted_router

POOL = tuple(
    Model(name, price, price) for name, price in (("one", 1e-6), ("two", 2e-6), ("three", 3e-6), ("own", 9e-6))
)
NAMES = [model.name for model in POOL]


class Choosy(ScriptedBackend):
    """Only the dearest model takes a seed."""

    def unsupported_parameters(self, model: str, parameters: Mapping[str, Any]) -> frozenset[str]:
        return frozenset() if model == "own" else frozenset({"seed"} & parameters.keys())


def test_the_only_model_that_takes_a_parameter_answers_however_dear() -> None:
    backend = Choosy({name: [name] for name in NAMES})
    router = scripted_router(RetryingBackend(backend), POOL, {"": [0.9, 0.9, 0.9, 0.5]})
    assert router.complete("hi", seed=1).text == "own"
    assert router.complete("hi").text == "one"
    assert [model for model, _ in backend.calls] == ["own", "one"]


def test_where_no_model_takes_it_the_error_says_so_for_each() -> None:
    backend = Choosy({name: [name] for name in NAMES})
    router = scripted_router(backend, POOL, {"": [0.9, 0.9, 0.9, 0.5]})
    with pytest.raises(NoEligibleModelError, match="one: does not take the parameter seed") as caught:
        router.complete(Request.of("hi", deny=frozenset({"own"})), seed=1)
    assert caught.value.exclusions["one"].kind is ExclusionKind.PARAMETERS


def test_a_refusal_that_nobody_foresaw_goes_to_the_next_model() -> None:
    refused = BackendError("one", "temperature must be 1", kind="unsupported")
    backend = ScriptedBackend({"one": [refused], "two": ["fine"], "three": ["no"], "own": ["no"]})
    router = scripted_router(RetryingBackend(backend), POOL, {"": [0.9, 0.8, 0.7, 0.5]})
    assert router.complete("hi", temperature=0.5).text == "fine"
    assert len(backend.calls) == 2
    only_one = Request.of("hi", allow=frozenset({"one"}))
    with pytest.raises(AttemptsExhausted):
        router.complete(only_one)


def litellm_backend(**parameters: Any) -> LiteLLMBackend:
    pytest.importorskip("litellm")
    ways = {
        "claude": [Deployment("anthropic/claude-haiku-4-5", {"api_key": "x", **parameters})],
        "mixed": [Deployment("openai/x", {}), Deployment("anthropic/claude-haiku-4-5", {})],
        "own": [Deployment("openai/whatever", {"api_base": "http://127.0.0.1:9"})],
        "nobody": [Deployment("nobody-knows/this", {})],
    }
    return LiteLLMBackend(ways, [Model(name, 0.0, 0.0) for name in ways])


@pytest.mark.parametrize("name", ["frequency_penalty", "presence_penalty", "seed", "logit_bias", "logprobs", "n"])
def test_litellm_says_what_a_provider_takes(name: str) -> None:
    backend = RetryingBackend(litellm_backend())
    refused = {way: unsupported_parameters(backend, way, {name: 2}) for way in ("claude", "mixed", "own", "nobody")}
    assert refused == {"claude": {name}, "mixed": {name}, "own": set(), "nobody": set()}


def test_what_every_provider_takes_and_what_is_not_given_narrows_nothing() -> None:
    taken = {"temperature": 0, "max_tokens": 5, "user": "me", "n": 1, "seed": None, "top_k": 3, "timeout": 5}
    assert unsupported_parameters(litellm_backend(), "claude", taken) == set()


def test_drop_params_and_allowed_openai_params_are_honoured() -> None:
    assert unsupported_parameters(litellm_backend(drop_params=True), "claude", {"seed": 1, "n": 2}) == set()
    assert unsupported_parameters(litellm_backend(allowed_openai_params=["seed"]), "claude", {"seed": 1}) == set()


def test_local_models_and_a_mixed_pool_say_it_too() -> None:
    models = [Model("pocket", 0.0, 0.0), Model("own", 0.0, 0.0)]
    local = LocalBackend({"pocket": "pocket-tiny"}, models)
    both = PerModelBackend({"pocket": local, "own": ScriptedBackend({"own": ["x"]})})
    given = {"temperature": 0, "logprobs": True, "logit_bias": {}, "timeout": 3, "metadata": {}, "tools": None}
    assert unsupported_parameters(both, "pocket", given) == {"logit_bias"}
    assert unsupported_parameters(both, "own", given) == set()
