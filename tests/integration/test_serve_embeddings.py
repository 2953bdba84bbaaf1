"""Embedding models of `model_list` over HTTP: real clients, a real provider on loopback, keys and budgets."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from served_pool import KEY, served_pool
from serving_process import running_server
from waiting import wait_until

from eccos_core.router import Router
from eccos_core.server.embedding_models import EmbeddingModels
from eccos_core.server.follow_file import follow_file
from eccos_core.server.keys import KeyDatabase, KeyGate, KeyRules
from eccos_core.testing import ModelServer
from eccos_core.testing.embedding_script import vector_of

pytestmark = [pytest.mark.service, pytest.mark.timeout(120)]
USD = 1e-5  # of a token
MODELS = """\
  - model_name: embedder
    litellm_params: {{model: openai/text-embedding-3-small, api_base: {url}, api_key: os.environ/SERVED_KEY}}
    model_info: {{input_cost_per_token: 1.0e-5}}
  - model_name: locked
    litellm_params: {{model: openai/text-embedding-3-small, api_base: {url}, api_key: sk-wrong-0123456789}}
  - model_name: absent
    litellm_params: {{model: openai/text-embedding-3-large, api_key: os.environ/NOT_SET_ANYWHERE}}
eccos:
  retries: {{attempts: 2, initial_backoff_s: 0.0}}
"""


@dataclass
class EmbeddingServer:
    """A running server, its database of keys, and the provider behind it."""

    address: str
    database: KeyDatabase
    provider: ModelServer
    file: Path
    router: Router

    def key(self, **rules: Any) -> str:
        return self.database.create(KeyRules(**{"name": "test", **rules}))[1]

    def client(self, secret: str | None = None) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key=secret or self.key(), max_retries=0)

    def post(self, secret: str, **body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {secret}"}
        return httpx.post(f"{self.address}/v1/embeddings", json={"model": "embedder", **body}, headers=headers)

    def spent(self, secret: str) -> tuple[int, int]:
        """Return what a key has spent and reserved, when all of it is written."""
        found = []

        def is_settled() -> bool:
            balances = self.database.balances()
            found[:] = [(each.spent, each.reserved) for each in balances if each.name == secret.split("-")[2]]
            return bool(found) and found[0][1] == 0

        wait_until(is_settled, timeout_s=20)
        return found[0]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddingServer]:
    folder = tmp_path_factory.mktemp("embeddings")
    with ModelServer(api_key=KEY) as provider, pytest.MonkeyPatch.context() as environment:
        environment.setenv("SERVED_KEY", KEY)
        path = served_pool(folder, provider.url)
        text = path.read_text().replace("minilm", "static")
        path.write_text(text.replace("eccos:\n", MODELS.format(url=provider.url)))
        with Router.from_yaml(path, reload=True) as router:
            gate = KeyGate(KeyDatabase(folder / "keys.sqlite"), lambda _: {}, tenants={"search": 1.0})
            embeddings = EmbeddingModels()
            from eccos_core.config import load_config

            follow_file(router, path, gate, embeddings, load_config(path).server)
            with running_server(router, gate, embeddings=embeddings) as running:
                yield EmbeddingServer(running.address, gate.database, provider, path, router)
            gate.close()


def test_openais_client_embeds_texts_and_token_ids(served: EmbeddingServer) -> None:
    client = served.client()
    raw = client.embeddings.with_raw_response.create(model="embedder", input=["hello there", "good day to you"])
    answer = raw.parse()
    assert [each.index for each in answer.data] == [0, 1]
    expected = [vector_of("hello there", 8), vector_of("good day to you", 8)]
    assert [each.embedding for each in answer.data] == [pytest.approx(each, rel=1e-6) for each in expected]
    assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == ("embedder", 6, 6)
    assert float(raw.headers["x-eccos-cost-usd"]) == pytest.approx(6 * USD)
    one = client.embeddings.create(model="embedder", input="hello there", dimensions=3, encoding_format="float")
    assert one.data[0].embedding == pytest.approx(vector_of("hello there", 3))
    assert served.provider.last_request()["dimensions"] == 3
    ids = client.embeddings.create(model="embedder", input=[[1, 2, 3], [7]])
    assert [each.embedding for each in ids.data] == [pytest.approx(vector_of(each, 8)) for each in ([1, 2, 3], [7])]
    assert ids.usage.prompt_tokens == 4
    assert client.embeddings.create(model="embedder", input=[5, 6]).data[0].embedding == pytest.approx(
        vector_of([5, 6], 8)
    )
    assert "embedder" in [each.id for each in client.models.list()]
    assert client.models.retrieve("embedder").owned_by == "eccos"


def test_the_asynchronous_client_and_base64(served: EmbeddingServer) -> None:
    async def ask() -> list[list[float]]:
        async with openai.AsyncOpenAI(base_url=f"{served.address}/v1", api_key=served.key()) as client:
            asked = [client.embeddings.create(model="embedder", input=f"text {place}") for place in range(20)]
            return [each.data[0].embedding for each in await asyncio.gather(*asked)]

    assert asyncio.run(ask()) == [pytest.approx(vector_of(f"text {place}", 8)) for place in range(20)]
    told = served.post(served.key(), input="hello", encoding_format="base64").json()["data"][0]["embedding"]
    assert struct.unpack("<8f", base64.b64decode(told)) == pytest.approx(vector_of("hello", 8))


def test_langchains_embeddings_work(served: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import litellm
    from langchain_openai import OpenAIEmbeddings

    folder = Path(litellm.__file__).parent / "litellm_core_utils" / "tokenizers"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))  # LangChain sends token ids, and needs a vocabulary
    base = f"{served.address}/v1"
    ids = OpenAIEmbeddings(model="embedder", base_url=base, api_key=served.key())  # type: ignore[arg-type]
    vectors = ids.embed_documents(["hello there", "good day"])
    assert (len(vectors), len(vectors[0])) == (2, 8)
    assert isinstance(served.provider.last_request()["input"][0], list)
    texts = OpenAIEmbeddings(
        model="embedder",
        base_url=base,
        api_key=served.key(),  # type: ignore[arg-type]
        check_embedding_ctx_length=False,
    )
    assert texts.embed_query("hello there") == pytest.approx(vector_of("hello there", 8))


def test_the_cost_is_settled_by_the_providers_usage(served: EmbeddingServer) -> None:
    secret = served.key(tenant="search", usd_per_month=1.0)
    assert served.post(secret, input="[[tokens 1000 0]] hello").status_code == 200
    assert served.spent(secret) == (round(1000 * USD * 1e9), 0)
    assert served.post(secret, input="[[no-usage]] hello").status_code == 200
    spent = served.spent(secret)
    assert served.post(secret, input="[[status 500]] hello").status_code == 502
    assert served.spent(secret) == spent, "a call that failed costs nothing"
    tenant = next(each for each in served.database.balances() if each.name == "search")
    assert tenant.spent == spent[0] > round(1000 * USD * 1e9)


def test_budgets_rates_and_models_of_a_key_hold(served: EmbeddingServer) -> None:
    before = served.provider.statistics().requests.get("text-embedding-3-small", 0)
    poor = served.post(served.key(usd_per_month=USD), input="hello there my friend")
    assert (poor.status_code, poor.json()["error"]["code"]) == (402, "insufficient_quota")
    other = served.post(served.key(models=frozenset({"small"})), input="hello")
    assert (other.status_code, other.json()["error"]["param"]) == (403, "model")
    few = served.key(tokens_per_minute=4, models=frozenset({"embedder"}))
    assert served.post(few, input="five tokens are too many").status_code == 413
    assert served.provider.statistics().requests.get("text-embedding-3-small", 0) == before
    assert served.post(few, input="two words").status_code == 200
    slow = served.post(few, input=[1, 2, 3])
    assert (slow.status_code, slow.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert served.post("sk-eccos-000000000000-none", input="hello").status_code == 401


@pytest.mark.parametrize(
    ("text", "status", "kind"),
    [
        ("[[status 400]]", 400, "invalid_request_error"),
        ("[[status 429 retry-after=0.1]]", 429, "rate_limit_error"),
        ("[[status 500]]", 502, "server_error"),
        ("[[status 401]]", 502, "server_error"),
    ],
)
def test_an_error_of_the_provider_is_openais_error(served: EmbeddingServer, text: str, status: int, kind: str) -> None:
    answer = served.post(served.key(), input=f"{text} hello {status}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    assert answer.headers.get("retry-after") == ("1" if status == 429 else None)
    assert KEY not in answer.text


def test_a_failed_call_is_made_again(served: EmbeddingServer) -> None:
    served.provider.reset()
    assert served.post(served.key(), input="[[status 500]] [[times 1]] again").status_code == 200
    assert served.provider.statistics().requests["text-embedding-3-small"] == 2


def test_no_key_of_a_provider_is_told(served: EmbeddingServer, caplog: pytest.LogCaptureFixture) -> None:
    answer = served.post(served.key(), model="locked", input="hello")
    assert answer.status_code == 502
    assert "Incorrect API key" in answer.text
    said = answer.text + "".join(record.getMessage() for record in caplog.records if record.name.startswith("eccos"))
    assert "sk-wrong-0123456789" not in said


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", [1]]}, "input"),
        ({"input": [1, -1]}, "input"),
        ({"input": [True]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": True}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "user": 3}, "user"),
        ({"input": "a", "api_base": "http://evil.example"}, "api_base"),
        ({"input": "a", "model": "embeder"}, "model"),
        ({"input": "a", "model": "absent"}, "model"),
        ({"input": "a", "model": 3}, "model"),
    ],
)
def test_bad_input_is_refused_by_name(served: EmbeddingServer, body: dict[str, Any], param: str) -> None:
    answer = served.post(served.key(), **body)
    assert answer.status_code == (404 if param == "model" else 400)
    assert answer.json()["error"]["param"] == param


def test_an_admin_makes_a_key_for_an_embedding_model(served: EmbeddingServer) -> None:
    headers = {"x-api-key": served.key(is_admin=True)}
    rules = {"name": "search", "models": ["embedder"]}
    made = httpx.post(f"{served.address}/v1/eccos/keys", json=rules, headers=headers)
    assert made.status_code == 201
    assert served.post(made.json()["key"], input="hello").status_code == 200


def test_the_metrics_count_embeddings(served: EmbeddingServer) -> None:
    admin = served.key(is_admin=True)
    served.post(admin, input="hello there")
    text = httpx.get(f"{served.address}/metrics", headers={"x-api-key": admin}).text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values['eccos_tokens_total{model="embedder",direction="input"}']) >= 2
    assert float(values['eccos_cost_usd_total{model="embedder"}']) >= 2 * USD


def test_a_changed_file_changes_the_models(served: EmbeddingServer) -> None:
    text = served.file.read_text()
    try:
        served.file.write_text(text.replace("model_name: locked", "model_name: renamed"))
        assert served.router.reload()
        assert {"embedder", "renamed"} <= {each.id for each in served.client().models.list()}
        assert served.post(served.key(), model="locked", input="a").status_code == 404
    finally:
        served.file.write_text(text)
        assert served.router.reload()
