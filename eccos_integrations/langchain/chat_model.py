"""`ChatEccos`: one LangChain chat model that is the whole pool."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import BaseModel, Field, field_validator

from eccos_core.domain import Capability, Completion, Decision, Request
from eccos_integrations.langchain.batch_plan import PlannedCall
from eccos_integrations.langchain.batches import OF_THE_FRAMEWORK, UNTRACED, JointlyBatched
from eccos_integrations.langchain.errors import InvalidRequestError, as_langchain_expects
from eccos_integrations.langchain.messages import PROVIDER, to_message, to_message_chunk, to_openai
from eccos_integrations.langchain.settings import PER_CALL, profile_of

if TYPE_CHECKING:
    from langchain_core.language_models.model_profile import ModelProfile

    from eccos_integrations.langchain.tools import Method, Schema, ToolChoice, ToolLike

CALL_PARAMETERS = ("temperature", "top_p", "max_tokens", "seed", "timeout")
IDENTIFYING = (PER_CALL - UNTRACED) | {*CALL_PARAMETERS, "stop", "model_kwargs"}
OURS = PER_CALL | UNTRACED | OF_THE_FRAMEWORK  # of what a call is given, everything else is for the model


class ChatEccos(JointlyBatched):
    """A chat model that answers every request with the cheapest model of a pool that is good enough.

        model = ChatEccos(config="eccos.yaml")
        model.invoke("What is the capital of France?").response_metadata["model_name"]
        (prompt | model | StrOutputParser()).batch(inputs)  # one assignment under one floor or budget

    Bound tools, schemas and images are hard filters: only models that can do them are candidates, fallbacks included.
    A call alone is decided at the stream's price, or as a batch of one where `quality_floor` or `budget_usd` is given.
    `response_metadata` says who answered, at what cost, and why. Errors are those of `eccos_core.errors`; what
    LangChain has a class for is an instance of that too (`ValueError`, `ContextOverflowError`, ...).
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
    streaming: bool = False
    """Whether `invoke` streams underneath."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further OpenAI call parameters, passed on as they are."""

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given

    # -------------------------------------------------------------------------------------------------------- identity

    @property
    def _llm_type(self) -> str:
        return PROVIDER

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What tells two of these models apart; no keys, no addresses."""
        given = {name: getattr(self, name) for name in sorted(IDENTIFYING & self.model_fields_set)}
        return {
            "model_name": self.model or PROVIDER,
            "pool": [model.name for model in self.router.models],
            **{name: sorted(value) if isinstance(value, frozenset) else value for name, value in given.items()},
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop or None, **kwargs)
        params["ls_provider"] = PROVIDER
        params.setdefault("ls_model_name", PROVIDER)
        return params

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        return super()._get_invocation_params(stop=stop, **_traced(kwargs))

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        return super()._get_llm_string(stop=stop, **_traced(kwargs))

    def _resolve_model_profile(self) -> ModelProfile | None:
        """What the pool as a whole can do: a request goes only to models that can do what it needs."""
        return cast("ModelProfile", profile_of(self.router.models))

    def get_num_tokens(self, text: str) -> int:
        """Estimated tokens of a text (cl100k_base, no network)."""
        from eccos_core.io.tokens import count_text_tokens

        return count_text_tokens(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Estimated input tokens of a conversation with its tools (cl100k_base, no network)."""
        from eccos_core.io.tokens import count_tokens
        from eccos_integrations.langchain.tools import openai_tools

        return count_tokens(to_openai(messages), openai_tools(tools) if tools else None)

    # --------------------------------------------------------------------------------------------------------- one call

    def _asking(
        self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]
    ) -> PlannedCall | Request:
        """What to ask for; a request of a batch comes with its decision."""
        decision = given.get("decision")
        if isinstance(decision, PlannedCall):
            return decision
        parameters = {name: value for name in CALL_PARAMETERS if (value := getattr(self, name)) is not None}
        parameters |= self.model_kwargs
        parameters |= {name: value for name, value in given.items() if name not in OURS and value is not None}
        if stopping := stop if stop is not None else parameters.get("stop", self.stop):
            parameters["stop"] = stopping
        if parameters.get("n") not in (None, 1):
            raise InvalidRequestError(f"n is {parameters['n']}, must be 1: a call has one answer; use batch for more")
        request = self._request(to_openai(messages), parameters, given)
        return PlannedCall(request, decision) if isinstance(decision, Decision) else request

    def _planned(self, asking: PlannedCall | Request, given: dict[str, Any]) -> tuple[Request, Decision | None]:
        """The request and, where one was made or a policy asks for one, its decision."""
        if isinstance(asking, PlannedCall):
            return asking.request, asking.decision
        policy = self._policy(given)
        return asking, self.router.route([asking], policy=policy)[0] if policy is not None else None

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with as_langchain_expects():
            asking = self._asking(messages, stop, kwargs)
            request, decision = self._planned(asking, kwargs)
            return _result(self.router.complete(request, decision=decision))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with as_langchain_expects():
            asking = self._asking(messages, stop, kwargs)
            request, decision = await self._aplanned(asking, kwargs)
            return _result(await self.router.acomplete(request, decision=decision))

    async def _aplanned(self, asking: PlannedCall | Request, given: dict[str, Any]) -> tuple[Request, Decision | None]:
        """`_planned`, without blocking the event loop where something is to be decided."""
        if isinstance(asking, PlannedCall) or self._policy(given) is None:
            return self._planned(asking, given)
        return await asyncio.to_thread(self._planned, asking, given)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with as_langchain_expects():
            asking = self._asking(messages, stop, kwargs)
            request, decision = self._planned(_streamed(asking), kwargs)
            with closing(self.router.stream(request, decision=decision)) as chunks:
                for chunk in chunks:
                    yield ChatGenerationChunk(message=to_message_chunk(chunk))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        with as_langchain_expects():
            asking = self._asking(messages, stop, kwargs)
            request, decision = await self._aplanned(_streamed(asking), kwargs)
            async with aclosing(self.router.astream(request, decision=decision)) as chunks:
                async for chunk in chunks:
                    yield ChatGenerationChunk(message=to_message_chunk(chunk))

    def _should_stream(self, *, async_api: bool, run_manager: Any = None, **kwargs: Any) -> bool:
        """Also not when no model of the pool can: then a stream is one chunk, as LangChain promises."""
        able = any(Capability.STREAMING in model.capabilities for model in self.router.models)
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
        """See `BaseChatModel`; the conversation is the configuration's thread."""
        return super().invoke(input, config, stop=stop, **self._in_session(config, kwargs))

    async def ainvoke(
        self,
        input: LanguageModelInput,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """See `BaseChatModel`; the conversation is the configuration's thread."""
        return await super().ainvoke(input, config, stop=stop, **self._in_session(config, kwargs))

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """See `BaseChatModel`; the conversation is the configuration's thread."""
        return super().stream(input, config, stop=stop, **self._in_session(config, kwargs))

    def astream(
        self,
        input: LanguageModelInput,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """See `BaseChatModel`; the conversation is the configuration's thread."""
        return super().astream(input, config, stop=stop, **self._in_session(config, kwargs))

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
        """Tools in any form that LangChain takes. Only models that can call tools are candidates from here on.

        `tool_choice`: the name of a tool, "auto", "any" or "required" or True, "none", or a dictionary.
        `parallel_tool_calls=True` asks for models that can call several at once. Raises `ValueError` for a tool without
        a name and for a choice that is not among the tools.
        """
        from eccos_integrations.langchain.tools import openai_tool_choice, openai_tools

        converted = openai_tools(tools, strict=strict)
        chosen = openai_tool_choice(tool_choice, converted)
        given = {"tools": converted or None, "tool_choice": chosen, "parallel_tool_calls": parallel_tool_calls}
        return self.bind(**{name: value for name, value in given.items() if value is not None}, **kwargs)

    def with_structured_output(
        self,
        schema: Schema,
        *,
        method: Method | None = None,
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Answers in the form of a schema (Pydantic, TypedDict, JSON schema, OpenAI function).

        `method`: "function_calling" and "json_schema" let only models answer that can do so; "json_mode" asks for JSON
        and leaves the form to the prompt. None: by tool calls, unless more models of the pool take a JSON schema.
        """
        from eccos_integrations.langchain.tools import best_method, structured

        if kwargs:
            raise ValueError(f"with_structured_output has no parameter {', '.join(map(repr, kwargs))}")
        method = method or best_method(self.router.models)
        return structured(self, schema, method, strict=strict, include_raw=include_raw)


# LangChain asks for these signatures at every call; a signature that is there already is found ten times as fast
for _method in (ChatEccos._generate, ChatEccos._agenerate):
    vars(_method)["__signature__"] = inspect.signature(_method)


def _traced(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in UNTRACED}


def _streamed(asking: PlannedCall | Request) -> PlannedCall | Request:
    """The same; a request that is decided under a policy of its own goes to models that can stream."""
    if isinstance(asking, PlannedCall):
        return asking
    return replace(asking, needs=asking.needs | {Capability.STREAMING})


def _result(completion: Completion) -> ChatResult:
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
