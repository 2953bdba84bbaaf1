"""Hard filters: which model may answer which request. They are never traded against cost, fallbacks included."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from eccos_core.domain import BoolArray, Capability, Model, Request
from eccos_core.errors import Exclusion, ExclusionKind, NoEligibleModelError, UnknownModelError

Unsupported: TypeAlias = Callable[[str, Mapping[str, Any]], frozenset[str]]  # (model, parameters) -> refused names


def _takes_all(_: str, __: Mapping[str, Any]) -> frozenset[str]:
    return frozenset()


def needs_of(request: Request, *, streaming: bool = False) -> frozenset[Capability]:
    """What the request needs of a model: what it says, and what its messages and parameters imply."""
    needs = set(request.needs)
    parameters = request.parameters
    if parameters.get("tools") or parameters.get("functions"):
        needs.add(Capability.TOOLS)
        if parameters.get("parallel_tool_calls"):
            needs.add(Capability.PARALLEL_TOOLS)
    response_format = parameters.get("response_format")
    if isinstance(response_format, type) or (
        isinstance(response_format, Mapping) and response_format.get("type") == "json_schema"
    ):
        needs.add(Capability.JSON_SCHEMA)
    if any(_has_image(message.get("content")) for message in request.messages):
        needs.add(Capability.VISION)
    if streaming:
        needs.add(Capability.STREAMING)
    return frozenset(needs)


def _has_image(content: Any) -> bool:
    if not isinstance(content, Sequence) or isinstance(content, str):
        return False
    return any(
        isinstance(part, Mapping) and part.get("type") in ("image_url", "image", "input_image") for part in content
    )


def find_exclusion(
    request: Request,
    model: Model,
    input_tokens: int,
    needs: frozenset[Capability],
    unsupported: Unsupported = _takes_all,
) -> Exclusion | None:
    """Why `model` may not answer `request`. None when it may.

    `unsupported` names what of the request's parameters a model would refuse. The context window must hold the input
    and the output that was asked for (max_tokens, else one token).
    """
    if request.allow is not None and not model.is_named_in(request.allow):
        return Exclusion(ExclusionKind.ALLOW_LIST, "not on the request's allow list")
    if model.is_named_in(request.deny):
        return Exclusion(ExclusionKind.DENY_LIST, "on the request's deny list")
    if missing := sorted(request.required_tags - model.tags):
        return Exclusion(ExclusionKind.TAGS, f"lacks the tag {', '.join(missing)}")
    if missing := sorted(needs - model.capabilities):
        return Exclusion(ExclusionKind.CAPABILITIES, f"cannot do {', '.join(missing)}")
    if refused := sorted(unsupported(model.name, request.parameters)):
        return Exclusion(ExclusionKind.PARAMETERS, f"does not take the parameter {', '.join(refused)}")
    if model.context_window is not None:
        output_tokens = _requested_output(request)
        if input_tokens + output_tokens > model.context_window:
            return Exclusion(
                ExclusionKind.CONTEXT_WINDOW,
                f"context window of {model.context_window} tokens is too small for {input_tokens} tokens in and "
                f"{output_tokens} out",
            )
    return None


def _requested_output(request: Request) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        value = request.parameters.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return 1


def eligibility_mask(
    requests: Sequence[Request],
    models: Sequence[Model],
    input_tokens: Sequence[int],
    *,
    streaming: bool = False,
    unsupported: Unsupported = _takes_all,
) -> BoolArray:
    """(R, M) mask of who may answer what.

    Raises `NoEligibleModelError`, with the reason per model, for a request that no model may answer, and
    `UnknownModelError` for an allow or deny list that names a model outside the pool.
    """
    windows = np.array([np.inf if model.context_window is None else model.context_window for model in models])
    mask: BoolArray = np.asarray(input_tokens)[:, None] + 1 <= windows  # all that a plain request depends on
    demanding = [row for row, request in enumerate(requests) if streaming or not _is_plain(request)]
    for row in sorted({*demanding, *np.flatnonzero(~mask.any(axis=1)).tolist()}):
        needs = needs_of(requests[row], streaming=streaming)
        mask[row] = _row(requests[row], models, int(input_tokens[row]), needs, unsupported)
    return mask


def _is_plain(request: Request) -> bool:
    """Whether a request needs nothing of a model but room for its text."""
    return not (
        request.parameters
        or request.needs
        or request.deny
        or request.required_tags
        or request.allow is not None
        or any(not isinstance(message.get("content"), str) for message in request.messages)
    )


def _row(
    request: Request,
    models: Sequence[Model],
    input_tokens: int,
    needs: frozenset[Capability],
    unsupported: Unsupported,
) -> list[bool]:
    names = [model.name for model in models]
    deployments = {model.deployment for model in models}
    for name in (request.allow or frozenset()) | request.deny:
        if name not in names and name not in deployments:
            raise UnknownModelError(name, names)
    reasons = {model.name: find_exclusion(request, model, input_tokens, needs, unsupported) for model in models}
    if all(reason is not None for reason in reasons.values()):
        raise NoEligibleModelError(request.id, {name: reason for name, reason in reasons.items() if reason is not None})
    return [reasons[name] is None for name in names]
