"""What a caller asks for: the router's choice, a policy, or one model, with the fields that are eccos' own."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eccos_core.domain import Message, Request
from eccos_core.errors import RequestError, did_you_mean
from eccos_core.protocols import unsupported_parameters
from eccos_core.router import Router
from eccos_core.server.errors import ApiError
from eccos_core.server.gate import Caller

ROUTER = "eccos"  # the model name that lets the router choose
OWN_FIELDS = ("min_quality", "session_id", "policy", "allow", "deny", "required_tags", "deadline_s")
OWN_HEADERS: Mapping[str, str] = {f"x-eccos-{name.replace('_', '-')}": name for name in ("session_id", "policy")}
_NUMBERS, _TEXTS = ("min_quality", "deadline_s"), ("session_id", "policy")


@dataclass(frozen=True, slots=True)
class OwnFields:
    """The fields of a request that only eccos knows, as `Request` takes them."""

    values: Mapping[str, Any]

    @classmethod
    def read(cls, given: object, headers: Mapping[str, str]) -> OwnFields:
        """Read `extra_body: {"eccos": {...}}` and headers. The body wins. Raises `ApiError` for what is wrong."""
        found: dict[str, Any] = {name: headers[header] for header, name in OWN_HEADERS.items() if header in headers}
        if (least := headers.get("x-eccos-min-quality")) is not None:
            found["min_quality"] = _number(least, "x-eccos-min-quality")
        if given is not None and not isinstance(given, dict):
            raise ApiError("invalid_request", 'eccos must be an object such as {"min_quality": 0.8}', param="eccos")
        for name, value in (given or {}).items():
            if name not in OWN_FIELDS:
                hint = did_you_mean(name, OWN_FIELDS) or "."
                known = ", ".join(OWN_FIELDS)
                message = f"eccos.{name} is unknown{hint} There are: {known}"
                raise ApiError("invalid_request", message, param=f"eccos.{name}")
            found[name] = _checked(name, value)
        return cls(found)


def _checked(name: str, value: object) -> object:
    place = f"eccos.{name}"
    if name in _NUMBERS:
        return _number(value, place)
    if name in _TEXTS:
        if not isinstance(value, str) or not value:
            raise ApiError("invalid_request", f"{place} must be a text that is not empty", param=place)
        return value
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ApiError("invalid_request", f"{place} must be a list of names", param=place)
    return frozenset(value)


def _number(value: object, place: str) -> float:
    number = isinstance(value, (int, float, str)) and not isinstance(value, bool)
    with contextlib.suppress(ValueError, OverflowError):
        if number:
            return float(value)  # type: ignore[arg-type]
    raise ApiError("invalid_request", f"{place} must be a number", param=place)


def build_request(
    router: Router,
    caller: Caller,
    model: object,
    messages: Sequence[Message],
    parameters: Mapping[str, Any],
    own: OwnFields,
) -> Request:
    """Build the request of a caller. `model` is `eccos`, `eccos:POLICY`, or a model of the pool.

    Raises `ApiError` for another model, and for a request that no router takes.
    """
    if not isinstance(model, str) or not model:
        raise ApiError("invalid_request", f"model must be a text such as {ROUTER!r}", param="model")
    fields = dict(own.values)
    if model != ROUTER:
        name, _, policy = model.partition(":")
        if name == ROUTER and policy:
            fields["policy"] = policy
        elif model in known_models(router):
            fields["allow"] = frozenset({model})
        else:
            known = [ROUTER, *(f"{ROUTER}:{each}" for each in router.parts.policies), *known_models(router)]
            hint = did_you_mean(model, known) or "."
            message = f"unknown model {model!r}{hint} There are: {', '.join(known)}"
            raise ApiError("not_found", message, code="model_not_found", param="model")
    if fields.get("policy") is not None and fields["policy"] not in router.parts.policies:
        known = list(router.parts.policies)
        hint = did_you_mean(str(fields["policy"]), known) or "."
        message = f"unknown policy {fields['policy']!r}{hint} There are: {', '.join(known)}"
        raise ApiError("not_found", message, code="model_not_found", param="model")
    try:
        request = Request.of(messages, parameters=dict(parameters), tenant=caller.tenant, **fields)
    except RequestError as error:
        raise ApiError("invalid_request", str(error), param="messages") from error
    return replace(request, session_id=_scoped(request.session_id, caller))


def _scoped(session_id: str | None, caller: Caller) -> str | None:
    """A session belongs to its key, so that two callers who choose the same name do not share one."""
    return None if session_id is None else f"{caller.key_id}/{session_id}"


def known_models(router: Router) -> tuple[str, ...]:
    """Return the models that a caller may name."""
    return tuple(model.name for model in router.models)


def leave_out_unsupported(
    router: Router, parameters: Mapping[str, Any], names: Sequence[str], model: object
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Leave out of `names` what no model of the pool takes. Returns the parameters, and what was left out.

    Coding agents ask every model to think. A pool without such a model can still answer.
    """
    asked = [name for name in (known_models(router)) if model in (name, ROUTER) or str(model).startswith(f"{ROUTER}:")]
    left_out = tuple(
        name
        for name in names
        if parameters.get(name) is not None
        and all(unsupported_parameters(router.backend, each, {name: parameters[name]}) for each in asked)
    )
    return {name: value for name, value in parameters.items() if name not in left_out}, left_out
