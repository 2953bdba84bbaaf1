"""`LocalBackend`: local models without LiteLLM. The pocket models need no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eccos_core.assembly.backend import build_backend, needs_litellm
from eccos_core.backends import LiteLLMBackend, LocalBackend, PerModelBackend
from eccos_core.backends.local.generation import GeneratedPiece
from eccos_core.backends.local.registry import LocalModels, local_models
from eccos_core.config import load_config
from eccos_core.domain import Model, Request
from eccos_core.errors import BackendError, FailureKind, InputError, StreamInterrupted

SMALL = Model("small", 1e-6, 2e-6)
QUESTION = "What is the capital of France?"


@pytest.fixture
def backend() -> LocalBackend:
    return LocalBackend({"small": "pocket-small"}, [SMALL])


def test_an_answer_names_the_model_of_the_pool_and_costs_its_price(backend: LocalBackend) -> None:
    answer = backend.complete("small", Request.of(QUESTION))
    assert (answer.text, answer.model) == ("Paris", "small")
    assert answer.cost_usd == pytest.approx(answer.input_tokens * 1e-6 + answer.output_tokens * 2e-6)


def test_defaults_of_a_model_hold_unless_the_request_says_otherwise() -> None:
    backend = LocalBackend({"small": "pocket-small"}, [SMALL], parameters={"small": {"max_tokens": 1}})
    assert backend.complete("small", Request.of(QUESTION)).output_tokens == 1
    assert backend.complete("small", Request.of(QUESTION, parameters={"max_tokens": 2})).output_tokens == 2


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"temperatur": 1}, "did you mean 'temperature'"),
        ({"tools": []}, "unknown parameter 'tools'"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_batch": "many"}, "max_batch is 'many'"),
    ],
)
def test_a_wrong_parameter_is_a_bad_request_that_names_the_model(
    backend: LocalBackend, parameters: dict[str, object], says: str
) -> None:
    with pytest.raises(BackendError, match=says) as caught:
        backend.complete("small", Request.of(QUESTION, parameters=parameters))
    assert (caught.value.model, caught.value.kind) == ("small", FailureKind.BAD_REQUEST)
    assert not caught.value.retryable


def test_a_time_to_the_next_piece_that_is_too_long_is_a_timeout(backend: LocalBackend) -> None:
    with pytest.raises(BackendError) as caught:
        backend.complete("small", Request.of(QUESTION, parameters={"timeout": 1e-9}))
    assert caught.value.kind is FailureKind.TIMEOUT


def test_a_stream_that_breaks_says_what_had_arrived(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handle:
        def cancel(self) -> None: ...

    class Engine:
        def submit(self, generation: object, deliver: object) -> Handle:
            assert callable(deliver)
            deliver(GeneratedPiece("Par"))
            deliver(BackendError("pocket-small", "out of memory", kind=FailureKind.OUT_OF_MEMORY))
            return Handle()

    monkeypatch.setattr(LocalModels, "engine", lambda *_: Engine())
    stream = backend.stream("small", Request.of(QUESTION))
    assert next(stream).text == "Par"
    with pytest.raises(StreamInterrupted) as caught:
        next(stream)
    assert (caught.value.received, caught.value.kind) == ("Par", FailureKind.OUT_OF_MEMORY)


def test_gpu_time_is_the_price_once_it_is_measured() -> None:
    backend = LocalBackend({"small": "pocket-small"}, [SMALL], usd_per_gpu_hour={"small": 36.0})
    local_models().close()
    assert backend.usd_per_token("small") is None
    backend.complete("small", Request.of(QUESTION))
    measured = backend.usd_per_token("small")
    assert measured is not None
    answer = backend.complete("small", Request.of(QUESTION))
    tokens = answer.input_tokens + answer.output_tokens
    assert answer.cost_usd == pytest.approx(tokens * measured, rel=0.9)  # the price follows the speed
    assert answer.cost_usd != pytest.approx(answer.input_tokens * 1e-6 + answer.output_tokens * 2e-6)


def test_a_model_outside_the_pool_is_refused() -> None:
    with pytest.raises(InputError, match="'other' is a local model but no model of the pool"):
        LocalBackend({"other": "pocket-small"}, [SMALL])


HOSTED = "  - {model_name: hosted, litellm_params: {model: openai/gpt-4o-mini, api_key: none}}\n"
LOCAL = (
    "  - model_name: small\n    litellm_params: {model: eccos-local/pocket-small}\n"
    "    model_info: {input_cost_per_token: 1.0e-6, output_cost_per_token: 1.0e-6, assumed_quality: 0.5}\n"
)


@pytest.mark.parametrize(
    ("entries", "kind", "litellm"),
    [
        (LOCAL, LocalBackend, False),
        (HOSTED, LiteLLMBackend, True),
        (LOCAL + HOSTED, PerModelBackend, True),
        (LOCAL + LOCAL, LiteLLMBackend, True),  # two ways to one model: LiteLLM's backend balances them
    ],
)
def test_the_configuration_decides_who_calls(entries: str, kind: type, litellm: bool, tmp_path: Path) -> None:
    path = tmp_path / "eccos.yaml"
    path.write_text(f"model_list:\n{entries}", encoding="utf-8")
    config = load_config(path)
    assert needs_litellm(config) is litellm
    assert type(build_backend(config).backend) is kind  # type: ignore[attr-defined]  # what the retries wrap


def test_asking_the_pocket_pool_imports_neither_litellm_nor_torch() -> None:
    program = (
        "import sys\nfrom eccos_core import Router\nfrom eccos_core.pocket import pool_config_path\n"
        f"print(Router.from_yaml(pool_config_path()).complete({QUESTION!r}).text)\n"
        "print(sorted({'litellm', 'torch', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["Paris", "[]"]
