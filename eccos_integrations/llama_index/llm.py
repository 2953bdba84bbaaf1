"""`EccosLLM`: one LlamaIndex LLM that is the whole pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, TypeVar, cast

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
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from pydantic import Field

from eccos_core.domain import Capability, Chunk, Request
from eccos_integrations._shared.messages import PROVIDER
from eccos_integrations._shared.settings import CALL_SETTINGS, CallParameters, find_context_window
from eccos_integrations.llama_index.errors import raise_llama_index_errors
from eccos_integrations.llama_index.messages import (
    StreamAccumulator,
    reads_files,
    to_chat_response,
    to_completion_response,
    to_openai,
)
from eccos_integrations.llama_index.responses import describe_responses
from eccos_integrations.llama_index.settings import LlamaIndexSettings, reserve_output

if TYPE_CHECKING:
    from llama_index.core.program.function_program import FunctionCallingProgram
    from llama_index.core.prompts import PromptTemplate
    from llama_index.core.tools.types import BaseTool

    from eccos_integrations.llama_index.tools import ToolChoice


LEAST_WINDOW = 1024  # tokens. LlamaIndex's own prompts have up to 600, and it refuses to work in a smaller window

Method = TypeVar("Method", bound=Callable[..., Any])


def _trace_chat(method: Method) -> Method:
    """Tell LlamaIndex's callbacks of a chat. Its decorator has no types, this one keeps the method's."""
    return cast(Method, llm_chat_callback()(method))


def _trace_completion(method: Method) -> Method:
    """Tell LlamaIndex's callbacks of a completion. Its decorator has no types, this one keeps the method's."""
    return cast(Method, llm_completion_callback()(method))


class EccosLLM(CallParameters, LlamaIndexSettings, FunctionCallingLLM):
    """Answer every request with the cheapest model of a pool that is good enough.

        Settings.llm = EccosLLM(config="eccos.yaml")
        Settings.llm.complete("What is the capital of France?").additional_kwargs["model"]

    Only models that can do what a request needs may answer it: tools, schemas, images. That holds for fallbacks too.
    `additional_kwargs` of an answer says who answered, at what cost, and why. Agents pass on `raw` only, so
    `raw["eccos"]` says the same. A response of an engine has the sums of its calls in `metadata["eccos"]`. Errors are
    those of `eccos_core.errors`. What cannot be asked is a `ValueError` too.
    With `window_s` the many small calls of one query are decided together.
    """

    additional_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further OpenAI call parameters. They are passed on unchanged."""

    def model_post_init(self, context: Any, /) -> None:
        """See to it that responses of engines say what they cost."""
        super().model_post_init(context)
        describe_responses()

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores this class."""
        return "eccos_llm"

    @property
    def metadata(self) -> LLMMetadata:
        """What the models that may answer can do together. A request goes only to models that can do what it needs."""
        pool = self.candidates()
        window = self.context_window or find_context_window(pool, at_least=LEAST_WINDOW)
        return LLMMetadata(
            context_window=window or DEFAULT_CONTEXT_WINDOW,
            num_output=self.num_output or reserve_output(pool, self.max_tokens),
            is_chat_model=True,
            is_function_calling_model=any(Capability.TOOLS in model.capabilities for model in pool),
            model_name=self.model or PROVIDER,
        )

    def only(self, model: str) -> EccosLLM:
        """Return the same LLM, limited to one model of the pool, however good that model is expected to be."""
        return self.model_copy(update={"model": model, "min_quality": None})

    # --------------------------------------------------------------------------------------------------------- one call

    def _build_chat_request(self, messages: Sequence[ChatMessage], given: Mapping[str, Any]) -> Request:
        """Build the request. Raise `InvalidRequestError` for what no model could be asked."""
        with raise_llama_index_errors():
            parameters = self._collect_parameters(self.additional_kwargs, given, CALL_SETTINGS)
            return self._build_request(to_openai(messages), parameters, given)

    async def _abuild_chat_request(self, messages: Sequence[ChatMessage], given: Mapping[str, Any]) -> Request:
        """The asynchronous twin of `_build_chat_request`. Files are read in a thread."""
        if reads_files(messages):
            return await asyncio.to_thread(self._build_chat_request, messages, given)
        return self._build_chat_request(messages, given)

    def _chat(self, messages: Sequence[ChatMessage], given: Mapping[str, Any]) -> ChatResponse:
        request = self._build_chat_request(messages, given)
        with raise_llama_index_errors():
            return to_chat_response(self._called_router.complete(request))

    async def _achat(self, messages: Sequence[ChatMessage], given: Mapping[str, Any]) -> ChatResponse:
        request = await self._abuild_chat_request(messages, given)
        with raise_llama_index_errors():
            return to_chat_response(await self._called_router.acomplete(request))

    def _stream(self, request: Request) -> Iterator[ChatResponse]:
        accumulator = StreamAccumulator()
        with (
            raise_llama_index_errors(),
            closing(cast("Generator[Chunk, None, None]", self._called_router.stream(request))) as chunks,
        ):
            for chunk in chunks:
                yield accumulator.add(chunk)

    async def _astream(self, request: Request) -> AsyncGenerator[ChatResponse, None]:
        accumulator = StreamAccumulator()
        with raise_llama_index_errors():
            async with aclosing(cast("AsyncGenerator[Chunk, None]", self._called_router.astream(request))) as chunks:
                async for chunk in chunks:
                    yield accumulator.add(chunk)

    # ------------------------------------------------------------------------------------------------------------ chat

    @_trace_chat
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation.

        `kwargs` are call parameters (`temperature`, ...) and settings of this call (`min_quality`, ...).
        """
        return self._chat(messages, kwargs)

    @_trace_chat
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The asynchronous twin of `chat`."""
        return await self._achat(messages, kwargs)

    @_trace_chat
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation piece by piece. The last response carries usage, cost and decision."""
        request = self._build_chat_request(messages, kwargs)

        def responses() -> ChatResponseGen:
            yield from self._stream(request)

        return responses()

    @_trace_chat
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """The asynchronous twin of `stream_chat`."""
        request = await self._abuild_chat_request(messages, kwargs)

        async def responses() -> ChatResponseAsyncGen:
            async with aclosing(self._astream(request)) as stream:
                async for response in stream:
                    yield response

        return responses()

    # ------------------------------------------------------------------------------------------------------ completion

    @_trace_completion
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt, sent as one user message."""
        return to_completion_response(self._chat(_wrap_prompt(prompt), kwargs))

    @_trace_completion
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The asynchronous twin of `complete`."""
        return to_completion_response(await self._achat(_wrap_prompt(prompt), kwargs))

    @_trace_completion
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer a prompt piece by piece."""
        request = self._build_chat_request(_wrap_prompt(prompt), kwargs)

        def responses() -> CompletionResponseGen:
            for response in self._stream(request):
                yield to_completion_response(response)

        return responses()

    @_trace_completion
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """The asynchronous twin of `stream_complete`."""
        request = await self._abuild_chat_request(_wrap_prompt(prompt), kwargs)

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
        """Return the arguments of `chat` for a call with tools.

        `tool_choice` is the name of a tool, "auto", "required" or "none". A model may make several calls at once, but
        need not be able to: any model that can call tools may answer.
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
        """Keep the first call where only one was allowed. Some models make more calls than they are asked for."""
        if not allow_parallel_tool_calls:
            from eccos_integrations.llama_index.tools import keep_first_call

            keep_first_call(response.message)
        return response

    def _structured_stream_call(
        self, output_cls: Any, prompt: PromptTemplate, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Any:
        """Demand the schema as a tool call. LlamaIndex's own streams of structured output only offer it."""
        program = self._build_program(output_cls, prompt)
        if program is None:
            return super()._structured_stream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        return program.stream_call(llm_kwargs=llm_kwargs, **prompt_args)

    async def _structured_astream_call(
        self, output_cls: Any, prompt: PromptTemplate, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Any:
        program = self._build_program(output_cls, prompt)
        if program is None:
            return await super()._structured_astream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        return await program.astream_call(llm_kwargs=llm_kwargs, **prompt_args)

    def _build_program(self, output_cls: Any, prompt: PromptTemplate) -> FunctionCallingProgram[Any] | None:
        """Build the program that gets structured output by a tool call. None where LlamaIndex gets it another way."""
        from llama_index.core.program.function_program import FunctionCallingProgram
        from llama_index.core.types import PydanticProgramMode

        by_call = (PydanticProgramMode.DEFAULT, PydanticProgramMode.FUNCTION)
        if self.pydantic_program_mode not in by_call or not self.metadata.is_function_calling_model:
            return None
        return FunctionCallingProgram.from_defaults(output_cls, llm=self, prompt=prompt, tool_choice="required")

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Return the tool calls of a response. Raise `ValueError` when there is none and one is needed."""
        from eccos_integrations.llama_index.tools import select_tools

        found = select_tools(response.message, finished="finish_reason" in response.additional_kwargs)
        if not found and error_on_no_tool_call:
            model = response.additional_kwargs.get("model", "the model")
            answer = (response.message.content or "")[:200]
            raise ValueError(
                f"expected at least one tool call, but {model} answered: {answer!r}. "
                "Pass error_on_no_tool_call=False to allow an answer without a tool call."
            )
        return found


def _wrap_prompt(prompt: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=prompt)]
