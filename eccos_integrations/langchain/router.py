"""`EccosRouter`: the decision which model should answer, as a Runnable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.base import RunnableLike, coerce_to_runnable
from langchain_core.runnables.config import get_config_list
from pydantic import Field

from eccos_core.domain import Decision, Request
from eccos_core.errors import did_you_mean
from eccos_integrations._shared.errors import InvalidRequestError
from eccos_integrations._shared.settings import pick_parameters
from eccos_integrations.langchain.batch_plan import PlannedCall, plan_batch
from eccos_integrations.langchain.errors import raise_langchain_errors
from eccos_integrations.langchain.messages import to_openai
from eccos_integrations.langchain.routed_runnable import RoutedRunnable
from eccos_integrations.langchain.settings import CALL_SETTINGS, LangChainSettings


class EccosRouter(LangChainSettings, RunnableSerializable[Any, Decision]):
    """Decide which model of the pool should answer, and call nothing. A batch is decided jointly.

        EccosRouter(config="eccos.yaml").invoke("What is 17 * 23?").model
        EccosRouter(config="eccos.yaml").route_to({"small": chain_a, "large": chain_b}).batch(inputs)

    The input is a string, a prompt value, messages or a dictionary. A dictionary is a LangGraph state with `messages`,
    or the input of a chain. `question` says where in it the question is. The output is the `Decision`. No slot is held
    for it.
    """

    question: Any = Field(default=None, exclude=True, repr=False)
    """Where a dictionary holds the question: the key, or a function of the input."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Decision:  # noqa: A002
        """Decide one request at the current price, or as a batch of one under a policy of its own."""
        return self._call_with_config(self._decide, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Decision:  # noqa: A002
        """The asynchronous twin of `invoke`. The work is done in a thread."""
        return await self._acall_with_config(self._adecide, input, config, **kwargs)

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Decision]:
        """Decide all inputs in one assignment, in their order."""
        return self._batch_with_config(self._decide_all, inputs, config, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Decision]:
        """The asynchronous twin of `batch`."""
        return await self._abatch_with_config(
            self._adecide_all, inputs, config, return_exceptions=return_exceptions, **kwargs
        )

    def batch_as_completed(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """Decide as `batch` does, and yield (place, decision). All of them end at once."""
        configs = get_config_list(config, len(inputs))
        yield from enumerate(self.batch(list(inputs), configs, return_exceptions=return_exceptions, **kwargs))

    async def abatch_as_completed(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Any]]:
        """Decide as `batch` does, and yield (place, decision). All of them end at once."""
        configs = get_config_list(config, len(inputs))
        made = await self.abatch(list(inputs), configs, return_exceptions=return_exceptions, **kwargs)
        for place in enumerate(made):
            yield place

    def route_to(self, branches: Mapping[str, RunnableLike[Any, Any]]) -> RoutedRunnable:
        """Send each input to the branch of the model that is chosen for it. Only models with a branch are chosen.

        `branches` maps names of models to anything that LangChain takes as a Runnable. Raises `ValueError` for names
        outside the pool, and when no model with a branch may be chosen.
        """
        names = [model.name for model in self.router.models]
        for name in branches:
            if name not in names:
                raise ValueError(
                    f"route_to has a branch for {name!r}, which is not in the pool{did_you_mean(name, names) or '.'} "
                    f"The pool has: {', '.join(names)}."
                )
        wanted = frozenset({self.model} if self.model is not None else self.allow or names)
        allow = wanted.intersection(branches)
        if not allow:
            raise ValueError(f"route_to has no branch for any model that may be chosen: {', '.join(sorted(wanted))}")
        chooser = self.model_copy(update={"allow": allow})
        return RoutedRunnable(chooser=chooser, branches={name: coerce_to_runnable(b) for name, b in branches.items()})

    # -------------------------------------------------------------------------------------------------------- deciding

    def _read_request(self, given_input: Any, config: RunnableConfig | None, given: dict[str, Any]) -> Request:
        settings = self._add_session(config, given)
        with raise_langchain_errors():
            parameters = pick_parameters(settings, CALL_SETTINGS)
            return self._build_request(to_openai(read_messages(given_input, self.question)), parameters, settings)

    def _decide(self, given_input: Any, run_manager: Any, config: RunnableConfig, **given: Any) -> Decision:
        request, policy = self._read_request(given_input, config, given), self._choose_policy(given)
        with raise_langchain_errors():
            made: Decision = (
                self.router.decide(request) if policy is None else self.router.route([request], policy=policy)[0]
            )
        return made

    async def _adecide(self, given_input: Any, run_manager: Any, config: RunnableConfig, **given: Any) -> Decision:
        return await asyncio.to_thread(self._decide, given_input, run_manager, config, **given)

    def _decide_all(
        self, inputs: list[Any], run_manager: Any, config: list[RunnableConfig], **given: Any
    ) -> list[Exception | Decision]:
        plans = plan_batch(
            [partial(self._read_request, *each, given) for each in zip(inputs, config, strict=True)],
            lambda requests: self._decide_jointly(requests, given),
            return_exceptions=True,
        )
        return [plan.decision if isinstance(plan, PlannedCall) else plan for plan in plans]  # type: ignore[misc]

    async def _adecide_all(
        self, inputs: list[Any], run_manager: Any, config: list[RunnableConfig], **given: Any
    ) -> list[Exception | Decision]:
        return await asyncio.to_thread(self._decide_all, inputs, run_manager, config, **given)


def read_messages(given: Any, question: Any = None) -> list[BaseMessage]:
    """Find the conversation in an input. Raise `InvalidRequestError` when there is none."""
    if question is not None:
        given = question(given) if callable(question) else given[question]
    if isinstance(given, Mapping):
        given = _find_question(given)
    if isinstance(given, str):
        return [HumanMessage(given)]
    if isinstance(given, PromptValue):
        return given.to_messages()
    if isinstance(given, BaseMessage):
        return [given]
    if isinstance(given, Sequence):
        return list(convert_to_messages(given))
    raise InvalidRequestError(
        f"the input is a {type(given).__name__}. Give a string, a prompt value or messages. "
        "For another input say where the question is: EccosRouter(question=...)."
    )


def _find_question(given: Mapping[str, Any]) -> Any:
    if "messages" in given:
        return given["messages"]
    texts = [name for name, value in given.items() if isinstance(value, str | PromptValue)]
    if len(texts) != 1:
        raise InvalidRequestError(
            f"which of {', '.join(map(repr, given)) or 'no keys'} is the question? Say it: EccosRouter(question='...')."
        )
    return given[texts[0]]
