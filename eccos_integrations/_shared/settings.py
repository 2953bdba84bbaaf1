"""What you may ask of a pool, per model object or per call: the router, who may answer, and how to call."""

from __future__ import annotations

import difflib
import functools
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetPydanticSchema,
    PlainSerializer,
    SkipValidation,
    field_validator,
    model_validator,
)

from eccos_core.domain import Message, Model, Request
from eccos_core.errors import RequestError, did_you_mean
from eccos_core.router import Router
from eccos_core.routing.eligibility import find_exclusion
from eccos_integrations._shared.errors import InvalidRequestError
from eccos_integrations._shared.messages import name_conversation

logger = logging.getLogger(__name__)

# settings that one call may give for itself
CALL_SETTINGS = frozenset(
    {"allow", "deny", "min_quality", "model", "required_tags", "session_id", "tenant", "wait_s"},
)
CALL_PARAMETERS = ("temperature", "top_p", "max_tokens", "stop", "seed", "timeout")
MISSPELLED = 0.85  # likeness of a misspelled name. `top_k` is .8 like `top_p`, and a parameter of its own
_ANY_MESSAGES: tuple[Message, ...] = ({"role": "user", "content": ""},)
_SET_PER_MODEL = {  # usual parameters of chat models that a pool has once per model, in its configuration
    "api_base": "addresses belong to the models of the configuration (litellm_params.api_base)",
    "api_key": "keys belong to the models of the configuration (litellm_params.api_key: os.environ/NAME)",
    "base_url": "addresses belong to the models of the configuration (litellm_params.api_base)",
    "max_retries": "retries are set in the configuration, section eccos",
}

# A type checker lets you give one name, a list or a set. What you read back is always a frozenset. What is stored is a
# sorted list, the same in every process.
Names: TypeAlias = Annotated[
    Collection[str], GetPydanticSchema(lambda _, handler: handler(frozenset[str])), PlainSerializer(sorted)
]


def build_router(config: str | Path) -> Router:
    """Return this process's router of a configuration file. All integrations share its slots, budgets and sessions."""
    return Router.shared(config)


def resolve_router(owner: str, config: str | Path | None, router: object) -> Router:
    """Return `router`, or build the one that `config` describes.

    `owner` is the class that needs it, for messages. Raises `ValueError` when neither is given or `router` is
    something else. Raises `ConfigError` for a file that cannot be used.
    """
    if router is None:
        if config is None:
            raise ValueError(f"{owner} needs a router: {owner}(config='eccos.yaml') or {owner}(router=Router(...))")
        return build_router(config)
    if not isinstance(router, Router):
        raise ValueError(  # noqa: TRY004 - pydantic reports value errors
            f"router is a {type(router).__name__}, must be an eccos_core.Router. "
            f"For a configuration file write {owner}(config=...)."
        )
    return router


