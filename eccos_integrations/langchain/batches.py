"""Batches of a chat model: one assignment for all inputs, also in the middle of a chain."""

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
from eccos_integrations.langchain.batch_plan import Gates, Plan, PlannedCall, arun_all, in_order, plan_all, run_all
from eccos_integrations.langchain.errors import as_langchain_expects
from eccos_integrations.langchain.settings import LangChainSettings

# of a call, but no part of what is asked: neither the cache nor a trace should tell two calls apart by them
UNTRACED = frozenset({"decision", "session_id", "wait_s"})
OF_THE_FRAMEWORK = frozenset({"ls_structured_output_format", "structured_output_format", "stream"})


class JointlyBatched(LangChainSettings, BaseChatModel):
    """A chat model whose batches are decided jointly, and then invoked one by one with their decisions."""

    @abstractmethod
    def _asking(
        self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]
    ) -> PlannedCall | Request:
        """What to ask for; a request of a batch comes with its decision."""

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """All inputs under one assignment; results in order. With `return_exceptions` an error stands in its place."""
        results = self.batch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs)
        return in_order(results, len(inputs))

    def batch_as_completed(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """All inputs under one assignment; (place, answer) as they end."""
        if not inputs:
            return
        configs = get_config_list(config, len(inputs))
        plans = self._plans(inputs, configs, kwargs, return_exceptions=return_exceptions)

        def call(i: int) -> AIMessage:
            return self.invoke(inputs[i], configs[i], **{**kwargs, "decision": plans[i]})

        with closing(
            cast("Any", run_all(plans, self._gates(configs), call, return_exceptions=return_exceptions))
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
            return in_order(iter([end async for end in ends]), len(inputs))

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
        plans = await asyncio.to_thread(self._plans, inputs, configs, kwargs, return_exceptions=return_exceptions)

        async def call(i: int) -> AIMessage:
            return await self.ainvoke(inputs[i], configs[i], **{**kwargs, "decision": plans[i]})

        running = arun_all(plans, self._gates(configs), call, return_exceptions=return_exceptions)
        async with aclosing(cast("Any", running)) as ends:
            async for end in ends:
                yield end

    def _gates(self, configs: Sequence[RunnableConfig]) -> Gates:
        caps = {model.name: model.max_concurrency for model in self.router.models}
        return Gates(caps, configs[0].get("max_concurrency") or None)

    def _plans(
        self,
        inputs: Sequence[LanguageModelInput],
        configs: Sequence[RunnableConfig],
        given: dict[str, Any],
        *,
        return_exceptions: bool,
    ) -> list[Plan]:
        return plan_all(
            [partial(self._to_decide, *each, given) for each in zip(inputs, configs, strict=True)],
            lambda requests: self._decided(requests, self._policy(given)),
            return_exceptions=return_exceptions,
        )

    def _to_decide(
        self, each: LanguageModelInput, config: RunnableConfig, of_the_call: dict[str, Any]
    ) -> Plan | Request:
        """The request of one input; nothing to decide for one whose answer is cached."""
        given = self._in_session(config, of_the_call)
        messages = self._convert_input(each).to_messages()
        stop = given.get("stop")
        settings = {name: value for name, value in given.items() if name != "stop"}
        with as_langchain_expects():
            asking = self._asking(messages, stop, settings)
        if isinstance(asking, PlannedCall):
            return asking
        return None if self._is_cached(messages, stop, settings) else asking

    def _is_cached(self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]) -> bool:
        """Whether `invoke` will find its answer in the cache; looked up with the same key."""
        cache = self.cache if isinstance(self.cache, BaseCache) else get_llm_cache()
        if cache is None or self.cache is False:
            return False
        key = dumps([message.model_copy(update={"id": None}) if message.id else message for message in messages])
        asked = {name: value for name, value in given.items() if name not in OF_THE_FRAMEWORK}
        return bool(cache.lookup(key, self._get_llm_string(stop=stop, **asked)))

    def configurable_fields(
        self, **kwargs: AnyConfigurableField
    ) -> RunnableSerializable[LanguageModelInput, AIMessage]:
        """See `Runnable`; a batch with one and the same configuration is still assigned jointly."""
        from eccos_integrations.langchain.configurable import joint_configurable_fields

        return joint_configurable_fields(self, super().configurable_fields(**kwargs))
