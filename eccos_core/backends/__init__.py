"""Backends: the calls to models, through LiteLLM. Importing this loads neither LiteLLM nor torch."""

from eccos_core.backends.litellm.backend import LiteLLMBackend
from eccos_core.backends.retrying import RetryingBackend, RetryPolicy

__all__ = ["LiteLLMBackend", "RetryPolicy", "RetryingBackend"]
