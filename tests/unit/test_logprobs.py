"""Log-probabilities: asked for where a model gives them, and those of a local model against a forward pass."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from eccos_core.backends import LiteLLMBackend, LocalBackend
from eccos_core.backends.local.numpy_llama import load_numpy_llama
from eccos_core.backends.logprobs import LogprobBackend, with_logprobs
from eccos_core.domain import Completion, Model, Request
from eccos_core.errors import BackendError, FailureKind
from eccos_core.pocket import pocket_path
from eccos_core.protocols import gives_logprobs
from eccos_core.testing import ScriptedBackend

MODEL = Model("m", 1e-6, 2e-6)
REQUEST = Request.of("What is 12 + 30?")
TOLD = {"content": [{"token": "4", "logprob": -0.1}]}


class Giving(ScriptedBackend):
    """A scripted backend whose models are said to give log-probabilities."""

    def gives_logprobs(self, model: str) -> bool:
        return True


def refusing(message: str, kind: FailureKind = FailureKind.BAD_REQUEST) -> Giving:
    def answer(request: Request) -> str:
        if request.parameters.get("logprobs"):
            raise BackendError("m", message, kind=kind)
        return "42"

    return Giving({"m": [answer]})


def asked(backend: ScriptedBackend) -> list[bool]:
    return [bool(request.parameters.get("logprobs")) for _, request in backend.calls]


def test_a_backend_that_does_not_say_is_not_asked() -> None:
    assert with_logprobs(REQUEST, "m", ScriptedBackend({"m": ["42"]})) is REQUEST
    assert with_logprobs(REQUEST, "m", Giving({"m": ["42"]})).parameters == {"logprobs": True}
    refused = REQUEST.with_parameters({"logprobs": False})
    assert with_logprobs(refused, "m", Giving({"m": ["42"]})) is refused


@pytest.mark.parametrize("message", ["logprobs is not supported with this model", "unknown field"])
def test_a_provider_that_refuses_is_called_again_without_and_remembered(message: str) -> None:
    behind = refusing(message)
    backend = LogprobBackend(behind)
    assert backend.complete("m", REQUEST).text == "42"
    assert asyncio.run(backend.acomplete("m", REQUEST)).text == "42"
    assert asked(behind) == [True, False, False]
    assert backend.refusing == {"m"}
    assert not backend.gives_logprobs("m")


def test_streams_are_called_again_too_and_no_piece_comes_twice() -> None:
    behind = refusing("no logprobs here")
    backend = LogprobBackend(behind)
    assert "".join(chunk.text for chunk in backend.stream("m", REQUEST)) == "42"
    assert asked(behind) == [True, False]

    async def read() -> str:
        return "".join([chunk.text async for chunk in LogprobBackend(refusing("no logprobs")).astream("m", REQUEST)])

    assert asyncio.run(read()) == "42"


def test_a_request_that_is_bad_in_itself_raises_and_is_held_against_no_model() -> None:
    behind = Giving({"m": [BackendError("m", "messages is empty", kind=FailureKind.BAD_REQUEST)]})
    backend = LogprobBackend(behind)
    with pytest.raises(BackendError, match="messages is empty"):
        backend.complete("m", REQUEST)
    assert backend.refusing == frozenset()


def test_a_failure_of_the_provider_is_no_refusal() -> None:
    behind = Giving({"m": [BackendError("m", "busy", kind=FailureKind.RATE_LIMIT)]})
    with pytest.raises(BackendError, match="busy"):
        LogprobBackend(behind).complete("m", REQUEST)
    assert asked(behind) == [True]


@pytest.mark.parametrize("told", [TOLD, None])  # a server may take the parameter and tell none
def test_a_model_that_took_it_once_is_not_suspected_of_another_bad_request(told: Any) -> None:
    answer = Completion("42", "m", 1, 1, 0.0, 0.0, logprobs=told)
    behind = Giving({"m": [answer, BackendError("m", "too many images", kind=FailureKind.BAD_REQUEST)]})
    backend = LogprobBackend(behind)
    backend.complete("m", REQUEST)
    with pytest.raises(BackendError, match="too many images"):
        backend.complete("m", REQUEST)
    assert asked(behind) == [True, True]


@pytest.mark.parametrize(
    ("litellm_model", "gives"),
    [
        ("openai/gpt-4o-mini", True),
        ("openai/o3-mini", False),
        ("anthropic/claude-sonnet-4-5", False),
        ("hosted_vllm/qwen", True),
        ("eccos-local/pocket-small", True),
    ],
)
def test_litellm_says_which_models_give_them(litellm_model: str, gives: bool) -> None:
    assert gives_logprobs(LiteLLMBackend({"m": litellm_model}, [MODEL]), "m") is gives


# ------------------------------------------------------------------------------------------------------ local models


def direct_logprobs(name: str, completion: Completion, question: str) -> list[float]:
    """The log-probability of each token of an answer, by one forward pass for each, without any cache."""
    model, tokenizer, _ = load_numpy_llama(pocket_path(name))
    text = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = []
    assert completion.logprobs is not None
    for entry in completion.logprobs["content"]:
        positions = np.arange(len(ids))[None]
        logits, _ = model.forward(np.array([ids]), positions, np.ones((1, len(ids)), dtype=bool), None)
        exact = logits[0].astype(np.float64)
        exact -= np.log(np.exp(exact - exact.max()).sum()) + exact.max()
        same = [token for token in range(len(exact)) if tokenizer.decode([token]) == entry["token"]]
        best = max(same, key=lambda token: exact[token])
        found.append(float(exact[best]))
        ids = [*ids, best]
    return found


@pytest.mark.parametrize("name", ["pocket-small", "pocket-large"])
def test_a_local_model_tells_the_log_probabilities_of_its_tokens(name: str) -> None:
    backend = LocalBackend({"m": name}, [MODEL])
    question = "What is 417 + 68?"
    request = Request.of(question, parameters={"logprobs": True, "temperature": 0, "max_tokens": 12})
    completion = backend.complete("m", request)
    assert completion.logprobs is not None
    told = [entry["logprob"] for entry in completion.logprobs["content"]]
    assert "".join(entry["token"] for entry in completion.logprobs["content"]).strip() == completion.text
    np.testing.assert_allclose(told, direct_logprobs(name, completion, question), atol=1e-4)
    *_, last = backend.stream("m", request)
    assert last.completion is not None
    streamed: Any = last.completion.logprobs
    np.testing.assert_allclose([entry["logprob"] for entry in streamed["content"]], told, atol=1e-5)


def test_a_local_model_that_is_not_asked_tells_none_beside_one_that_is() -> None:
    backend = LocalBackend({"m": "pocket-small"}, [MODEL])

    async def ask(parameters: Mapping[str, Any]) -> Completion:
        return await backend.acomplete("m", REQUEST.with_parameters({"temperature": 0, **parameters}))

    async def both() -> list[Completion]:
        return await asyncio.gather(ask({}), ask({"logprobs": True}))

    quiet, telling = asyncio.run(both())
    assert quiet.logprobs is None
    assert telling.logprobs is not None
    assert quiet.text == telling.text


def test_a_local_model_refuses_logprobs_that_are_no_truth_value() -> None:
    backend = LocalBackend({"m": "pocket-small"}, [MODEL])
    with pytest.raises(BackendError, match="logprobs is 3, must be true or false"):
        backend.complete("m", REQUEST.with_parameters({"logprobs": 3}))


def test_log_probabilities_reach_you_through_litellm_too() -> None:
    local, through = (
        LocalBackend({"m": "pocket-small"}, [MODEL]),
        LiteLLMBackend({"m": "eccos-local/pocket-small"}, [MODEL]),
    )
    request = REQUEST.with_parameters({"logprobs": True, "temperature": 0})
    wanted: Any = local.complete("m", request).logprobs
    *_, last = through.stream("m", request)
    assert last.completion is not None
    for found in (through.complete("m", request).logprobs, last.completion.logprobs):
        assert found is not None
        assert [(each["token"], each["logprob"]) for each in found["content"]] == [
            (each["token"], pytest.approx(each["logprob"], abs=1e-5)) for each in wanted["content"]
        ]
