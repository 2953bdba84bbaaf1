"""What you may ask of a pool from LlamaIndex: the shared settings, a window of calls, and what the pool can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW, DEFAULT_NUM_OUTPUTS
from pydantic import Field, PrivateAttr, model_validator

from eccos_core.domain import Model
from eccos_core.router import Router
from eccos_integrations._shared.settings import RouterSettings


class LlamaIndexSettings(RouterSettings):
    """A router, and what to ask of it.

    Give `config` (path of a configuration file) or `router`. The other fields hold for every call. You can give all
    but `window_s` per call, too.
    """

    window_s: float | None = Field(default=None, gt=0, le=0.05)
    """Calls that arrive within this many seconds are decided together. None: as the router is set."""

    _called_router: Router = PrivateAttr()  # `router`, with the window

    @model_validator(mode="after")
    def _set_called_router(self) -> LlamaIndexSettings:
        self._called_router = self.router
        if self.window_s is not None:
            if self.router.follows_file:
                raise ValueError(
                    "window_s does not work with a router that follows its file. "
                    "Set eccos.stream.window_ms in the file."
                )
            self._called_router = self.router.with_window(self.window_s)
        return self

    def candidates(self) -> tuple[Model, ...]:
        """Return the models that may answer. Return the whole pool when the settings leave none: the call says so."""
        allow = {self.model} if self.model is not None else self.allow
        found = tuple(
            model
            for model in self.router.models
            if (allow is None or model.name in allow)
            and model.name not in self.deny
            and model.tags.issuperset(self.required_tags)
        )
        return found or self.router.models

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        """Copy the settings, and share the router."""
        memo = {} if memo is None else memo
        memo[id(self._called_router)] = self._called_router
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        """Keep what LlamaIndex itself stores. The router is built again from the configuration."""
        self._require_config()
        fields = {name: getattr(self, name) for name, field in type(self).model_fields.items() if not field.exclude}
        return {"__dict__": fields}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        self.__init__(**state["__dict__"])  # type: ignore[misc] # as LlamaIndex's components do


def find_context_window(pool: Sequence[Model]) -> int:
    """Return the largest context window among the models, in tokens. A long request goes to a model that can hold it.

    Return LlamaIndex's own default where no model says.
    """
    return max((model.context_window for model in pool if model.context_window), default=DEFAULT_CONTEXT_WINDOW)


def reserve_output(pool: Sequence[Model], max_tokens: int | None) -> int:
    """Return how many tokens to leave free for an answer.

    That is `max_tokens`, else LlamaIndex's default as far as a model of the pool can say as much.
    """
    if max_tokens is not None:
        return max_tokens
    longest = [model.max_output_tokens for model in pool if model.max_output_tokens]
    return min([DEFAULT_NUM_OUTPUTS, *([max(longest)] if longest else [])])
