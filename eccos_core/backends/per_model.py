"""A `Backend` that hands each model to the backend that can call it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any

from eccos_core.domain import Chunk, Completion, Request
from eccos_core.errors import UnknownModelError
from eccos_core.protocols import Backend, gives_logprobs, unsupported_parameters


class PerModelBackend:
    """`backends` maps the name of each model to its backend. Raises `UnknownModelError` for any other name."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._backends = dict(backends)

    @property
    def backends(self) -> Mapping[str, Backend]:
        """The backend of each model."""
        return self._backends

    def complete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        return self._of(model).complete(model, request)

    async def acomplete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        return await self._of(model).acomplete(model, request)

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """See `Backend`."""
        return self._of(model).stream(model, request)

    def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See `Backend`."""
        return self._of(model).astream(model, request)

    def unsupported_parameters(self, model: str, parameters: Mapping[str, Any]) -> frozenset[str]:
        """See `SelectiveBackend`."""
        return unsupported_parameters(self._of(model), model, parameters)

    def gives_logprobs(self, model: str) -> bool:
        """See `LogprobSource`."""
        return gives_logprobs(self._of(model), model)

    def _of(self, model: str) -> Backend:
        found = self._backends.get(model)
        if found is None:
            raise UnknownModelError(model, self._backends)
        return found
