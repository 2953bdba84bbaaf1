"""`EccosRouter`: the decision as a Runnable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.base import RunnableLike, coerce_to_runnable
from langchain_core.runnables.config import get_config_list
from pydantic import Field

from eccos_core.domain import Decision, Request
from eccos_core.errors import did_you_mean
from eccos_integrations.langchain.batch_plan import PlannedCall, plan_all
from eccos_integrations.langchain.errors import InvalidRequestError, as_langchain_expects
from eccos_integrations.langchain.messages import to_openai
from eccos_integrations.langchain.settings import PER_CALL, LangChainSettings

if TYPE_CHECKING:
    from eccos_integrations.langchain.branching import RoutedRunnable


class EccosRouter(LangChainSettings, RunnableSerializable[Any, Decision]):
    """Decides which model of the pool should answer, and calls nothing. A batch is decided jointly.

        EccosRouter(config="eccos.yaml").invoke("What is 17 * 23?").model
        EccosRouter(config="eccos.yaml").route_to({"small": chain_a, "large": chain_b}).batch(inputs)

    Input: a string, a prompt value, messages, or a dictionary (a LangGraph state with `messages`, or a chain's input:
    `question` says where in it the question is). Output: the `Decision`. No slot is held for it.
    """

    question: Any = Field(default=None, exclude=True, repr=False)
    """Where the question is in an input that is a dictionary: its key, or a function of the input."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Decision:  # noqa: A002
        """The decision for one request, at the stream's price, or as a batch of one under a policy of its own."""
        return self._call_with_config(self._decide, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Decision:  # noqa: A002
        """The same; the work is done in a thread."""
        return await self._acall_with_config(self._adecide, input, config, **kwargs)

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Decision]:
        """One assignment for all inputs, in their order."""
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
        """See `batch`: a joint decision is complete for all at once."""
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
        """See `batch`: a joint decision is complete for all at once."""
        configs = get_config_list(config, len(inputs))
        made = await self.abatch(list(inputs), configs, return_exceptions=return_exceptions, **kwargs)
        for place in enumerate(made):
            yield place

    def route_to(self, branches: Mapping[str, RunnableLike[Any, Any]]) -> RoutedRunnable:
        """Sends each input to the branch of the model that is chosen for it. Only models with a branch are chosen.

        A branch is anything that LangChain takes as a Runnable. Raises `ValueError` for names outside the pool.
        """
        from eccos_integrations.langchain.branching import RoutedRunnable

        names = [model.name for model in self.router.models]
        for name in branches:
            if name not in names:
                raise ValueError(
                    f"route_to has a branch for {name!r}, which is not in the pool{did_you_mean(name, names) or '.'} "
                    f"The pool has: {', '.join(names)}."
                )
        wanted = {self.model} if self.model is not None else self.allow or set(names)
        allow = frozenset(branches) & wanted
        if not allow:
            raise ValueError(f"route_to has no branch for any model that may be chosen: {', '.join(sorted(wanted))}")
        chooser = self.model_copy(update={"allow": allow})
        return RoutedRunnable(chooser=chooser, branches={name: coerce_to_runnable(b) for name, b in branches.items()})

    # -------------------------------------------------------------------------------------------------------- deciding

    def _to_request(self, given_input: Any, config: RunnableConfig | None, given: dict[str, Any]) -> Request:
        settings = self._in_session(config, given)
        parameters = {name: value for name, value in settings.items() if name not in PER_CALL and value is not None}
        with as_langchain_expects():
            return self._request(to_openai(messages_of(given_input, self.question)), parameters, settings)

    def _decide(self, given_input: Any, run_manager: Any, config: RunnableConfig, **given: Any) -> Decision:
        request, policy = self._to_request(given_input, config, given), self._policy(given)
        with as_langchain_expects():
            made: Decision = (
                self.router.decide(request) if policy is None else self.router.route([request], policy=policy)[0]
            )
        return made

    async def _adecide(self, given_input: Any, run_manager: Any, config: RunnableConfig, **given: Any) -> Decision:
        return await asyncio.to_thread(self._decide, given_input, run_manager, config, **given)

    def _decide_all(
        self, inputs: list[Any], run_manager: Any, config: list[RunnableConfig], **given: Any
    ) -> list[Exception | Decision]:
        plans = plan_all(
            [partial(self._to_request, *each, given) for each in zip(inputs, config, strict=True)],
            lambda requests: self._decided(requests, self._policy(given)),
            return_exceptions=True,
        )
        return [plan.decision if isinstance(plan, PlannedCall) else plan for plan in plans]  # type: ignore[misc]

    async def _adecide_all(
        self, inputs: list[Any], run_manager: Any, config: list[RunnableConfig], **given: Any
    ) -> list[Exception | Decision]:
        return await asyncio.to_thread(self._decide_all, inputs, run_manager, config, **given)


def messages_of(given: Any, question: Any = None) -> list[BaseMessage]:
    """The conversation in an input. Raises `InvalidRequestError` where it cannot be found."""
    if question is not None:
        given = question(given) if callable(question) else given[question]
    if isinstance(given, Mapping):
        given = _of_dictionary(given)
    if isinstance(given, str):
        return [HumanMessage(given)]
    if isinstance(given, PromptValue):
        return given.to_messages()
    if isinstance(given, BaseMessage):
        return [given]
    if isinstance(given, Sequence):
        return list(convert_to_messages(given))
    raise InvalidRequestError(
        f"the input is a {type(given).__name__}; give a string, a prompt value, messages, or EccosRouter(question=...)"
    )


def _of_dictionary(given: Mapping[str, Any]) -> Any:
    if "messages" in given:
        return given["messages"]
    texts = [name for name, value in given.items() if isinstance(value, str | PromptValue)]
    if len(texts) != 1:
        raise InvalidRequestError(
            f"which of {', '.join(map(repr, given)) or 'no keys'} is the question? Say EccosRouter(question='...')"
        )
    return given[texts[0]]
