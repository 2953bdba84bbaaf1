"""What you may ask of a pool from LlamaIndex: the shared settings, a window of calls, and what the pool can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.constants import DEFAULT_NUM_OUTPUTS
from pydantic import Field, PrivateAttr

from eccos_core.domain import Model
from eccos_core.router import Router
from eccos_core.routing.parts import Parts
from eccos_integrations._shared.settings import RouterSettings


class LlamaIndexSettings(RouterSettings):
    """A router, and what to ask of it.

    Give `config` (path of a configuration file) or `router`. The other fields hold for every call. You can give all
    but `window_s`, `context_window` and `num_output` per call, too.
    """

    window_s: float | None = Field(default=None, gt=0, le=0.05)
    """Calls that arrive within this many seconds are decided together. None: as the router is set."""

    context_window: int | None = Field(default=None, ge=1)
    """Tokens that LlamaIndex may fill with prompt and answer. None: the smallest window of the models that may answer.

    With a larger one fewer calls are made, and models with smaller windows cannot answer the long ones.
    """

    num_output: int | None = Field(default=None, ge=1)
    """Tokens of the window that LlamaIndex leaves free for an answer.

    None: `max_tokens`, else LlamaIndex's default as far as a model of the pool can say as much. It limits no answer.
    """

    _windowed: tuple[Parts, Router] | None = PrivateAttr(default=None)  # the router with `window_s`, and its parts

    @property
    def _called_router(self) -> Router:
        """The router with the window. A router that follows its file has new parts after a change."""
        if self.window_s is None:
            return self.router
        parts = self.router.parts
        if self._windowed is None or self._windowed[0] is not parts:
            self._windowed = (parts, self.router.with_window(self.window_s))
        return self._windowed[1]

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        """Copy the settings, and share the router."""
        memo = {} if memo is None else memo
        memo[id(self._windowed)] = self._windowed
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        """Keep what LlamaIndex itself stores. The router is built again from the configuration."""
        self._require_config()
        fields = {name: getattr(self, name) for name, field in type(self).model_fields.items() if not field.exclude}
        return {"__dict__": fields}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        self.__init__(**state["__dict__"])  # type: ignore[misc] # as LlamaIndex's components do


def reserve_output(pool: Sequence[Model], max_tokens: int | None) -> int:
    """Return how many tokens to leave free for an answer.

    That is `max_tokens`, else LlamaIndex's default as far as a model of the pool can say as much.
    """
    if max_tokens is not None:
        return max_tokens
    longest = [model.max_output_tokens for model in pool if model.max_output_tokens]
    return min([DEFAULT_NUM_OUTPUTS, *([max(longest)] if longest else [])])
