"""`ChatEccos`: one LangChain chat model that is the whole pool."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any, Literal, TypeVar, cast, overload

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import BaseModel, Field, model_validator

from eccos_core.domain import Capability, Chunk, Completion, Decision, Request
from eccos_integrations._shared.messages import PROVIDER
from eccos_integrations._shared.settings import CALL_PARAMETERS, CallParameters
from eccos_integrations.langchain.batch_plan import PlannedCall
from eccos_integrations.langchain.batches import FRAMEWORK_ARGUMENTS, UNTRACED_ARGUMENTS, JointBatchChatModel
from eccos_integrations.langchain.errors import raise_langchain_errors
from eccos_integrations.langchain.messages import (
    convert_messages,
    mark_cached,
    to_message,
    to_message_chunk,
    to_openai,
)
from eccos_integrations.langchain.settings import CALL_SETTINGS, describe_pool
from eccos_integrations.langchain.structured import Method, build_structured_chain, choose_method
from eccos_integrations.langchain.tools import Schema, ToolChoice, ToolLike, openai_tool_choice, openai_tools

SchemaModel = TypeVar("SchemaModel", bound=BaseModel)

IDENTIFYING_FIELDS = (CALL_SETTINGS - UNTRACED_ARGUMENTS) | {*CALL_PARAMETERS, "model_kwargs"}
# of what a call is given, everything else is for the model
OUR_ARGUMENTS = CALL_SETTINGS | UNTRACED_ARGUMENTS | FRAMEWORK_ARGUMENTS


class ChatEccos(CallParameters, JointBatchChatModel):
    """Answer every request with the cheapest model of a pool that is good enough.

        model = ChatEccos(config="eccos.yaml")
        model.invoke("What is the capital of France?").response_metadata["model_name"]
        (prompt | model | StrOutputParser()).batch(inputs)  # one assignment under one floor or budget

    Only models that can do what a request needs may answer it: bound tools, schemas, images. That holds for fallbacks
    too. A single call uses the current price of quality. With `quality_floor` or `budget_usd` it is a batch of one.
    `response_metadata` says who answered, at what cost, and why. Errors are those of `eccos_core.errors`. Where
    LangChain has a class for an error, you get an instance of both (`ContextOverflowError`, `ValueError`, ...).
    """

    streaming: bool = False
    """Whether `invoke` asks the model for a stream."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further OpenAI call parameters. They are passed on unchanged."""

    @model_validator(mode="after")
    def _describe_itself(self) -> ChatEccos:
        """Set the profile. LangChain asks for it before the router is there."""
        if self.profile is None:
            self.profile = self._resolve_model_profile()
        return self

    # -------------------------------------------------------------------------------------------------------- identity

    @property
    def _llm_type(self) -> str:
        return PROVIDER

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Return what tells two of these models apart. It holds no keys and no addresses."""
        given = {name: getattr(self, name) for name in sorted(IDENTIFYING_FIELDS & self.model_fields_set)}
        router = self.router
        return {
            "model_name": self.model or PROVIDER,
            "pool": [model.name for model in router.models],
            "pool_fingerprint": getattr(router.backend, "fingerprint", None) or f"backend {id(router.backend)}",
            "router_policy": repr(router.policy),
            **_sort_names(given),
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self._list_stops(), **kwargs)
        params["ls_provider"] = PROVIDER
        params.setdefault("ls_model_name", PROVIDER)
        return params

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        stop = self._list_stops() if stop is None else stop
        return super()._get_invocation_params(stop=stop, **_drop_untraced(kwargs))

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        return super()._get_llm_string(stop=stop, **_drop_untraced(kwargs))

    def _convert_cached_generations(self, cache_val: list[Generation]) -> list[ChatGeneration]:
        """Return what the cache holds. LangChain sets the cost of its own to 0, and we do so with ours."""
        return [
            generation.model_copy(update={"message": mark_cached(generation.message)})
            if isinstance(generation.message, AIMessage)
            else generation
            for generation in super()._convert_cached_generations(cache_val)
        ]

    def _resolve_model_profile(self) -> ModelProfile | None:
        """Return what the models that may answer can do together."""
        return cast(ModelProfile, describe_pool(self.candidates()))

    def get_num_tokens(self, text: str) -> int:
        """Estimate the tokens of a text (cl100k_base, no network)."""
        from eccos_core.io.tokens import count_text_tokens

        return count_text_tokens(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Estimate the input tokens of a conversation with its tools (cl100k_base, no network)."""
        from eccos_core.io.tokens import count_tokens

        return count_tokens(convert_messages(messages), openai_tools(tools) if tools else None)

    # --------------------------------------------------------------------------------------------------------- one call

    def _prepare_call(
        self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]
    ) -> PlannedCall | Request:
        """Build the request. A call of a batch comes with its decision already."""
        decision = given.get("decision")
        if isinstance(decision, PlannedCall):
            return decision
        parameters = self._collect_parameters(self.model_kwargs, given, OUR_ARGUMENTS)
        if stop is not None:
            parameters["stop"] = stop
        if not parameters.get("stop"):
            parameters.pop("stop", None)
        request = self._build_request(to_openai(messages), parameters, given)
        return PlannedCall(request, decision) if isinstance(decision, Decision) else request

    def _decide(self, prepared: PlannedCall | Request, given: dict[str, Any]) -> tuple[Request, Decision | None]:
        """Return the request and its decision. The decision is None where the router decides when it is called."""
        if isinstance(prepared, PlannedCall):
            return prepared.request, prepared.decision
        policy = self._choose_policy(given)
        return prepared, self.router.route([prepared], policy=policy)[0] if policy is not None else None

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with raise_langchain_errors():
            prepared = self._prepare_call(messages, stop, kwargs)
            request, decision = self._decide(prepared, kwargs)
            return _build_result(self.router.complete(request, decision=decision))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with raise_langchain_errors():
            prepared = self._prepare_call(messages, stop, kwargs)
            request, decision = await self._adecide(prepared, kwargs)
            return _build_result(await self.router.acomplete(request, decision=decision))

    async def _adecide(self, prepared: PlannedCall | Request, given: dict[str, Any]) -> tuple[Request, Decision | None]:
        """The asynchronous twin of `_decide`. It decides in a thread."""
        if isinstance(prepared, PlannedCall) or self._choose_policy(given) is None:
            return self._decide(prepared, given)
        return await asyncio.to_thread(self._decide, prepared, given)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with raise_langchain_errors():
            prepared = self._prepare_call(messages, stop, kwargs)
            request, decision = self._decide(_require_streaming(prepared), kwargs)
            with closing(
                cast("Generator[Chunk, None, None]", self.router.stream(request, decision=decision))
            ) as chunks:
                for chunk in chunks:
                    yield ChatGenerationChunk(message=to_message_chunk(chunk))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        with raise_langchain_errors():
            prepared = self._prepare_call(messages, stop, kwargs)
            request, decision = await self._adecide(_require_streaming(prepared), kwargs)
            async with aclosing(
                cast("AsyncGenerator[Chunk, None]", self.router.astream(request, decision=decision))
            ) as chunks:
                async for chunk in chunks:
                    yield ChatGenerationChunk(message=to_message_chunk(chunk))

    def _should_stream(self, *, async_api: bool, run_manager: Any = None, **kwargs: Any) -> bool:
        """Tell whether to stream. When no model of the pool can, a stream is one chunk, as LangChain promises."""
        able = any(Capability.STREAMING in model.capabilities for model in self.candidates())
        return able and super()._should_stream(async_api=async_api, run_manager=run_manager, **kwargs)

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None]) -> dict[str, Any]:
        known = [output for output in llm_outputs if output]
        usage: dict[str, int] = {}
        for output in known:
            for name, tokens in output["token_usage"].items():
                usage[name] = usage.get(name, 0) + tokens
        return {"token_usage": usage, "cost_usd": sum(output["cost_usd"] for output in known)} if known else {}

    # ----------------------------------------------------------------------------------- conversations keep their model

    def invoke(
        self,
        input: LanguageModelInput,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Answer one conversation. `config` names its thread. Call arguments override the settings."""
        return super().invoke(input, config, stop=stop, **self._add_session(config, kwargs))

    async def ainvoke(
        self,
        input: LanguageModelInput,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """The asynchronous twin of `invoke`."""
        return await super().ainvoke(input, config, stop=stop, **self._add_session(config, kwargs))

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Answer one conversation piece by piece. The last chunk carries usage, cost and decision."""
        return super().stream(input, config, stop=stop, **self._add_session(config, kwargs))

    def astream(
        self,
        input: LanguageModelInput,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """The asynchronous twin of `stream`."""
        return super().astream(input, config, stop=stop, **self._add_session(config, kwargs))

    # ----------------------------------------------------------------------------------------------- tools and schemas

    def bind_tools(
        self,
        tools: Sequence[ToolLike],
        *,
        tool_choice: ToolChoice = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Give the model tools, in any form that LangChain takes. Only models that can call tools may answer.

        `tool_choice` is the name of a tool, "auto", "any", "required", True (any), "none", or a dictionary.
        `parallel_tool_calls=True` asks for models that can call several tools at once. Raises `ValueError` for a tool
        without a name, and for a choice that is not among the tools.
        """
        converted = openai_tools(tools, strict=strict)
        chosen = openai_tool_choice(tool_choice, converted)
        given = {"tools": converted or None, "tool_choice": chosen, "parallel_tool_calls": parallel_tool_calls}
        return self.bind(**{name: value for name, value in given.items() if value is not None}, **kwargs)

    @overload
    def with_structured_output(
        self,
        schema: type[SchemaModel],
        *,
        method: Method | None = None,
        include_raw: Literal[False] = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, SchemaModel]: ...

    @overload
    def with_structured_output(
        self,
        schema: Schema,
        *,
        method: Method | None = None,
        include_raw: Literal[True],
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any]]: ...

    @overload
    def with_structured_output(
        self,
        schema: Schema,
        *,
        method: Method | None = None,
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]: ...

    def with_structured_output(
        self,
        schema: Schema,
        *,
        method: Method | None = None,
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Get answers in the form of a schema: Pydantic, TypedDict, JSON schema or an OpenAI function.

        With the `method` "function_calling" or "json_schema" only models that can do so may answer. "json_mode" asks
        for JSON and leaves the form to your prompt. None chooses tool calls, unless more models of the pool take a
        JSON schema. With `include_raw` you get a dictionary: `raw`, `parsed` and `parsing_error`. Raises `ValueError`
        for another method and for further arguments.
        """
        if kwargs:
            raise ValueError(f"with_structured_output has no parameter {', '.join(map(repr, kwargs))}")
        method = method or choose_method(self.candidates())
        return build_structured_chain(self, schema, method, strict=strict, include_raw=include_raw)


# LangChain reads these signatures at every call. It finds a stored one ten times as fast.
for _method in (ChatEccos._generate, ChatEccos._agenerate):
    vars(_method)["__signature__"] = inspect.signature(_method)


def _drop_untraced(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments by which two calls differ. A decision that you give chooses the model, so it stays."""
    kept = {name: value for name, value in given.items() if name not in UNTRACED_ARGUMENTS}
    decision = given.get("decision")
    return _sort_names(kept if not isinstance(decision, Decision) else {**kept, "decided_model": decision.model})


def _sort_names(given: Mapping[str, Any]) -> dict[str, Any]:
    """Write sets as sorted lists, which read the same in every process."""
    return {name: sorted(value) if isinstance(value, set | frozenset) else value for name, value in given.items()}


def _require_streaming(prepared: PlannedCall | Request) -> PlannedCall | Request:
    """Let only models that can stream answer. A call that has its decision stays as it is."""
    if isinstance(prepared, PlannedCall):
        return prepared
    return replace(prepared, needs=prepared.needs | {Capability.STREAMING})


def _build_result(completion: Completion) -> ChatResult:
    message = to_message(completion)
    usage = {
        "prompt_tokens": completion.input_tokens,
        "completion_tokens": completion.output_tokens,
        "total_tokens": completion.input_tokens + completion.output_tokens,
    }
    return ChatResult(
        generations=[ChatGeneration(message=message)],
        llm_output={"token_usage": usage, "cost_usd": completion.cost_usd, "model_name": completion.model},
    )
