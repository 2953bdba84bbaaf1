"""Backends: the calls to models, through LiteLLM. Importing this loads neither LiteLLM nor torch."""

from eccos_core.backends.litellm_backend import LiteLLMBackend

__all__ = ["LiteLLMBackend"]
