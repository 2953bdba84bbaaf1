"""LangChain's own unit tests for chat models, run on ChatEccos."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_tests.unit_tests import ChatModelUnitTests

from eccos_core.domain import Capability, Model
from eccos_core.testing import ScriptedBackend, scripted_router
from eccos_integrations.langchain import ChatEccos

EVERYTHING = frozenset(Capability)
POOL = (
    Model("small", 1e-7, 4e-7, capabilities=EVERYTHING),
    Model("large", 2e-6, 8e-6, capabilities=EVERYTHING),
)
ROUTER = scripted_router(
    ScriptedBackend({"small": ["from small"], "large": ["from large"]}, POOL), POOL, {"": [0.6, 0.9]}
)


class TestChatEccos(ChatModelUnitTests):
    # test_serdes is skipped by LangChain itself: a class outside its namespaces is not loaded by `langchain_core.load`.
    # test_init_from_env runs in tests/integration, where keys come from the environment.

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatEccos

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"router": ROUTER}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "large"
