"""Batches of a chat model: one assignment for all inputs, in the middle of a chain too."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from functools import partial
from typing import Any, cast

from langchain_core.caches import BaseCache
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import get_config_list
from langchain_core.runnables.utils import AnyConfigurableField

from eccos_core.domain import Request
from eccos_integrations.langchain.batch_plan import (
    ConcurrencyLimits,
    Plan,
    PlannedCall,
    arun_calls,
    plan_batch,
    run_calls,
    sort_results,
)
from eccos_integrations.langchain.errors import raise_langchain_errors
from eccos_integrations.langchain.settings import LangChainSettings

# These change nothing about the question, so neither the cache nor a trace may tell two calls apart by them.
UNTRACED_ARGUMENTS = frozenset({"decision", "session_id", "wait_s"})
FRAMEWORK_ARGUMENTS = frozenset({"ls_structured_output_format", "stream", "stream_usage", "structured_output_format"})


class JointBatchChatModel(LangChainSettings, BaseChatModel):
    """A chat model that decides a batch jointly, then invokes each input with its decision."""

    @abstractmethod
    def _prepare_call(
        self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]
    ) -> PlannedCall | Request:
        """Build the request. A call of a batch comes with its decision already."""

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer all inputs under one assignment, in order. With `return_exceptions` an error stands in its place."""
        results = self.batch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs)
        return sort_results(results, len(inputs))

    def batch_as_completed(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """Answer all inputs under one assignment, and yield (place, answer) as they end."""
        if not inputs:
            return
        configs = get_config_list(config, len(inputs))
        plans = self._plan_batch(inputs, configs, kwargs, return_exceptions=return_exceptions)

        def call(i: int) -> AIMessage:
            return self.invoke(inputs[i], configs[i], **{**kwargs, "decision": plans[i]})

        with closing(
            cast("Any", run_calls(plans, self._build_limits(configs), call, return_exceptions=return_exceptions))
        ) as ends:
            yield from ends

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """The asynchronous twin of `batch`."""
        results = self.abatch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs)
        async with aclosing(cast("Any", results)) as ends:
            return sort_results(iter([end async for end in ends]), len(inputs))

    async def abatch_as_completed(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Any]]:
        """The asynchronous twin of `batch_as_completed`."""
        if not inputs:
            return
        configs = get_config_list(config, len(inputs))
        plans = await asyncio.to_thread(self._plan_batch, inputs, configs, kwargs, return_exceptions=return_exceptions)

        async def call(i: int) -> AIMessage:
            return await self.ainvoke(inputs[i], configs[i], **{**kwargs, "decision": plans[i]})

        running = arun_calls(plans, self._build_limits(configs), call, return_exceptions=return_exceptions)
        async with aclosing(cast("Any", running)) as ends:
            async for end in ends:
                yield end

    def _build_limits(self, configs: Sequence[RunnableConfig]) -> ConcurrencyLimits:
        caps = {model.deployment: model.max_concurrency for model in self.router.models}
        deployments = {model.name: model.deployment for model in self.router.models}
        return ConcurrencyLimits(caps, configs[0].get("max_concurrency") or None, deployments)

    def _plan_batch(
        self,
        inputs: Sequence[LanguageModelInput],
        configs: Sequence[RunnableConfig],
        given: dict[str, Any],
        *,
        return_exceptions: bool,
    ) -> list[Plan]:
        return plan_batch(
            [partial(self._plan_input, *each, given) for each in zip(inputs, configs, strict=True)],
            lambda requests: self._decide_jointly(requests, given),
            return_exceptions=return_exceptions,
        )

    def _plan_input(
        self, each: LanguageModelInput, config: RunnableConfig, call_arguments: dict[str, Any]
    ) -> Plan | Request:
        """Build the request of one input. Return None for an input whose answer is cached."""
        given = self._add_session(config, call_arguments)
        messages = self._convert_input(each).to_messages()
        stop = given.get("stop")
        settings = {name: value for name, value in given.items() if name != "stop"}
        with raise_langchain_errors():
            prepared = self._prepare_call(messages, stop, settings)
        if isinstance(prepared, PlannedCall):
            return prepared
        return None if self._is_cached(messages, stop, settings) else prepared

    def _is_cached(self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]) -> bool:
        """Tell whether `invoke` will find its answer in the cache. It looks it up with the same key."""
        cache = self.cache if isinstance(self.cache, BaseCache) else get_llm_cache()
        if cache is None or self.cache is False:
            return False
        key = dumps([message.model_copy(update={"id": None}) if message.id else message for message in messages])
        asked = {name: value for name, value in given.items() if name not in FRAMEWORK_ARGUMENTS}
        return bool(cache.lookup(key, self._get_llm_string(stop=stop, **asked)))

    def configurable_fields(
        self, **kwargs: AnyConfigurableField
    ) -> RunnableSerializable[LanguageModelInput, AIMessage]:
        """Make fields configurable. A batch with the same configuration is still assigned jointly."""
        from eccos_integrations.langchain.configurable import keep_batches_joint

        return keep_batches_joint(self, super().configurable_fields(**kwargs))
