"""One chat model of LangChain that is your whole pool: every request goes to the cheapest model that is good enough."""

from eccos_integrations.langchain import (
    ChatEccos,
    EccosDecisionModel,
    EccosMiddleware,
    EccosRouter,
    EccosVerifier,
    FeedbackRecorder,
)

__all__ = ["ChatEccos", "EccosDecisionModel", "EccosMiddleware", "EccosRouter", "EccosVerifier", "FeedbackRecorder"]
