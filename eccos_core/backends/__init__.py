"""Backends: the calls to models, hosted and local. Importing this loads neither LiteLLM nor torch."""

from eccos_core.backends.efforts import EffortBackend
from eccos_core.backends.litellm.backend import LiteLLMBackend
from eccos_core.backends.local.backend import LocalBackend
from eccos_core.backends.per_model import PerModelBackend
from eccos_core.backends.retrying import RetryingBackend, RetryPolicy

__all__ = ["EffortBackend", "LiteLLMBackend", "LocalBackend", "PerModelBackend", "RetryPolicy", "RetryingBackend"]
