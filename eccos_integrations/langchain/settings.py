"""What `ChatEccos` and `EccosRouter` have in common: the router, and what may be asked of it per model or per call."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from eccos_core.domain import (
    Budget,
    Capability,
    Decision,
    Message,
    Model,
    OnInfeasible,
    Policy,
    QualityFloor,
    Request,
)
from eccos_core.errors import EccosError, did_you_mean

logger = logging.getLogger(__name__)

# what a call may say for itself, over what the model says
PER_CALL = frozenset(
    {
        "allow",
        "budget_usd",
        "deny",
        "min_quality",
        "model",
        "on_infeasible",
        "policy",
        "quality_floor",
        "required_tags",
        "session_id",
        "tenant",
        "wait_s",
    }
)
SESSION_KEYS = ("thread_id", "session_id", "conversation_id")  # LangGraph's, and those of LangSmith's threads
ELSEWHERE = {  # standard parameters of chat models that a pool has once per model, in its configuration
    "api_key": "keys belong to the models of the configuration (litellm_params.api_key: os.environ/NAME)",
    "base_url": "addresses belong to the models of the configuration (litellm_params.api_base)",
    "max_retries": "retries are set in the configuration, section eccos",
}


class LangChainSettings(BaseModel):
    """A router, and what to ask of it.

    Give `config` (path of a configuration file) or `router`. Where both are given, `router` is used, as the one that
    was made from `config`. The other fields hold for every call, and can be given per call (`bind`, `invoke(...)`).
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
    """Least predicted quality for every single request, in [0, 1]."""
    quality_floor: float | None = Field(default=None, ge=0, le=1)
    """Least mean predicted quality over a batch (a call alone is a batch of one). None: the policy of the router."""
    budget_usd: float | None = Field(default=None, ge=0)
    """Most USD for a batch, predicted (a call alone is a batch of one). None: the policy of the router."""
    on_infeasible: OnInfeasible = "error"
    """When `quality_floor` or `budget_usd` is out of reach: an error, or the nearest that can be reached."""
    session_id: str | None = None
    """The conversation. None: the thread of the configuration (`thread_id`), else known by its beginning."""
    tenant: str | None = None
    """Whose rules hold (section `eccos.tenants`)."""
    wait_s: float | None = Field(default=None, ge=0)
    """Longest wait for a free slot in seconds. None: the router's."""

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        fields = {name: field.alias or name for name, field in cls.model_fields.items()}
        known = {*fields, *fields.values()}
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
    def _with_a_router(self) -> LangChainSettings:
        from eccos_core.router import Router

        name = type(self).__name__
        if self.quality_floor is not None and self.budget_usd is not None:
            raise ValueError("give quality_floor or budget_usd, not both: the other one is what is optimised")
        if self.router is None:
            if self.config is None:
                raise ValueError(f"{name} needs a router: {name}(config='eccos.yaml') or {name}(router=Router(...))")
            self.router = Router.from_yaml(self.config)
        elif not isinstance(self.router, Router):
            raise ValueError(
                f"router is a {type(self.router).__name__}, must be an eccos_core.Router; "
                f"for a configuration file write {name}(config=...)"
            )
        return self

    # ------------------------------------------------------------------------------------------------------ per call

    def _asked(self, given: Mapping[str, Any], name: str) -> Any:
        """What the call says, else what the model says."""
        return given[name] if given.get(name) is not None else getattr(self, name)

    def _policy(self, given: Mapping[str, Any]) -> Policy | None:
        """The policy that the call or the model asks for; None: the router's own."""
        if given.get("policy") is not None:
            policy: Policy = given["policy"]
            return policy
        floor, budget = given.get("quality_floor"), given.get("budget_usd")
        if floor is None and budget is None:
            floor, budget = self.quality_floor, self.budget_usd
        if floor is not None and budget is not None:
            raise ValueError("give quality_floor or budget_usd, not both: the other one is what is optimised")
        on_infeasible = self._asked(given, "on_infeasible")
        if floor is not None:
            return QualityFloor(floor, on_infeasible)
        return Budget(budget, on_infeasible) if budget is not None else None

    def _request(
        self, messages: tuple[Message, ...], parameters: Mapping[str, Any], given: Mapping[str, Any]
    ) -> Request:
        """The request; `given` is what the call says for itself."""
        allow = self._asked(given, "allow")
        model = self._asked(given, "model")
        if model is not None:
            allow = {model}
        return Request(
            messages=messages,
            parameters=parameters,
            allow=None if allow is None else _names(allow),
            deny=_names(self._asked(given, "deny")),
            required_tags=_names(given["required_tags"])
            if given.get("required_tags") is not None
            else self.required_tags,
            min_quality=self._asked(given, "min_quality"),
            session_id=self._asked(given, "session_id") or conversation_of(messages, parameters),
            tenant=self._asked(given, "tenant"),
            deadline_s=self._asked(given, "wait_s"),
        )

    def _decided(self, requests: Sequence[Request], policy: Policy | None) -> list[Decision | EccosError]:
        """One assignment for all; a request that no model may answer has its error in its place."""
        return list(self.router.route_each(requests, policy=policy))

    def _in_session(self, config: RunnableConfig | None, given: dict[str, Any]) -> dict[str, Any]:
        """The call's own settings, with the conversation that the configuration names."""
        if given.get("session_id") is not None or self.session_id is not None:
            return given
        session = session_of(config)
        return given if session is None else {**given, "session_id": session}

    # ---------------------------------------------------------------------------------------------- copies and pickles

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        """A copy has settings of its own, and shares the router."""
        memo = {} if memo is None else memo
        memo[id(self.router)] = self.router
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        """Without the router, which holds keys, locks and connections; it is made anew from the configuration."""
        if self.config is None:
            raise TypeError(
                f"{type(self).__name__}(router=...) cannot be pickled: a router holds keys, locks and connections; "
                f"use {type(self).__name__}(config=...), of which only the path is pickled"
            )
        state = super().__getstate__()
        return {**state, "__dict__": {**state["__dict__"], "router": None}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        from eccos_core.router import Router

        super().__setstate__(state)
        assert self.config is not None
        self.__dict__["router"] = Router.from_yaml(self.config)


def _names(given: Any) -> frozenset[str]:
    if isinstance(given, frozenset):
        return given
    return frozenset([given] if isinstance(given, str) else given)


def profile_of(pool: Sequence[Model]) -> dict[str, Any]:
    """LangChain's model profile of the pool as a whole: a request goes only to models that can do what it needs."""
    can = frozenset[Capability]().union(*(model.capabilities for model in pool))
    profile: dict[str, Any] = {
        "tool_calling": Capability.TOOLS in can,
        "tool_choice": Capability.TOOLS in can,
        "structured_output": Capability.JSON_SCHEMA in can,
        "image_inputs": Capability.VISION in can,
    }
    windows = [model.context_window for model in pool if model.context_window is not None]
    if len(windows) == len(pool):
        profile["max_input_tokens"] = max(windows)
    return profile


def session_of(config: RunnableConfig | None) -> str | None:
    """The conversation that a configuration names, or the one that surrounds this call does; None where none does."""
    for each in (config, var_child_runnable_config.get()):
        for section in ("configurable", "metadata"):
            found: Mapping[str, Any] = (each or {}).get(section) or {}  # type: ignore[assignment]
            for key in SESSION_KEYS:
                if isinstance(found.get(key), str) and found[key]:
                    return str(found[key])
    return None


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
