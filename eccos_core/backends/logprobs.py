"""Ask for log-probabilities where a model gives them, and never fail because it does not."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, closing
from typing import Any

from eccos_core.domain import Chunk, Completion, Request
from eccos_core.errors import BackendError, FailureKind, StreamInterrupted
from eccos_core.protocols import Backend, gives_logprobs, unsupported_parameters

_REFUSALS = frozenset({FailureKind.BAD_REQUEST, FailureKind.UNSUPPORTED, FailureKind.NOT_FOUND})
_log = logging.getLogger("eccos.backend")


def with_logprobs(request: Request, model: str, backend: Backend) -> Request:
    """Return the request with `logprobs: true`, where the model gives log-probabilities.

    A request that says itself whether it wants them stays as it is, and so does one whose model gives none.
    """
    if request.parameters.get("logprobs") is not None or not gives_logprobs(backend, model):
        return request
    return request.with_parameters({"logprobs": True})


class LogprobBackend:
    """A `Backend` that asks another one for log-probabilities (`with_logprobs`).

    Where a provider refuses the parameter, the call is made again without it. Nothing is paid twice: a provider that
    refuses a request has answered nothing. A model whose second call succeeds is remembered, and not asked again. Safe
    to use from several threads and event loops.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._lock = threading.Lock()
        self._refusing: set[str] = set()
        self._taking: set[str] = set()

    @property
    def refusing(self) -> frozenset[str]:
        """The models that refused the parameter so far."""
        with self._lock:
            return frozenset(self._refusing)

    @property
    def fingerprint(self) -> str | None:
        """What the backend behind this one calls. None where it does not say."""
        return getattr(self.backend, "fingerprint", None)

    def complete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        asking = self._asking(model, request)
        try:
            completion = self.backend.complete(model, asking)
        except BackendError as error:
            if not self._may_refuse(model, asking, request, error):
                raise
            completion = self.backend.complete(model, request)
            self._remember_refusal(model)
        else:
            self._remember_taken(model, asking, request)
        return completion

    async def acomplete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        asking = self._asking(model, request)
        try:
            completion = await self.backend.acomplete(model, asking)
        except BackendError as error:
            if not self._may_refuse(model, asking, request, error):
                raise
            completion = await self.backend.acomplete(model, request)
            self._remember_refusal(model)
        else:
            self._remember_taken(model, asking, request)
        return completion

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """See `Backend`. A provider refuses before the first piece, so no piece comes twice."""
        asking = self._asking(model, request)
        try:
            with closing(self.backend.stream(model, asking)) as chunks:
                yield from chunks
            self._remember_taken(model, asking, request)
            return
        except BackendError as error:
            if not self._may_refuse(model, asking, request, error):
                raise
        with closing(self.backend.stream(model, request)) as chunks:
            yield from chunks
        self._remember_refusal(model)

    async def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See `Backend`. A provider refuses before the first piece, so no piece comes twice."""
        asking = self._asking(model, request)
        try:
            async with aclosing(self.backend.astream(model, asking)) as chunks:
                async for chunk in chunks:
                    yield chunk
            self._remember_taken(model, asking, request)
            return
        except BackendError as error:
            if not self._may_refuse(model, asking, request, error):
                raise
        async with aclosing(self.backend.astream(model, request)) as chunks:
            async for chunk in chunks:
                yield chunk
        self._remember_refusal(model)

    def unsupported_parameters(self, model: str, parameters: Mapping[str, Any]) -> frozenset[str]:
        """See `SelectiveBackend`."""
        return unsupported_parameters(self.backend, model, parameters)

    def gives_logprobs(self, model: str) -> bool:
        """See `LogprobSource`. A model that refused gives none."""
        return model not in self.refusing and gives_logprobs(self.backend, model)

    def close(self) -> None:
        """Close the backend behind this one, where it can be closed."""
        close = getattr(self.backend, "close", None)
        if close is not None:
            close()

    def _asking(self, model: str, request: Request) -> Request:
        return request if model in self.refusing else with_logprobs(request, model, self.backend)

    def _may_refuse(self, model: str, asking: Request, request: Request, error: BackendError) -> bool:
        """Tell whether the parameter may be what the provider refused. A model that took it before does not."""
        if asking is request or isinstance(error, StreamInterrupted):
            return False
        if "logprob" in str(error).lower():
            return not error.retryable
        with self._lock:
            return error.kind in _REFUSALS and model not in self._taking

    def _remember_taken(self, model: str, asking: Request, request: Request) -> None:
        """Remember a model that answered a request with the parameter, even where it told none."""
        if asking is not request:
            with self._lock:
                self._taking.add(model)

    def _remember_refusal(self, model: str) -> None:
        with self._lock:
            self._refusing.add(model)
        _log.info("%s refuses to give log-probabilities, and is not asked for them again", model)
