"""Calls one deployment at several efforts: each effort's parameters go into its calls.

Where a provider refuses an effort, the request is asked again without it, so that it is answered all the same.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any, Final, cast

from eccos_core.domain import Chunk, Completion, Model, Request
from eccos_core.errors import BackendError, FailureKind
from eccos_core.io.tokens import text_key
from eccos_core.protocols import Backend, gives_logprobs, unsupported_parameters

OUTPUT_LIMITS: Final = ("max_tokens", "max_completion_tokens")
THINKING: Final = frozenset({"reasoning_effort", "thinking"})
"""The parameters that say how long a model thinks."""

SHARE_OF_ANSWER: Final = {
    "none": 0.0,
    "disable": 0.0,
    "minimal": 0.1,
    "low": 0.2,
    "medium": 0.5,
    "high": 0.8,
    "xhigh": 0.95,
    "max": 1.0,
}
"""How much of its longest answer a model may think at each effort, as OpenRouter translates them (its docs, 2026)."""

_REFUSED = frozenset({FailureKind.BAD_REQUEST, FailureKind.UNSUPPORTED})
_log = logging.getLogger("eccos.backend")


def effort_level(parameters: Mapping[str, Any]) -> float | None:
    """Return how much of its longest answer a model may think, in [0, 1]. None where the parameters do not say."""
    effort = parameters.get("reasoning_effort")
    effort = effort.get("effort") if isinstance(effort, Mapping) else effort
    return SHARE_OF_ANSWER.get(effort) if isinstance(effort, str) else None


def at_effort(request: Request, effort: Mapping[str, Any]) -> Request:
    """Return the request with the parameters of an effort.

    The request's own parameters win. Of two limits of the answer's length the smaller one holds.
    """
    own = {name: value for name, value in request.parameters.items() if value is not None or name not in effort}
    limits = {name: own[name] for name in OUTPUT_LIMITS if isinstance(own.get(name), int)}
    given = [effort[name] for name in OUTPUT_LIMITS if effort.get(name) is not None]
    if limits and given:  # never both of their names, which providers refuse
        own |= {name: min(limit, *given) for name, limit in limits.items()}
        effort = {name: value for name, value in effort.items() if name not in OUTPUT_LIMITS}
    if THINKING & own.keys():  # the caller says how to think, in whatever form
        effort = {name: value for name, value in effort.items() if name not in THINKING}
    return replace(request, parameters={**effort, **own})


class EffortBackend:
    """Calls the models of `backend`, those in `efforts` with the call parameters of their effort.

    - `efforts` maps a model's name (`large@low`) to its parameters. `models` is the pool, and says which models are
      efforts of one deployment.
    - The parameters of a request win over those of the effort. A request with a `reasoning_effort` or `thinking` of
      its own does not take the other efforts of a deployment that has just this one (`unsupported_parameters`).
    - A provider that refuses an effort (400) is asked again without it, at once. Where its message names a parameter
      of the effort, later calls leave the effort out from the start. `rejected` names these models.
    """

    def __init__(self, backend: Backend, models: Mapping[str, Model], efforts: Mapping[str, Mapping[str, Any]]) -> None:
        self.backend = backend
        self._efforts = {name: dict(parameters) for name, parameters in efforts.items()}
        self._siblings = {
            name: tuple(other for other in self._efforts if models[other].deployment == models[name].deployment)
            for name in self._efforts
        }
        self._rejected: set[str] = set()
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> str | None:
        """A digest of what is called, and how. None where the backend behind this one does not say."""
        inner: str | None = getattr(self.backend, "fingerprint", None)
        return None if inner is None else text_key(f"{inner} {sorted(self._efforts.items())!r}")

    @property
    def efforts(self) -> Mapping[str, Mapping[str, Any]]:
        """The call parameters of each effort."""
        return self._efforts

    @property
    def rejected(self) -> AbstractSet[str]:
        """The models whose effort their provider refuses. They are called without it."""
        with self._lock:
            return frozenset(self._rejected)

    def complete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        asked = self._asked(model, request)
        try:
            return self.backend.complete(model, asked)
        except BackendError as error:
            refusal = self._refusal(model, request, asked, error)
        return self._without_effort(refusal, self.backend.complete(model, request))

    async def acomplete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        asked = self._asked(model, request)
        try:
            return await self.backend.acomplete(model, asked)
        except BackendError as error:
            refusal = self._refusal(model, request, asked, error)
        return self._without_effort(refusal, await self.backend.acomplete(model, request))

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """See `Backend`. Only a stream of which nothing has arrived is asked for again."""
        asked, began = self._asked(model, request), False
        try:
            with closing(self.backend.stream(model, asked)) as chunks:
                for chunk in chunks:
                    began = True
                    yield chunk
            return
        except BackendError as error:
            if began:
                raise
            refusal = self._refusal(model, request, asked, error)
        with closing(self.backend.stream(model, request)) as chunks:
            for chunk in chunks:
                yield self._chunk_without_effort(refusal, chunk)

    async def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See `Backend`. Only a stream of which nothing has arrived is asked for again."""
        asked, began = self._asked(model, request), False
        try:
            async with aclosing(cast(Any, self.backend.astream(model, asked))) as chunks:
                async for chunk in chunks:
                    began = True
                    yield chunk
            return
        except BackendError as error:
            if began:
                raise
            refusal = self._refusal(model, request, asked, error)
        async with aclosing(cast(Any, self.backend.astream(model, request))) as chunks:
            async for chunk in chunks:
                yield self._chunk_without_effort(refusal, chunk)

    def unsupported_parameters(self, model: str, parameters: Mapping[str, Any]) -> frozenset[str]:
        """See `SelectiveBackend`. It names a parameter that says how to think when another effort has its value."""
        refused = unsupported_parameters(self.backend, model, parameters)
        if model not in self._efforts:
            return refused
        asked = {name: parameters[name] for name in THINKING if parameters.get(name) is not None}
        other = {
            name
            for name, value in asked.items()
            if self._efforts[model].get(name) != value
            and any(self._efforts[sibling].get(name) == value for sibling in self._siblings[model])
        }
        return refused | other

    def gives_logprobs(self, model: str) -> bool:
        """See `LogprobSource`."""
        return gives_logprobs(self.backend, model)

    def close(self) -> None:
        """Close the backend behind this one, where it can be closed."""
        close = getattr(self.backend, "close", None)
        if close is not None:
            close()

    def _asked(self, model: str, request: Request) -> Request:
        """Return the request as the model's effort asks it, or the request itself."""
        effort = self._efforts.get(model)
        if not effort or model in self._rejected:
            return request
        return at_effort(request, effort)

    def _refusal(self, model: str, request: Request, asked: Request, error: BackendError) -> _Refusal:
        """Return what to report when the call without the effort goes well. Raises the error where it cannot help."""
        added = {
            name: value for name, value in asked.parameters.items() if request.parameters.get(name, _ABSENT) != value
        }
        if not added or error.kind not in _REFUSED:
            raise error
        named = [name for name in added if _names(str(error), name)]
        return _Refusal(model, tuple(sorted(added)), bool(named) or error.kind is FailureKind.UNSUPPORTED, error.kind)

    def _without_effort(self, refusal: _Refusal, completion: Completion) -> Completion:
        """Report that a model answered without its effort. Returns its completion with both calls counted."""
        with self._lock:
            is_new = refusal.model not in self._rejected
            if refusal.is_lasting:
                self._rejected.add(refusal.model)
        if is_new:
            _log.warning(
                "%s: the provider refused its effort (%s), and answered without it. %s",
                refusal.model,
                ", ".join(refusal.parameters),
                "Until the configuration changes, this model is called without it. Correct its model_info.efforts"
                if refusal.is_lasting
                else "The next request asks for it again",
                extra={
                    "eccos": {
                        "event": "effort_rejected",
                        "model": refusal.model,
                        "parameters": list(refusal.parameters),
                        "kind": refusal.kind,
                        "lasting": refusal.is_lasting,
                    }
                },
            )
        return replace(completion, attempts=completion.attempts + 1)

    def _chunk_without_effort(self, refusal: _Refusal, chunk: Chunk) -> Chunk:
        if chunk.completion is None:
            return chunk
        return replace(chunk, completion=self._without_effort(refusal, chunk.completion))


class _Refusal:
    """A provider refused the parameters of a model's effort. `is_lasting`: its message leaves no doubt."""

    __slots__ = ("is_lasting", "kind", "model", "parameters")

    def __init__(self, model: str, parameters: tuple[str, ...], is_lasting: bool, kind: FailureKind) -> None:
        self.model = model
        self.parameters = parameters
        self.is_lasting = is_lasting
        self.kind = kind


_ABSENT = object()


def _names(message: str, parameter: str) -> bool:
    """Whether an error's message speaks of a parameter, in whatever spelling."""
    said = message.lower().replace("-", "_").replace(" ", "_")
    words = {parameter, "reasoning", "thinking", "effort"} if parameter in THINKING else {parameter}
    return any(word in said for word in words)
