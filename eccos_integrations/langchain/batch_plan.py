"""Decide a whole batch at once, then let the framework's own `invoke` call the model for each input.

Every input runs through `invoke` with its decision. So callbacks, traces, cache, rate limiter and retries behave as
LangChain promises. As many calls run at once as the slots of their models or `max_concurrency` allow, whichever is
less.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AsyncExitStack, ExitStack
from contextvars import copy_context
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import Any, TypeAlias, TypeVar

from eccos_core.domain import Decision, Request
from eccos_core.errors import EccosError
from eccos_core.routing.batch import MOST_THREADS
from eccos_integrations.langchain.errors import langchain_error

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A request with the decision that was made for it as a part of a batch."""

    request: Request
    decision: Decision


Plan: TypeAlias = PlannedCall | BaseException | None  # None: the answer is cached, so there is nothing to decide


def plan_batch(
    to_decide: Sequence[Callable[[], Plan | Request]],
    decide: Callable[[list[Request]], Sequence[Decision | EccosError]],
    *,
    return_exceptions: bool,
) -> list[Plan]:
    """Return a plan for every input. All inputs that give a request are decided together.

    With `return_exceptions`, an input that cannot be asked has its error in its place. So has a request that no model
    may answer. When the batch cannot be assigned at all, every place has that error. Else the first error is raised.
    """
    plans: list[Plan | Request] = []
    for each in to_decide:
        try:
            plans.append(each())
        except Exception as error:
            if not return_exceptions:
                raise
            plans.append(error)
    asked = {row: plan for row, plan in enumerate(plans) if isinstance(plan, Request)}
    try:
        made = decide(list(asked.values())) if asked else ()
    except EccosError as error:
        made = [error] * len(asked)
    for (row, request), decision in zip(asked.items(), made, strict=True):
        if isinstance(decision, Decision):
            plans[row] = PlannedCall(request, decision)
            continue
        refusal = langchain_error(decision)
        if not return_exceptions:
            raise refusal from (decision if refusal is not decision else None)
        plans[row] = refusal
    return [plan for plan in plans if not isinstance(plan, Request)]


@dataclass(frozen=True, slots=True)
class ConcurrencyLimits:
    """How many calls may run at once: `per_model` (None: no cap), and in `total` (None: no limit).

    `deployments` maps models that share slots, such as the efforts of one model, to the name that `per_model` has.
    """

    per_model: Mapping[str, int | None]
    total: int | None
    deployments: Mapping[str, str] = field(default_factory=dict)

    def find(self, plan: Plan) -> tuple[str, int]:
        """Return the model of a plan, and how many of its calls may run at once."""
        if not isinstance(plan, PlannedCall):
            return "", MOST_THREADS
        model = self.deployments.get(plan.decision.model, plan.decision.model)
        cap = self.per_model.get(model)
        return model, MOST_THREADS if cap is None else cap


def run_calls(
    plans: Sequence[Plan], limits: ConcurrencyLimits, call: Callable[[int], Answer], *, return_exceptions: bool
) -> Iterator[tuple[int, Answer | BaseException]]:
    """Run `call(i)` for every plan, and yield (place, result) as they end.

    A plan that is an error gives that error. Without `return_exceptions` the first error ends it all. When you stop
    reading, calls that have not begun are never made.
    """
    at_once_of = dict(map(limits.find, plans))
    load = Counter(limits.find(plan)[0] for plan in plans)
    total = BoundedSemaphore(limits.total) if limits.total else None

    def call_one(i: int) -> Answer:
        plan = plans[i]
        if isinstance(plan, BaseException):
            raise plan
        if total is None:
            return call(i)
        with total:
            return call(i)

    with ExitStack() as pools:
        pool = {
            model: pools.enter_context(
                ThreadPoolExecutor(
                    max(1, min(load[model], at_once, MOST_THREADS, limits.total or MOST_THREADS)),
                    thread_name_prefix="eccos-langchain",
                )
            )
            for model, at_once in at_once_of.items()
        }
        futures: dict[Future[Answer], int] = {
            pool[limits.find(plan)[0]].submit(copy_context().run, call_one, i): i for i, plan in enumerate(plans)
        }
        try:
            for future in as_completed(futures):
                yield futures[future], _read_result(future, return_exceptions=return_exceptions)
        finally:
            for future in futures:
                future.cancel()


def _read_result(future: Future[Any], *, return_exceptions: bool) -> Any:
    error = future.exception()
    if error is None:
        return future.result()
    if return_exceptions and isinstance(error, Exception):
        return error
    raise error


async def arun_calls(
    plans: Sequence[Plan],
    limits: ConcurrencyLimits,
    call: Callable[[int], Awaitable[Answer]],
    *,
    return_exceptions: bool,
) -> AsyncIterator[tuple[int, Answer | BaseException]]:
    """The asynchronous twin of `run_calls`. When you stop reading, or are cancelled, every call is cancelled."""
    caps = {model: limits.per_model.get(model) for model in {limits.find(plan)[0] for plan in plans}}
    per_model = {model: asyncio.Semaphore(cap) for model, cap in caps.items() if cap is not None}
    total = asyncio.Semaphore(limits.total) if limits.total else None
    ended: asyncio.Queue[tuple[int, Answer | BaseException]] = asyncio.Queue()

    async def call_one(i: int) -> None:
        plan = plans[i]
        if isinstance(plan, BaseException):
            ended.put_nowait((i, plan))
            return
        try:
            async with AsyncExitStack() as held:
                for semaphore in (per_model.get(limits.find(plan)[0]), total):
                    if semaphore is not None:
                        await held.enter_async_context(semaphore)
                answer = await call(i)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - handed to whoever reads the results
            ended.put_nowait((i, error))
        else:
            ended.put_nowait((i, answer))

    tasks = [asyncio.create_task(call_one(i)) for i in range(len(plans))]
    try:
        for _ in plans:
            i, outcome = await ended.get()
            if isinstance(outcome, BaseException) and not (return_exceptions and isinstance(outcome, Exception)):
                raise outcome
            yield i, outcome
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def sort_results(results: Iterator[tuple[int, Any]], count: int) -> list[Any]:
    """Return the answers, each in the place of its input."""
    places: list[Any] = [None] * count
    for i, answer in results:
        places[i] = answer
    return places
