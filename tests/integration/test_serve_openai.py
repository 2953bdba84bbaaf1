"""OpenAI's chat completions over HTTP: a real server on loopback, and OpenAI's own client."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import pytest
from serving_process import running_server

from eccos_core.domain import Capability, Model
from eccos_core.testing import ScriptedBackend, scripted_router

POOL = tuple(
    Model(name, price, price, max_concurrency=8, capabilities=frozenset(Capability))
    for name, price in (("small", 1e-6), ("large", 2e-5))
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a running server whose models say who they are."""
    backend = ScriptedBackend({"small": ["small says hello"], "large": ["large says hello"]}, POOL)
    router = scripted_router(backend, POOL, {"": [0.8, 0.9]}, usd_per_quality=1e-6)
    with running_server(router) as running:
        yield running.address


@pytest.fixture
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


QUESTION = [{"role": "user", "content": "hello there"}]


def test_the_router_chooses_and_headers_say_whom(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="eccos", messages=QUESTION)  # type: ignore[arg-type]
    answer = raw.parse()
    assert answer.choices[0].message.content == "small says hello"
    assert raw.headers["x-eccos-model"] == answer.model == "small"
    assert float(raw.headers["x-eccos-cost-usd"]) == pytest.approx(5e-6)
    assert "small is expected" in raw.headers["x-eccos-reason"]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 3)


@pytest.mark.parametrize(("model", "said"), [("eccos:best", "large"), ("eccos:cheap", "small"), ("large", "large")])
def test_the_model_name_chooses_a_policy_or_a_model(client: openai.OpenAI, model: str, said: str) -> None:
    answer = client.chat.completions.create(model=model, messages=QUESTION)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == f"{said} says hello"


def test_a_stream_comes_in_pieces_with_its_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="eccos",
        messages=QUESTION,  # type: ignore[arg-type]
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "small says hello"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


def test_own_fields_reach_the_router(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="eccos",
        messages=QUESTION,  # type: ignore[arg-type]
        extra_body={"eccos": {"min_quality": 0.85}},
    )
    assert answer.model == "large"
    with pytest.raises(openai.BadRequestError, match=r"eccos\.min_qualty is unknown"):
        client.chat.completions.create(
            model="eccos",
            messages=QUESTION,  # type: ignore[arg-type]
            extra_body={"eccos": {"min_qualty": 0.85}},
        )


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"[1]", 400, None),
        (b'{"model": "eccos"}', 400, "messages"),
        (b'{"model": "eccos", "messages": []}', 400, "messages"),
        (b'{"model": 3, "messages": [{"role": "user", "content": "x"}]}', 400, "model"),
        (b'{"model": "gpt", "messages": [{"role": "user", "content": "x"}]}', 404, "model"),
        (b'{"model": "eccos", "stream": "yes", "messages": [{"role": "user", "content": "x"}]}', 400, "stream"),
        (b"[" * 100_000, 400, None),
    ],
)
def test_a_faulty_body_gets_the_error_object_of_the_api(
    address: str, body: bytes, status: int, param: str | None
) -> None:
    answer = httpx.post(f"{address}/v1/chat/completions", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert error["message"]
    assert error["type"]


def test_what_is_not_served_is_said_to_be(address: str) -> None:
    answer = httpx.get(f"{address}/v1/nothing")
    assert answer.status_code == 404
    assert "is not served here" in answer.json()["error"]["message"]


def test_a_body_that_is_too_large_is_refused(address: str) -> None:
    answer = httpx.post(f"{address}/v1/chat/completions", content=b" " * 20_000_001)
    assert answer.status_code == 413


def test_models_and_policies_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["eccos", "eccos:cheap", "eccos:best", "small", "large"]


def test_an_answer_can_be_labelled(client: openai.OpenAI, address: str) -> None:
    raw = client.chat.completions.with_raw_response.create(model="eccos", messages=QUESTION)  # type: ignore[arg-type]
    decision_id = raw.headers["x-eccos-decision-id"]
    told = httpx.post(f"{address}/v1/eccos/feedback", json={"decision_id": decision_id, "quality": 1.0})
    assert told.json() == {"decision_id": decision_id, "recorded": True}
    unknown = httpx.post(f"{address}/v1/eccos/feedback", json={"decision_id": "nobody", "quality": 1.0})
    assert unknown.status_code == 404
    wrong = httpx.post(f"{address}/v1/eccos/feedback", json={"decision_id": decision_id, "quality": 2.0})
    assert wrong.status_code == 400


def test_health_and_readiness(address: str) -> None:
    assert httpx.get(f"{address}/health").json() == {"status": "ok"}
    assert httpx.get(f"{address}/ready").json()["status"] == "ready"
