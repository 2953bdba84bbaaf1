"""`EccosLLM`: one LlamaIndex LLM that is the whole pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from pydantic import Field, field_validator

from eccos_core.domain import Capability, Request
from eccos_integrations.llama_index.errors import InvalidRequestError, as_llama_index_expects
from eccos_integrations.llama_index.messages import (
    PROVIDER,
    StreamAccumulator,
    reads_files,
    to_chat_response,
    to_completion_response,
    to_openai,
)
from eccos_integrations.llama_index.settings import PER_CALL, LlamaIndexSettings, output_of, window_of

if TYPE_CHECKING:
    from llama_index.core.program.function_program import FunctionCallingProgram
    from llama_index.core.prompts import PromptTemplate
    from llama_index.core.tools.types import BaseTool

    from eccos_integrations.llama_index.tools import ToolChoice

CALL_PARAMETERS = ("temperature", "top_p", "max_tokens", "stop", "seed", "timeout")


class EccosLLM(LlamaIndexSettings, FunctionCallingLLM):
    """An LLM that answers every request with the cheapest model of a pool that is good enough.

        Settings.llm = EccosLLM(config="eccos.yaml")
        Settings.llm.complete("What is the capital of France?").additional_kwargs["model"]

    Tools, schemas and images are hard filters: only models that can do them are candidates, fallbacks included.
    `additional_kwargs` of a response says who answered, at what cost, and why; `raw["eccos"]` says the same where
    LlamaIndex hands only that on (agents). Errors are those of `eccos_core.errors`; what cannot be asked is a
    `ValueError` too. With `window_s` the many small calls of one query are decided together.
    """

    temperature: float | None = None
    """Sampling temperature."""
    top_p: float | None = None
    """Nucleus sampling."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most output tokens of an answer."""
    stop: list[str] | None = None
    """Where an answer ends."""
    seed: int | None = None
    """For answers that can be had again, where a provider offers it."""
    timeout: float | None = Field(default=None, gt=0)
    """Longest wait for one call of a model in seconds."""
    additional_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further OpenAI call parameters, passed on as they are."""

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex stores this class."""
        return "eccos_llm"

    @property
    def metadata(self) -> LLMMetadata:
        """What the models that may answer can do together: a request goes only to models that can do what it needs."""
        pool = self.candidates()
        return LLMMetadata(
            context_window=window_of(pool),
            num_output=output_of(pool, self.max_tokens),
            is_chat_model=True,
            is_function_calling_model=any(Capability.TOOLS in model.capabilities for model in pool),
            model_name=self.model or PROVIDER,
        )

    def only(self, model: str) -> EccosLLM:
        """The same LLM, answering with this model of the pool only, however good it is expected to be."""
        return self.model_copy(update={"model": model, "min_quality": None})

    # --------------------------------------------------------------------------------------------------------- one call

    def _asking(self, messages: Sequence[ChatMessage], given: Mapping[str, Any]) -> Request:
        """What to ask for. Raises `InvalidRequestError` for what no model could be asked."""
        parameters = {name: value for name in CALL_PARAMETERS if (value := getattr(self, name)) is not None}
        parameters |= self.additional_kwargs
        parameters |= {name: value for name, value in given.items() if name not in PER_CALL and value is not None}
        if parameters.get("n") not in (None, 1):
            raise InvalidRequestError(f"n is {parameters['n']}, must be 1: a call has one answer")
        with as_llama_index_expects():
            return self._request(to_openai(messages), parameters, given)

    async def _aasking(self, messages: Sequence[ChatMessage], given: Mapping[str, Any]) -> Request:
        """`_asking`, without blocking the event loop where files are read."""
        if reads_files(messages):
            return await asyncio.to_thread(self._asking, messages, given)
        return self._asking(messages, given)

    def _chat(self, messages: Sequence[ChatMessage], given: Mapping[str, Any]) -> ChatResponse:
        request = self._asking(messages, given)
        with as_llama_index_expects():
            return to_chat_response(self._asked.complete(request))

    async def _achat(self, messages: Sequence[ChatMessage], given: Mapping[str, Any]) -> ChatResponse:
        request = await self._aasking(messages, given)
        with as_llama_index_expects():
            return to_chat_response(await self._asked.acomplete(request))

    def _stream(self, request: Request) -> Iterator[ChatResponse]:
        gathering = StreamAccumulator()
        with as_llama_index_expects(), closing(self._asked.stream(request)) as chunks:
            for chunk in chunks:
                yield gathering.take(chunk)

    async def _astream(self, request: Request) -> AsyncGenerator[ChatResponse, None]:
        gathering = StreamAccumulator()
        with as_llama_index_expects():
            async with aclosing(self._asked.astream(request)) as chunks:
                async for chunk in chunks:
                    yield gathering.take(chunk)

    # ------------------------------------------------------------------------------------------------------------ chat

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """One answer. `kwargs`: call parameters (`temperature`, ...) and settings of this call (`min_quality`, ...)."""
        return self._chat(messages, kwargs)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The asynchronous twin of `chat`."""
        return await self._achat(messages, kwargs)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The answer as it comes; the last response carries usage, cost and decision."""
        request = self._asking(messages, kwargs)

        def responses() -> ChatResponseGen:
            yield from self._stream(request)

        return responses()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """The asynchronous twin of `stream_chat`."""
        request = await self._aasking(messages, kwargs)

        async def responses() -> ChatResponseAsyncGen:
            async with aclosing(self._astream(request)) as stream:
                async for response in stream:
                    yield response

        return responses()

    # ------------------------------------------------------------------------------------------------------ completion

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The answer to a prompt, asked as one user message."""
        return to_completion_response(self._chat(_asked_by_user(prompt), kwargs))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The asynchronous twin of `complete`."""
        return to_completion_response(await self._achat(_asked_by_user(prompt), kwargs))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The answer to a prompt as it comes."""
        request = self._asking(_asked_by_user(prompt), kwargs)

        def responses() -> CompletionResponseGen:
            for response in self._stream(request):
                yield to_completion_response(response)

        return responses()

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """The asynchronous twin of `stream_complete`."""
        request = await self._aasking(_asked_by_user(prompt), kwargs)

        async def responses() -> CompletionResponseAsyncGen:
            async with aclosing(self._astream(request)) as stream:
                async for response in stream:
                    yield to_completion_response(response)

        return responses()

    # ----------------------------------------------------------------------------------------------------------- tools

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: ToolChoice = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The arguments of `chat` for a call with tools. `tool_choice`: a tool's name, "auto", "required", "none".

        Several calls at once are allowed, not demanded: any model that can call tools is a candidate.
        """
        from eccos_integrations.llama_index.tools import openai_tool_choice, openai_tools

        message = ChatMessage(role=MessageRole.USER, content=user_msg) if isinstance(user_msg, str) else user_msg
        messages = [*(chat_history or ()), *([message] if message is not None else ())]
        converted = openai_tools(tools)
        if not converted:
            return {"messages": messages, **kwargs}
        chosen = openai_tool_choice(tool_choice or ("required" if tool_required else None), converted)
        asked: dict[str, Any] = {"messages": messages, "tools": converted, "tool_choice": chosen}
        if not allow_parallel_tool_calls:
            asked["parallel_tool_calls"] = False
        return {**asked, **kwargs}

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Where one call was allowed, the first one counts: a model may give more than it is asked for."""
        if not allow_parallel_tool_calls:
            from eccos_integrations.llama_index.tools import with_one_call

            with_one_call(response.message)
        return response

    def _structured_stream_call(
        self, output_cls: Any, prompt: PromptTemplate, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Any:
        """LlamaIndex's streams of structured output offer the schema as a tool; here they demand it, as calls do."""
        program = self._program(output_cls, prompt)
        if program is None:
            return super()._structured_stream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        return program.stream_call(llm_kwargs=llm_kwargs, **prompt_args)

    async def _structured_astream_call(
        self, output_cls: Any, prompt: PromptTemplate, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Any:
        program = self._program(output_cls, prompt)
        if program is None:
            return await super()._structured_astream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        return await program.astream_call(llm_kwargs=llm_kwargs, **prompt_args)

    def _program(self, output_cls: Any, prompt: PromptTemplate) -> FunctionCallingProgram[Any] | None:
        """The program that gets structured output by a tool call; None where it is got otherwise."""
        from llama_index.core.program.function_program import FunctionCallingProgram
        from llama_index.core.types import PydanticProgramMode

        by_call = (PydanticProgramMode.DEFAULT, PydanticProgramMode.FUNCTION)
        if self.pydantic_program_mode not in by_call or not self.metadata.is_function_calling_model:
            return None
        return FunctionCallingProgram.from_defaults(output_cls, llm=self, prompt=prompt, tool_choice="required")

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls of a response. Raises `ValueError` where there is none and one is needed."""
        from eccos_integrations.llama_index.tools import selections

        found = selections(response.message, finished="finish_reason" in response.additional_kwargs)
        if not found and error_on_no_tool_call:
            model = response.additional_kwargs.get("model", "the model")
            said = (response.message.content or "")[:200]
            raise ValueError(f"expected at least one tool call, but {model} answered: {said!r}")
        return found


def _asked_by_user(prompt: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=prompt)]
