"""`RoutedRunnable`: one branch per model of the pool. A branch is any Runnable."""

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
from eccos_integrations.langchain.batch_plan import ConcurrencyLimits, Plan, arun_calls, run_calls


class RoutedRunnable(RunnableSerializable[Any, Any]):
    """A Runnable that sends each input to the branch of the model that `chooser` decides for.

    You get one from `EccosRouter.route_to`.

    The metadata of the branch holds the decision (`eccos_decision_id`, `eccos_model`), so traces and
    `FeedbackRecorder` know it. No slot is held for a branch. The branch holds one when it calls a model.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    chooser: Runnable[Any, Decision]
    """What decides: an `EccosRouter`."""
    branches: Mapping[str, Runnable[Any, Any]]
    """The branch of each model, by the model's name."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """Decide, then invoke the branch of the chosen model."""
        return self._call_with_config(self._invoke_branch, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """The asynchronous twin of `invoke`."""
        return await self._acall_with_config(self._ainvoke_branch, input, config, **kwargs)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:  # noqa: A002
        """Decide, then stream the branch of the chosen model."""
        return self._transform_stream_with_config(iter([input]), self._stream_branch, config, **kwargs)

    def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:  # noqa: A002
        """The asynchronous twin of `stream`."""

        async def yield_input() -> AsyncIterator[Any]:
            yield input

        return self._atransform_stream_with_config(yield_input(), self._astream_branch, config, **kwargs)

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Decide all inputs in one assignment, then call one batch per branch. Results keep the order of the inputs."""
        invoke_all = partial(self._invoke_branches, return_exceptions=return_exceptions)
        return self._batch_with_config(invoke_all, inputs, config, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """The asynchronous twin of `batch`."""
        invoke_all = partial(self._ainvoke_branches, return_exceptions=return_exceptions)
        return await self._abatch_with_config(invoke_all, inputs, config, return_exceptions=return_exceptions, **kwargs)

    def batch_as_completed(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """Decide all inputs in one assignment, then yield (place, answer) as the branches end."""
        configs = get_config_list(config, len(inputs))
        made = self.chooser.batch(list(inputs), configs, return_exceptions=return_exceptions)

        def call(i: int) -> Any:
            return self._call_with_config(
                partial(self._invoke_branch, decided=made[i]), inputs[i], configs[i], **kwargs
            )

        yield from run_calls(_plan_errors(made), _build_limits(configs), call, return_exceptions=return_exceptions)

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
            return await self._acall_with_config(
                partial(self._ainvoke_branch, decided=made[i]), inputs[i], configs[i], **kwargs
            )

        async for end in arun_calls(
            _plan_errors(made), _build_limits(configs), call, return_exceptions=return_exceptions
        ):
            yield end

    # --------------------------------------------------------------------------------------- branches

    def _invoke_branch(
        self,
        each: Any,
        run_manager: CallbackManagerForChainRun,
        config: RunnableConfig,
        decided: Decision | None = None,
        **kwargs: Any,
    ) -> Any:
        decision = decided or self.chooser.invoke(each, _configure_decision(config, run_manager))
        return self.branches[decision.model].invoke(each, _configure_branch(config, run_manager, decision), **kwargs)

    async def _ainvoke_branch(
        self,
        each: Any,
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        decided: Decision | None = None,
        **kwargs: Any,
    ) -> Any:
        decision = decided or await self.chooser.ainvoke(each, _configure_decision(config, run_manager))
        return await self.branches[decision.model].ainvoke(
            each, _configure_branch(config, run_manager, decision), **kwargs
        )

    def _stream_branch(
        self, inputs: Iterator[Any], run_manager: CallbackManagerForChainRun, config: RunnableConfig, **kwargs: Any
    ) -> Iterator[Any]:
        for each in inputs:
            decision = self.chooser.invoke(each, _configure_decision(config, run_manager))
            yield from self.branches[decision.model].stream(
                each, _configure_branch(config, run_manager, decision), **kwargs
            )

    async def _astream_branch(
        self,
        inputs: AsyncIterator[Any],
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        async for each in inputs:
            decision = await self.chooser.ainvoke(each, _configure_decision(config, run_manager))
            branch = self.branches[decision.model]
            async for piece in branch.astream(each, _configure_branch(config, run_manager, decision), **kwargs):
                yield piece

    def _invoke_branches(
        self,
        inputs: list[Any],
        run_manager: list[CallbackManagerForChainRun],
        config: list[RunnableConfig],
        *,
        return_exceptions: bool,
        **kwargs: Any,
    ) -> list[Any]:
        deciding = [_configure_decision(each, manager) for each, manager in zip(config, run_manager, strict=True)]
        results: list[Any] = list(self.chooser.batch(inputs, deciding, return_exceptions=return_exceptions))
        groups = self._group_inputs(results, inputs, config, run_manager)

        def call_branch(group: _Group) -> list[Any]:
            branch, part, configs, _ = group
            return branch.batch(part, configs, return_exceptions=return_exceptions, **kwargs)

        if len(groups) == 1 or config[0].get("max_concurrency"):  # branches one after the other keep the limit
            answers = list(map(call_branch, groups))
        else:
            with get_executor_for_config(config[0]) as executor:
                answers = list(executor.map(call_branch, groups))
        return _place_answers(results, groups, answers)

    async def _ainvoke_branches(
        self,
        inputs: list[Any],
        run_manager: list[AsyncCallbackManagerForChainRun],
        config: list[RunnableConfig],
        *,
        return_exceptions: bool,
        **kwargs: Any,
    ) -> list[Any]:
        deciding = [_configure_decision(each, manager) for each, manager in zip(config, run_manager, strict=True)]
        results: list[Any] = list(await self.chooser.abatch(inputs, deciding, return_exceptions=return_exceptions))
        groups = self._group_inputs(results, inputs, config, run_manager)

        async def call_branch(group: _Group) -> list[Any]:
            branch, part, configs, _ = group
            return await branch.abatch(part, configs, return_exceptions=return_exceptions, **kwargs)

        if config[0].get("max_concurrency"):
            answers = [await call_branch(group) for group in groups]
        else:
            answers = list(await asyncio.gather(*map(call_branch, groups)))
        return _place_answers(results, groups, answers)

    def _group_inputs(
        self, made: Sequence[Any], inputs: Sequence[Any], config: Sequence[RunnableConfig], managers: Sequence[Any]
    ) -> list[_Group]:
        """Return the inputs of each branch, with their configurations and places."""
        rows: dict[str, list[int]] = {}
        for row, decision in enumerate(made):
            if isinstance(decision, Decision):
                rows.setdefault(decision.model, []).append(row)
        return [
            (
                self.branches[model],
                [inputs[row] for row in places],
                [_configure_branch(config[row], managers[row], made[row]) for row in places],
                places,
            )
            for model, places in rows.items()
        ]


_Group = tuple[Runnable[Any, Any], list[Any], list[RunnableConfig], list[int]]


def _configure_decision(config: RunnableConfig, manager: Any) -> RunnableConfig:
    return patch_config(config, callbacks=manager.get_child("decision"))


def _configure_branch(config: RunnableConfig, manager: Any, decision: Decision) -> RunnableConfig:
    known = {"eccos_decision_id": decision.id, "eccos_model": decision.model}
    child = patch_config(config, callbacks=manager.get_child(f"model:{decision.model}"))
    return merge_configs(child, {"metadata": known})


def _plan_errors(made: Sequence[Any]) -> list[Plan]:
    return [each if isinstance(each, BaseException) else None for each in made]


def _build_limits(configs: Sequence[RunnableConfig]) -> ConcurrencyLimits:
    return ConcurrencyLimits({}, configs[0].get("max_concurrency") if configs else None)


def _place_answers(results: list[Any], groups: Sequence[_Group], answers: Sequence[Sequence[Any]]) -> list[Any]:
    for (*_, places), part in zip(groups, answers, strict=True):
        for row, answer in zip(places, part, strict=True):
            results[row] = answer
    return results
