"""Legacy completions, embeddings, models, metrics and CORS over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import pytest
from serving_process import running_server

from eccos_core.domain import Capability, Model
from eccos_core.server.gate import OpenGate
from eccos_core.server.settings import ServerSettings
from eccos_core.testing import ScriptedBackend, scripted_router

POOL = tuple(
    Model(name, price, price, max_concurrency=8, capabilities=frozenset(Capability))
    for name, price in (("small", 1e-6), ("large", 2e-5))
)


class Budgeted(OpenGate):
    """A gate that knows what is left."""

    def budgets_left(self) -> dict[str, float]:
        return {'team "a"': 1.5}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    backend = ScriptedBackend({"small": ["small says hello"], "large": ["large says hello"]}, POOL)
    router = scripted_router(backend, POOL, {"hello": [0.8, 0.9], "": [0.5, 0.5]}, usd_per_quality=1e-6)
    settings = ServerSettings(port=0, cors_origins=("https://chat.example",))
    with running_server(router, Budgeted(), settings) as running:
        yield running.address


@pytest.fixture
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def test_a_legacy_completion(client: openai.OpenAI) -> None:
    raw = client.completions.with_raw_response.create(model="eccos", prompt="hello there", max_tokens=9)
    answer = raw.parse()
    assert answer.choices[0].text == "small says hello"
    assert (answer.model, answer.choices[0].finish_reason) == ("small", "stop")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    assert raw.headers["x-eccos-model"] == "small"
    stream = client.completions.create(
        model="eccos:best", prompt=["hello there"], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "large says hello"
    assert chunks[-1].usage is not None
    assert {chunk.model for chunk in chunks} == {"large"}


@pytest.mark.parametrize(
    "body", [{"prompt": ""}, {"prompt": ["a", "b"]}, {"prompt": [1, 2]}, {"prompt": "x", "echo": True}, {}]
)
def test_an_odd_prompt_is_refused(address: str, body: dict[str, object]) -> None:
    assert httpx.post(f"{address}/v1/completions", json={"model": "eccos", **body}).status_code == 400


def test_embeddings_of_the_routers_own_encoder(client: openai.OpenAI, address: str) -> None:
    answer = client.embeddings.create(model="eccos-encoder", input=["hello", "goodbye"])
    assert [each.embedding for each in answer.data] == [[1.0, 0.0], [0.0, 1.0]]
    plain = httpx.post(f"{address}/v1/embeddings", json={"model": "eccos-encoder", "input": "hello"}).json()
    assert plain["data"][0]["embedding"] == [1.0, 0.0]
    with pytest.raises(openai.NotFoundError, match="eccos-encoder"):
        client.embeddings.create(model="text-embedding-3-small", input="hello")
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="eccos-encoder", input="hello", dimensions=3)
    with pytest.raises(openai.BadRequestError, match="input"):
        client.embeddings.create(model="eccos-encoder", input=[[1, 2]])


def test_one_model_is_described(client: openai.OpenAI) -> None:
    assert client.models.retrieve("eccos:best").owned_by == "eccos"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody/at/all")


def test_prometheus_reads_what_happened(address: str) -> None:
    body = {"model": "large", "messages": [{"role": "user", "content": "hello"}]}
    assert httpx.post(f"{address}/v1/chat/completions", json=body).status_code == 200
    assert httpx.get(f"{address}/v1/made-up-{'x' * 50}").status_code == 404
    answer = httpx.get(f"{address}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    assert float(values['eccos_requests_total{route="/v1/chat/completions",status="200"}']) >= 1
    assert float(values['eccos_requests_total{route="other",status="404"}']) >= 1
    assert float(values['eccos_tokens_total{model="large",direction="output"}']) >= 3
    assert float(values['eccos_cost_usd_total{model="large"}']) >= 4 * 2e-5
    bucket = 'eccos_request_seconds_bucket{route="/v1/chat/completions",le="+Inf"}'
    assert values[bucket] == values['eccos_request_seconds_count{route="/v1/chat/completions"}']
    assert values['eccos_model_breaker_open{model="small"}'] == "0"
    assert values['eccos_budget_left_usd{budget="team \\"a\\""}'] == "1.5"
    assert float(values["eccos_in_flight_requests"]) == 1  # this very request


def test_pages_of_other_sites_may_not_call(address: str) -> None:
    body = {"model": "eccos", "messages": [{"role": "user", "content": "hello"}]}
    url = f"{address}/v1/chat/completions"
    assert httpx.post(url, json=body, headers={"origin": "https://evil.example"}).status_code == 403
    assert httpx.post(url, json=body, headers={"host": "evil.example"}).status_code == 403
    assert httpx.post(url, json=body, headers={"origin": address}).status_code == 200
    allowed = httpx.post(url, json=body, headers={"origin": "https://chat.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://chat.example"
    asked = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    assert httpx.options(url, headers=asked).status_code == 200


def test_every_answer_has_safe_headers(address: str) -> None:
    for path in ("/health", "/v1/models", "/nothing"):
        headers = httpx.get(f"{address}{path}").headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers
