"""LangChain's own integration tests for chat models: a pool on a scripted OpenAI-compatible server, the pocket pool.

The prompts of these tests are LangChain's; the server's script says what a good model would answer to them. Pictures,
sound and documents, which the tests download, are given here without the network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from served_pool import KEY, WAYS, pool_given_as, served_configuration

from eccos_core.pocket import pool_config_path
from eccos_core.testing import ModelServer
from eccos_integrations.langchain import ChatEccos

pytestmark = pytest.mark.service

JOKE = json.dumps({"setup": "Why do cats purr?", "punchline": "They idle."})
SCRIPT = {
    "magic_function(3)": '[[tool magic_function {"input": 3}]]',
    "magic_function_no_args()": "[[tool magic_function_no_args]]",
    "weather in San Francisco": '[[tool get_weather {"location": "San Francisco, CA"}]]',
    "你好啊集团": '[[tool unicode_customer {"customer_name": "你好啊集团", "description": "technology"}]]',
    "こんにちは株式会社": '[[tool unicode_customer {"customer_name": "こんにちは株式会社", "description": "x"}]]',
    "Return nothing other than JSON": f"[[say {JOKE}]]",
    "haikus": "[[tokens 400 90]][[cached 256]][[reasoning 32]]",
}


class Downloads:
    """What the tests download, without the network: the shortest bytes of each kind."""

    @staticmethod
    def get(url: str, **_: Any) -> httpx.Response:
        content = b"%PDF-1.4" if url.endswith(".pdf") else b"RIFF" if url.endswith(".wav") else b"\x89PNG\r\n"
        return httpx.Response(200, content=content)


@pytest.fixture(autouse=True)
def downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langchain_tests.integration_tests.chat_models.httpx", Downloads)


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(api_key=KEY, script=SCRIPT) as running:
        yield running


@pytest.fixture(scope="module")
def configuration(server: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with served_configuration(tmp_path_factory.mktemp("served"), server.url) as path:
        yield path


@pytest.fixture(scope="module", params=WAYS)
def served(request: Any, configuration: Path) -> Iterator[dict[str, Any]]:
    with pool_given_as(request.param, configuration) as given:
        yield given


class TestServedPool(ChatModelIntegrationTests):
    """Everything on. Only test_stream_time is skipped: it replays recorded traffic of a hosted provider (VCR)."""

    pool: dict[str, Any]

    @pytest.fixture(autouse=True)
    def _with_the_served_pool(self, served: dict[str, Any]) -> None:
        type(self).pool = served

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatEccos

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return self.pool

    @pytest.fixture
    def model(self, request: Any, served: dict[str, Any]) -> BaseChatModel:
        return ChatEccos(**served, **getattr(request, "param", {}))

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_urls(self) -> bool:
        return True

    @property
    def supports_image_tool_message(self) -> bool:
        return True

    @property
    def supports_pdf_inputs(self) -> bool:
        return True

    @property
    def supports_pdf_tool_message(self) -> bool:
        return True

    @property
    def supports_audio_inputs(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "large"

    @property
    def supported_usage_metadata_details(self) -> dict[str, list[str]]:  # type: ignore[override]
        # LiteLLM reports no audio tokens of a served model, and eccos counts cache writes as input
        return {"invoke": ["reasoning_output", "cache_read_input"], "stream": ["reasoning_output", "cache_read_input"]}

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        return self._ask_for_details(stream=stream)

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        return self._ask_for_details(stream=stream)

    def _ask_for_details(self, *, stream: bool) -> AIMessage:
        model = ChatEccos(**self.pool)
        if not stream:
            return model.invoke("Two haikus about haikus.")
        whole: AIMessageChunk | None = None
        for chunk in model.stream("Two haikus about haikus."):
            whole = chunk if whole is None else whole + chunk
        assert whole is not None
        assert whole.usage_metadata is not None
        assert whole.usage_metadata["input_token_details"] == {"cache_read": 256}
        assert whole.usage_metadata["output_token_details"] == {"reasoning": 32}
        return whole


class TestServedPoolBySchema(TestServedPool):
    """The same, with structured output by JSON schema."""

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "json_schema"}


class TestServedPoolUnit(ChatModelUnitTests):
    """LangChain's unit tests on the configured pool, keys from the environment."""

    path: str

    @pytest.fixture(autouse=True)
    def _with_the_configuration(self, configuration: Path) -> None:
        type(self).path = str(configuration)

    @pytest.fixture
    def model(self, request: Any, configuration: Path) -> BaseChatModel:
        given = {**self.standard_chat_model_params, "config": configuration, **getattr(request, "param", {})}
        return ChatEccos(**given)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatEccos

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"config": self.path}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        path = os.fspath(self.path)
        return {"SERVED_KEY": KEY}, {"config": path}, {"config": path}


@pytest.fixture(scope="module", params=WAYS)
def pocket(request: Any) -> Iterator[dict[str, Any]]:
    with pool_given_as(request.param, pool_config_path()) as given:
        yield given


class TestPocketPool(ChatModelIntegrationTests):
    """Real models in this process: four tiny ones, of at most two million parameters, that know capitals and sums.

    They were trained on questions and short answers alone: they cannot write JSON, and so neither call tools nor keep
    to a schema. What they cannot do stands in the profile of the model, and these two properties say the same.
    """

    pool: dict[str, Any]

    @pytest.fixture(autouse=True)
    def _with_the_pocket_pool(self, pocket: dict[str, Any]) -> None:
        type(self).pool = pocket

    @pytest.fixture
    def model(self, request: Any, pocket: dict[str, Any]) -> BaseChatModel:
        return ChatEccos(**pocket, **getattr(request, "param", {}))

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatEccos

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return self.pool

    @property
    def has_tool_calling(self) -> bool:
        profile = ChatEccos(**self.pool).profile
        return bool(profile and profile["tool_calling"])

    @property
    def has_structured_output(self) -> bool:
        profile = ChatEccos(**self.pool).profile
        return bool(profile and profile["structured_output"])

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "pocket-large"
