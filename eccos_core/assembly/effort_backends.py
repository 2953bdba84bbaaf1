"""The layers of a backend that choose how long a model thinks: efforts, and stopping early."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eccos_core.config import Config

if TYPE_CHECKING:
    from eccos_core.backends import LiteLLMBackend
    from eccos_core.protocols import Backend


def with_efforts(config: Config, backend: Backend) -> Backend:
    """Add the parameters of efforts to the calls of the models that have one."""
    from eccos_core.backends import EffortBackend

    efforts = {entry.model.name: entry.effort.parameters for entry in config.pool if entry.effort is not None}
    models = {model.name: model for model in config.models}
    return EffortBackend(backend, models, efforts) if efforts else backend


def with_stop_early(config: Config, backend: LiteLLMBackend) -> Backend:
    """Stop the thinking of the models that `eccos.stop_early` names."""
    from eccos_core.backends.chat_template import ChatTemplate
    from eccos_core.backends.stop_early import StopEarlyBackend
    from eccos_core.backends.thinking_steps import StopEarlySettings

    asked = config.stop_early
    if asked is None:
        return backend
    of_name = {name: ChatTemplate(path) for name, path in asked.templates.items()}
    templates = {
        model.name: of_name.get(model.name) or of_name[model.deployment]
        for model in config.models
        if model.is_named_in(of_name.keys())
    }
    limits = {model.name: model.max_output_tokens for model in config.models if model.max_output_tokens is not None}
    settings = StopEarlySettings(asked.probe_every, asked.agree)
    return StopEarlyBackend(backend, backend, templates, settings, limits)
