"""eccos for LangChain (langchain-core 1.x): one chat model that is the whole pool, and the decision as a Runnable.

    from eccos_integrations.langchain import ChatEccos

    model = ChatEccos(config="eccos.yaml")
    chain = prompt | model | StrOutputParser()
    chain.batch(inputs)  # one assignment for the whole batch

`ChatEccos` is a chat model, `EccosRouter` decides without calling, `FeedbackRecorder` turns feedback into labels.
These classes only translate; every decision is made in `eccos_core`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from eccos_core.errors import MissingDependencyError

if TYPE_CHECKING:
    from eccos_integrations.langchain.branching import RoutedRunnable
    from eccos_integrations.langchain.chat_model import ChatEccos
    from eccos_integrations.langchain.feedback import FeedbackRecorder
    from eccos_integrations.langchain.routing import EccosRouter

_HOMES = {
    "ChatEccos": "chat_model",
    "EccosRouter": "routing",
    "FeedbackRecorder": "feedback",
    "RoutedRunnable": "branching",
}

__all__ = ["ChatEccos", "EccosRouter", "FeedbackRecorder", "RoutedRunnable"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "langchain_core":
            raise
        install = "pip install 'eccos[langchain]'"
        raise MissingDependencyError("langchain-core", "the LangChain integration", install) from error