class RouterSettings(BaseModel):
    """A router, and what to ask of it.

    Give `config` (path of a configuration file) or `router`. When you give both, `router` is used, and `config` is
    what a pickle remembers. The other fields hold for every call, and a call can override them.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, hide_input_in_errors=True, extra="forbid")

    config: str | Path | None = None
    """Path of the configuration file (a LiteLLM configuration with a section `eccos`)."""
    router: Annotated[Router, SkipValidation] = Field(default=None, repr=False, exclude=True)  # type: ignore[assignment] # never None once validated
    """An `eccos_core.Router`."""
    model: str | None = None
    """Only this model of the pool may answer. None: the router decides."""
    allow: Names | None = None
    """Names of the models that may answer. None: all."""
    deny: Names = frozenset()
    """Names of models that may not answer."""
    required_tags: Names = frozenset()
    """Tags that a model must carry, all of them."""
    min_quality: float | None = Field(default=None, ge=0, le=1)
    """Least predicted quality of the model for every single request, in [0, 1]."""
    session_id: str | None = None
    """The conversation. None: eccos recognises it by its beginning."""
    tenant: str | None = None
    """Whose rules hold (section `eccos.tenants`)."""
    wait_s: float | None = Field(default=None, ge=0)
    """Longest wait for a free slot in seconds. None: as the router is set."""

    @model_validator(mode="before")
    @classmethod
    def _reject_unknown_names(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        fields = {name: field.alias or name for name, field in cls.model_fields.items()}
        known = {*fields, *fields.values()}
        kept = {}
        for name, value in given.items():
            if name in _SET_PER_MODEL and name not in known:
                logger.info("%s(%s=...) has no effect: %s", cls.__name__, name, _SET_PER_MODEL[name])
            elif name not in known:
                raise ValueError(f"{cls.__name__} has no parameter {name!r}{did_you_mean(name, known) or '.'}")
            else:
                kept[name] = value
        return kept

    @field_validator("config", mode="before")
    @classmethod
    def _write_out_path(cls, given: Any) -> Any:
        return str(given) if isinstance(given, Path) else given

    @field_validator("allow", "deny", "required_tags", mode="before")
    @classmethod
    def _wrap_one_name(cls, given: Any) -> Any:
        """Read one name as a list of one, not as a list of letters."""
        return [given] if isinstance(given, str) else given

    @field_validator("session_id", mode="before")
    @classmethod
    def _write_out_session(cls, given: Any) -> Any:
        """Take a number or a UUID as the name of a conversation, as LangGraph does."""
        return None if given is None else str(given)

    @model_validator(mode="after")
    def _set_router(self) -> RouterSettings:
        self.router = resolve_router(type(self).__name__, self.config, self.router)
        return self

    def candidates(self) -> tuple[Model, ...]:
        """Return the models that may answer, by these settings and the tenant's rules.

        Return the whole pool when none may, or when the tenant is unknown. The call then says so.
        """
        models = self.router.models
        try:
            request = self.router.parts.tenants.narrow(self._build_request(_ANY_MESSAGES, {}, {}))
        except RequestError:
            return models
        return tuple(model for model in models if find_exclusion(request, model, 0, frozenset()) is None) or models

    # ------------------------------------------------------------------------------------------------------ per call

    def _choose_setting(self, given: Mapping[str, Any], name: str) -> Any:
        """Return what the call says, else what this object says."""
        return given[name] if given.get(name) is not None else getattr(self, name)

    def _build_request(
        self, messages: tuple[Message, ...], parameters: Mapping[str, Any], given: Mapping[str, Any]
    ) -> Request:
        """Build the request. `given` is what the call says for itself."""
        model, allow = self._choose_setting(given, "model"), self._choose_setting(given, "allow")
        session = self._choose_setting(given, "session_id")
        if session in (None, ""):
            session = name_conversation(messages, parameters)
        if model is not None:
            allow = {model}
        return Request(
            messages=messages,
            parameters=parameters,
            allow=None if allow is None else _freeze_names(allow),
            deny=_freeze_names(self._choose_setting(given, "deny")),
            required_tags=_freeze_names(self._choose_setting(given, "required_tags")),
            min_quality=self._choose_setting(given, "min_quality"),
            session_id=None if session is None else str(session),
            tenant=self._choose_setting(given, "tenant"),
            deadline_s=self._choose_setting(given, "wait_s"),
        )

    # ---------------------------------------------------------------------------------------------- copies and pickles

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        """Copy the settings, and share the router."""
        memo = {} if memo is None else memo
        memo[id(self.router)] = self.router
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        """Leave the router out. It holds keys, locks and connections, and is built again from the configuration."""
        self._require_config()
        state = super().__getstate__()
        return {**state, "__dict__": {**state["__dict__"], "router": None}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.__dict__["router"] = build_router(self._require_config())

    def _require_config(self) -> str | Path:
        return require_config(type(self).__name__, self.config)


def require_config(owner: str, config: str | Path | None) -> str | Path:
    """Return the path that a pickle of `owner` remembers. Raise `TypeError` when there is none."""
    if config is None:
        raise TypeError(
            f"{owner}(router=...) cannot be pickled, because a router holds keys, locks and connections. "
            f"Use {owner}(config=...). Its pickle holds the path only."
        )
    return config


class CallParameters(BaseModel):
    """Parameters that every call of a model is made with, unless the call gives its own."""

    temperature: float | None = None
    """Sampling temperature."""
    top_p: float | None = None
    """Probability mass of nucleus sampling, in [0, 1]."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most output tokens of an answer."""
    stop: list[str] | str | None = None
    """Texts at which an answer ends."""
    seed: int | None = None
    """Seed for answers that can be had again, where a provider offers it."""
    timeout: float | None = Field(default=None, gt=0)
    """Longest wait for one call of a model in seconds."""

    @field_validator("stop", mode="before")
    @classmethod
    def _wrap_one_stop(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given

    def _list_stops(self) -> list[str] | None:
        return [self.stop] if isinstance(self.stop, str) else self.stop or None

    def _collect_parameters(
        self, extra: Mapping[str, Any], given: Mapping[str, Any], ours: Collection[str]
    ) -> dict[str, Any]:
        """Return the OpenAI parameters of a call: of this object, then `extra`, then `given` without `ours`.

        Raises `InvalidRequestError` for more than one answer, and for a misspelled parameter.
        """
        parameters = {name: value for name in CALL_PARAMETERS if (value := getattr(self, name)) is not None}
        parameters |= extra
        parameters |= pick_parameters(given, ours)
        if parameters.get("n") not in (None, 1):
            raise InvalidRequestError(
                f"n is {parameters['n']}, must be 1. A call has one answer. Call again to get more answers."
            )
        return parameters


def find_context_window(pool: Sequence[Model], at_least: int = 1) -> int | None:
    """Return the smallest context window among the models, in tokens. None where no model says.

    A framework fills the window that it is told. Told a larger one, it would leave the cheap models without room.
    Windows below `at_least` do not count: what the framework sends anyway does not fit there.
    """
    windows = [model.context_window for model in pool if model.context_window is not None]
    return min((window for window in windows if window >= at_least), default=None)


def pick_parameters(given: Mapping[str, Any], ours: Collection[str]) -> dict[str, Any]:
    """Return the call parameters for the model: all that a call is given, without `ours`.

    Raises `InvalidRequestError` for a parameter that looks like a misspelled one.
    """
    parameters = {name: value for name, value in given.items() if name not in ours and value is not None}
    for name in parameters.keys() - set(CALL_PARAMETERS):
        meant = _find_meant(name, frozenset({*ours, *CALL_PARAMETERS}))
        if meant is not None:
            raise InvalidRequestError(
                f"unknown parameter {name!r}; did you mean {meant!r}? To send {name!r} to the provider as it is, "
                "put it among the model's further parameters (model_kwargs in LangChain, additional_kwargs in "
                "LlamaIndex)."
            )
    return parameters


@functools.lru_cache(maxsize=1024)
def _find_meant(name: str, known: frozenset[str]) -> str | None:
    """Return the known name that was probably meant. None for a parameter of its own."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=MISSPELLED)), None)


def _freeze_names(given: Collection[str]) -> frozenset[str]:
    return frozenset([given] if isinstance(given, str) else given)
