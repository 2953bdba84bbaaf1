"""`RoutedRunnable`: a branch per model of the pool, whatever the branch is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import get_config_list, get_executor_for_config, merge_configs, patch_config
from pydantic import ConfigDict

from eccos_core.domain import Decision
from eccos_integrations.langchain.batch_plan import Gates, Plan, arun_all, run_all
from eccos_integrations.langchain.routing import EccosRouter


class RoutedRunnable(RunnableSerializable[Any, Any]):
    """Sends each input to the branch of the model that `chooser` decides for; see `EccosRouter.route_to`.

    The decision stands in the branch's metadata (`eccos_decision_id`, `eccos_model`), so that traces and
    `FeedbackRecorder` know it. The chooser only decides: slots are held by those who call models.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    chooser: EccosRouter
    branches: Mapping[str, Runnable[Any, Any]]

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """Decides, then invokes the branch."""
        return self._call_with_config(self._go, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """The asynchronous twin of `invoke`."""
        return await self._acall_with_config(self._ago, input, config, **kwargs)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:  # noqa: A002
        """Decides, then streams the branch."""
        return self._transform_stream_with_config(iter([input]), self._flow, config, **kwargs)

    def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:  # noqa: A002
        """The asynchronous twin of `stream`."""

        async def alone() -> AsyncIterator[Any]:
            yield input

        return self._atransform_stream_with_config(alone(), self._aflow, config, **kwargs)

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """One assignment for all inputs, then one batch per branch; results in the inputs' order."""
        go = partial(self._go_all, return_exceptions=return_exceptions)
        return self._batch_with_config(go, inputs, config, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """The asynchronous twin of `batch`."""
        go = partial(self._ago_all, return_exceptions=return_exceptions)
        return await self._abatch_with_config(go, inputs, config, return_exceptions=return_exceptions, **kwargs)

    def batch_as_completed(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """One assignment for all inputs; (place, answer) as they end."""
        configs = get_config_list(config, len(inputs))
        made = self.chooser.batch(list(inputs), configs, return_exceptions=return_exceptions)

        def call(i: int) -> Any:
            return self._call_with_config(partial(self._go, decided=made[i]), inputs[i], configs[i], **kwargs)

        yield from run_all(_failures(made), _gates(configs), call, return_exceptions=return_exceptions)

    async def abatch_as_completed(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Any]]:
        """The asynchronous twin of `batch_as_completed`."""
        configs = get_config_list(config, len(inputs))
        made = await self.chooser.abatch(list(inputs), configs, return_exceptions=return_exceptions)

        async def call(i: int) -> Any:
            return await self._acall_with_config(partial(self._ago, decided=made[i]), inputs[i], configs[i], **kwargs)

        async for end in arun_all(_failures(made), _gates(configs), call, return_exceptions=return_exceptions):
            yield end

    # ----------------------------------------------------------------------------------------------------------- going

    def _go(
        self,
        each: Any,
        run_manager: CallbackManagerForChainRun,
        config: RunnableConfig,
        decided: Decision | None = None,
        **kwargs: Any,
    ) -> Any:
        decision = decided or self.chooser.invoke(each, _deciding(config, run_manager))
        return self.branches[decision.model].invoke(each, _branch(config, run_manager, decision), **kwargs)

    async def _ago(
        self,
        each: Any,
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        decided: Decision | None = None,
        **kwargs: Any,
    ) -> Any:
        decision = decided or await self.chooser.ainvoke(each, _deciding(config, run_manager))
        return await self.branches[decision.model].ainvoke(each, _branch(config, run_manager, decision), **kwargs)

    def _flow(
        self, inputs: Iterator[Any], run_manager: CallbackManagerForChainRun, config: RunnableConfig, **kwargs: Any
    ) -> Iterator[Any]:
        for each in inputs:
            decision = self.chooser.invoke(each, _deciding(config, run_manager))
            yield from self.branches[decision.model].stream(each, _branch(config, run_manager, decision), **kwargs)

    async def _aflow(
        self,
        inputs: AsyncIterator[Any],
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        async for each in inputs:
            decision = await self.chooser.ainvoke(each, _deciding(config, run_manager))
            branch = self.branches[decision.model]
            async for piece in branch.astream(each, _branch(config, run_manager, decision), **kwargs):
                yield piece

    def _go_all(
        self,
        inputs: list[Any],
        run_manager: list[CallbackManagerForChainRun],
        config: list[RunnableConfig],
        *,
        return_exceptions: bool,
        **kwargs: Any,
    ) -> list[Any]:
        deciding = [_deciding(each, manager) for each, manager in zip(config, run_manager, strict=True)]
        results: list[Any] = list(self.chooser.batch(inputs, deciding, return_exceptions=return_exceptions))
        groups = self._groups(results, inputs, config, run_manager)

        def go(group: _Group) -> list[Any]:
            branch, part, configs, _ = group
            return branch.batch(part, configs, return_exceptions=return_exceptions, **kwargs)

        if len(groups) == 1 or config[0].get("max_concurrency"):  # one after the other keeps the limit
            answers = list(map(go, groups))
        else:
            with get_executor_for_config(config[0]) as executor:
                answers = list(executor.map(go, groups))
        return _placed(results, groups, answers)

    async def _ago_all(
        self,
        inputs: list[Any],
        run_manager: list[AsyncCallbackManagerForChainRun],
        config: list[RunnableConfig],
        *,
        return_exceptions: bool,
        **kwargs: Any,
    ) -> list[Any]:
        deciding = [_deciding(each, manager) for each, manager in zip(config, run_manager, strict=True)]
        results: list[Any] = list(await self.chooser.abatch(inputs, deciding, return_exceptions=return_exceptions))
        groups = self._groups(results, inputs, config, run_manager)

        async def go(group: _Group) -> list[Any]:
            branch, part, configs, _ = group
            return await branch.abatch(part, configs, return_exceptions=return_exceptions, **kwargs)

        if config[0].get("max_concurrency"):
            answers = [await go(group) for group in groups]
        else:
            answers = list(await asyncio.gather(*map(go, groups)))
        return _placed(results, groups, answers)

    def _groups(
        self, made: Sequence[Any], inputs: Sequence[Any], config: Sequence[RunnableConfig], managers: Sequence[Any]
    ) -> list[_Group]:
        """The inputs of each branch, with their configurations and places."""
        rows: dict[str, list[int]] = {}
        for row, decision in enumerate(made):
            if isinstance(decision, Decision):
                rows.setdefault(decision.model, []).append(row)
        return [
            (
                self.branches[model],
                [inputs[row] for row in places],
                [_branch(config[row], managers[row], made[row]) for row in places],
                places,
            )
            for model, places in rows.items()
        ]


_Group = tuple[Runnable[Any, Any], list[Any], list[RunnableConfig], list[int]]


def _deciding(config: RunnableConfig, manager: Any) -> RunnableConfig:
    return patch_config(config, callbacks=manager.get_child("decision"))


def _branch(config: RunnableConfig, manager: Any, decision: Decision) -> RunnableConfig:
    known = {"eccos_decision_id": decision.id, "eccos_model": decision.model}
    child = patch_config(config, callbacks=manager.get_child(f"model:{decision.model}"))
    return merge_configs(child, {"metadata": known})


def _failures(made: Sequence[Any]) -> list[Plan]:
    return [each if isinstance(each, BaseException) else None for each in made]


def _gates(configs: Sequence[RunnableConfig]) -> Gates:
    return Gates({}, configs[0].get("max_concurrency") if configs else None)


def _placed(results: list[Any], groups: Sequence[_Group], answers: Sequence[Sequence[Any]]) -> list[Any]:
    for (*_, places), part in zip(groups, answers, strict=True):
        for row, answer in zip(places, part, strict=True):
            results[row] = answer
    return results
