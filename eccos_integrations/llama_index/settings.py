"""What may be asked of a pool, per LLM or per call: the router, who may answer, and how good an answer must be."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW, DEFAULT_NUM_OUTPUTS
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from eccos_core.domain import Message, Model, Request
from eccos_core.errors import did_you_mean

if TYPE_CHECKING:
    from eccos_core.router import Router

logger = logging.getLogger(__name__)

# what a call may say for itself, over what the LLM says
PER_CALL = frozenset(
    {"allow", "deny", "min_quality", "model", "required_tags", "session_id", "tenant", "wait_s"},
)
ELSEWHERE = {  # usual parameters of LLMs that a pool has once per model, in its configuration
    "api_base": "addresses belong to the models of the configuration (litellm_params.api_base)",
    "api_key": "keys belong to the models of the configuration (litellm_params.api_key: os.environ/NAME)",
    "max_retries": "retries are set in the configuration, section eccos",
}


class LlamaIndexSettings(BaseModel):
    """A router, and what to ask of it.

    Give `config` (path of a configuration file) or `router`. Where both are given, `router` is used, as the one that
    was made from `config`. The other fields hold for every call; all but `window_s` can be given per call.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, hide_input_in_errors=True, extra="forbid")

    config: str | None = None
    """Path of the configuration file (a LiteLLM configuration with a section `eccos`)."""
    router: Any = Field(default=None, repr=False, exclude=True)
    """An `eccos_core.Router`."""
    model: str | None = None
    """Only this model of the pool. None: the router decides."""
    allow: frozenset[str] | None = None
    """Names of the models that may answer. None: all."""
    deny: frozenset[str] = frozenset()
    """Names of models that may not answer."""
    required_tags: frozenset[str] = frozenset()
    """Tags that a model must carry, all of them."""
    min_quality: float | None = Field(default=None, ge=0, le=1)
    """Least predicted quality of the model for every request, in [0, 1]."""
    session_id: str | None = None
    """The conversation. None: known by its beginning."""
    tenant: str | None = None
    """Whose rules hold (section `eccos.tenants`)."""
    wait_s: float | None = Field(default=None, ge=0)
    """Longest wait for a free slot in seconds. None: the router's."""
    window_s: float | None = Field(default=None, gt=0, le=0.05)
    """Calls that arrive within so many seconds are decided together. None: as the router does (`stream.window_ms`)."""

    _asked: Any = PrivateAttr(default=None)  # the router that is called: `router`, with the window

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        known = set(cls.model_fields)
        kept = {}
        for name, value in given.items():
            if name in ELSEWHERE and name not in known:
                logger.info("%s(%s=...) has no effect: %s", cls.__name__, name, ELSEWHERE[name])
            elif name not in known:
                raise ValueError(f"{cls.__name__} has no parameter {name!r}{did_you_mean(name, known) or '.'}")
            else:
                kept[name] = value
        return kept

    @field_validator("config", mode="before")
    @classmethod
    def _path(cls, given: Any) -> Any:
        return str(given) if isinstance(given, Path) else given

    @field_validator("allow", "deny", "required_tags", mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        """One name is a list of one, not a list of letters."""
        return [given] if isinstance(given, str) else given

    @model_validator(mode="after")
    def _with_a_router(self) -> LlamaIndexSettings:
        self.router = the_router(type(self).__name__, self.config, self.router)
        self._asked = self.router
        if self.window_s is not None:
            if type(self.router).__name__ == "ReloadingRouter":
                raise ValueError("a router that follows its file has its window there: set eccos.stream.window_ms")
            self._asked = self.router.with_window(self.window_s)
        return self

    # ------------------------------------------------------------------------------------------------------ per call

    def _said(self, given: Mapping[str, Any], name: str) -> Any:
        """What the call says, else what the LLM says."""
        return given[name] if given.get(name) is not None else getattr(self, name)

    def _request(
        self, messages: tuple[Message, ...], parameters: Mapping[str, Any], given: Mapping[str, Any]
    ) -> Request:
        """The request; `given` is what the call says for itself."""
        model, allow = self._said(given, "model"), self._said(given, "allow")
        if model is not None:
            allow = {model}
        return Request(
            messages=messages,
            parameters=parameters,
            allow=None if allow is None else _names(allow),
            deny=_names(self._said(given, "deny")),
            required_tags=_names(self._said(given, "required_tags")),
            min_quality=self._said(given, "min_quality"),
            session_id=self._said(given, "session_id") or conversation_of(messages, parameters),
            tenant=self._said(given, "tenant"),
            deadline_s=self._said(given, "wait_s"),
        )

    def candidates(self) -> tuple[Model, ...]:
        """The models that may answer; the whole pool where the settings leave none, which the call then says."""
        allow = {self.model} if self.model is not None else self.allow
        found = tuple(
            model
            for model in self.router.models
            if (allow is None or model.name in allow)
            and model.name not in self.deny
            and self.required_tags <= model.tags
        )
        return found or tuple(self.router.models)

    # ---------------------------------------------------------------------------------------------- copies and pickles

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        """A copy has settings of its own, and shares the router."""
        memo = {} if memo is None else memo
        for shared in (self.router, self._asked):
            memo[id(shared)] = shared
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        """Without the router, which holds keys, locks and connections; it is made anew from the configuration."""
        if self.config is None:
            name = type(self).__name__
            raise TypeError(
                f"{name}(router=...) cannot be pickled: a router holds keys, locks and connections; "
                f"use {name}(config=...), of which only the path is pickled"
            )
        fields = {name: getattr(self, name) for name, field in type(self).model_fields.items() if not field.exclude}
        return {"__dict__": fields}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        self.__init__(**state["__dict__"])  # type: ignore[misc] # as LlamaIndex's components do


def the_router(owner: str, config: str | Path | None, router: Any) -> Router:
    """`router`, or the one that `config` describes. Raises `ValueError` where there is neither."""
    from eccos_core.router import Router

    if router is None:
        if config is None:
            raise ValueError(f"{owner} needs a router: {owner}(config='eccos.yaml') or {owner}(router=Router(...))")
        return Router.from_yaml(config)
    if not isinstance(router, Router):
        raise ValueError(  # noqa: TRY004 - pydantic reports value errors
            f"router is a {type(router).__name__}, must be an eccos_core.Router; "
            f"for a configuration file write {owner}(config=...)"
        )
    return router


def _names(given: Any) -> frozenset[str]:
    return frozenset([given] if isinstance(given, str) else given)


def window_of(pool: Sequence[Model]) -> int:
    """The largest context window among the models, in tokens: a long request goes to a model that can hold it.

    LlamaIndex's own default where no model says.
    """
    return max((model.context_window for model in pool if model.context_window), default=DEFAULT_CONTEXT_WINDOW)


def output_of(pool: Sequence[Model], max_tokens: int | None) -> int:
    """Tokens to leave free for an answer: what is asked for, else LlamaIndex's default where models can say as much."""
    if max_tokens is not None:
        return max_tokens
    longest = [model.max_output_tokens for model in pool if model.max_output_tokens]
    return min([DEFAULT_NUM_OUTPUTS, *([max(longest)] if longest else [])])


def conversation_of(messages: Sequence[Message], parameters: Mapping[str, Any]) -> str | None:
    """A name for a conversation that nobody has named: a digest of its beginning, up to the first user message.

    All turns of an agent share their beginning, and so does what a provider has cached of them. None for a question
    that stands alone: without tools to come back from, and without an earlier answer.
    """
    if not parameters.get("tools") and all(message.get("role") != "assistant" for message in messages):
        return None
    beginning = []
    for message in messages:
        beginning.append((message.get("role"), message.get("content")))
        if message.get("role") == "user":
            break
    return hashlib.sha256(json.dumps(beginning, default=str).encode()).hexdigest()[:32]
