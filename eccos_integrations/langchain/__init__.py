"""eccos for LangChain (langchain-core 1.x): one chat model that is the whole pool, and the decision as a Runnable.

    from eccos_integrations.langchain import ChatEccos

    model = ChatEccos(config="eccos.yaml")
    chain = prompt | model | StrOutputParser()
    chain.batch(inputs)  # one assignment for the whole batch

`ChatEccos` is a chat model. `EccosRouter` decides without calling. `FeedbackRecorder` turns feedback into labels.
`EccosMiddleware` decides each step of an agent, or each run. `EccosDecisionModel` is the classifier of LangChain's
`ModelRouterMiddleware`. `EccosVerifier` scores an answer with a reward model.
These classes only translate. Every decision is made in `eccos_core`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eccos_integrations._shared.lazy_import import import_public_name, require_module

if TYPE_CHECKING:
    from eccos_integrations.langchain.chat_model import ChatEccos
    from eccos_integrations.langchain.decision_model import EccosDecisionModel
    from eccos_integrations.langchain.feedback import FeedbackRecorder
    from eccos_integrations.langchain.middleware import EccosMiddleware, RunBudgetSpentError
    from eccos_integrations.langchain.routed_runnable import RoutedRunnable
    from eccos_integrations.langchain.router import EccosRouter
    from eccos_integrations.langchain.verifier import EccosVerifier

__all__ = [
    "ChatEccos",
    "EccosDecisionModel",
    "EccosMiddleware",
    "EccosRouter",
    "EccosVerifier",
    "FeedbackRecorder",
    "RoutedRunnable",
    "RunBudgetSpentError",
]

_HOMES = {
    "ChatEccos": "chat_model",
    "EccosDecisionModel": "decision_model",
    "EccosMiddleware": "middleware",
    "EccosRouter": "router",
    "EccosVerifier": "verifier",
    "FeedbackRecorder": "feedback",
    "RoutedRunnable": "routed_runnable",
    "RunBudgetSpentError": "agent_chat",
}

_NEEDS = {  # more than langchain-core 1.7: the module, and what to install
    "EccosDecisionModel": ("langchain_core.decisions", "langchain-core>=1.8"),
    "EccosMiddleware": ("langchain", "langchain>=1"),
}

if not TYPE_CHECKING:  # a type checker finds the names above, and reports a misspelled one

    def __getattr__(name: str) -> Any:
        if name in _NEEDS:
            require_module(*_NEEDS[name], f"{__name__}.{name}")
        return import_public_name(
            __name__, name, _HOMES, framework="langchain_core", distribution="langchain-core", extra="langchain"
        )
