"""Answers as LiteLLM's objects, which its translations to other APIs take. LiteLLM is imported when it is used."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from eccos_core.backends.litellm.lazy_import import litellm_module
from eccos_core.domain import Chunk, Completion, new_id
from eccos_core.server.errors import ApiError
from eccos_core.server.openai_chat import ChunkWriter, describe_completion

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


def as_model_response(completion: Completion) -> Any:
    """Return an answer as LiteLLM's `ModelResponse`."""
    litellm = litellm_module()
    told = describe_completion(completion)
    del told["eccos"]
    return litellm.ModelResponse(**told)


class ChunkStream:
    """The chunks of an answer as LiteLLM's `ModelResponseStream` objects, the last one with the usage.

    It stands where LiteLLM's translations expect its own stream. `last` is the completion, once it has come.
    """

    logging_obj = None

    def __init__(self, chunks: AsyncIterator[Chunk]) -> None:
        self._chunks = chunks
        self._objects = self._translate()
        self.last: Completion | None = None

    def __aiter__(self) -> ChunkStream:
        return self

    async def __anext__(self) -> Any:
        return await self._objects.__anext__()

    async def aclose(self) -> None:
        """Release what the stream holds."""
        await self._objects.aclose()
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()

    async def _translate(self) -> AsyncGenerator[Any, None]:
        litellm_module()
        from litellm.types.utils import ModelResponseStream

        writer = ChunkWriter(f"chatcmpl-{new_id()}", include_usage=True)
        async for chunk in self._chunks:
            self.last = chunk.completion or self.last
            for told in writer.write(chunk):
                told.pop("eccos", None)
                yield ModelResponseStream(**told)


def cannot_translate(error: Exception, api: str) -> ApiError:
    """Return the error for a body that LiteLLM's translation does not take."""
    return ApiError("invalid_request", f"the body is no {api} request: {type(error).__name__} while it was translated")


def ignored_header(ignored: Sequence[str], left_out: Sequence[str]) -> dict[str, str]:
    """Return the header that names the fields of a body that were left out."""
    names = [*ignored, *("thinking" if name == "reasoning_effort" else name for name in left_out)]
    return {"x-eccos-ignored": ", ".join(names)} if names else {}


async def import_translations(module: str) -> None:
    """Import a module of LiteLLM on a thread, as it takes seconds the first time."""
    if module not in sys.modules:
        await asyncio.to_thread(litellm_module)
        await asyncio.to_thread(importlib.import_module, module)
