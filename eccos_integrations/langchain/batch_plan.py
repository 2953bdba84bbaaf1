"""One assignment for a whole batch, then the framework's own `invoke` for each input.

Deciding is joint; calling is not: every input runs through `invoke` with its decision in hand, so that callbacks,
traces, cache, rate limiter and retries behave as LangChain promises. As many run at once as the slots of their models
allow, or `max_concurrency`, whichever is less.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AsyncExitStack, ExitStack
from contextvars import copy_context
from dataclasses import dataclass
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


Plan: TypeAlias = PlannedCall | BaseException | None  # None: nothing to decide, the answer is cached


def plan_all(
    to_decide: Sequence[Callable[[], Plan | Request]],
    decide: Callable[[list[Request]], Sequence[Decision | EccosError]],
    *,
    return_exceptions: bool,
) -> list[Plan]:
    """A plan for every input: those that give a request are decided together.

    An input that cannot be asked, and a request that no model may answer, has its error in its place, or raises it
    without `return_exceptions`; so do all of them when they cannot be assigned at all.
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
class Gates:
    """How many calls may run at once: `caps` per model (None: no cap), `most` of all together (None: no limit)."""

    caps: Mapping[str, int | None]
    most: int | None

    def of(self, plan: Plan) -> tuple[str, int]:
        """The model of a plan, and how many of its calls may run at once."""
        if not isinstance(plan, PlannedCall):
            return "", MOST_THREADS
        cap = self.caps.get(plan.decision.model)
        return plan.decision.model, MOST_THREADS if cap is None else cap


def run_all(
    plans: Sequence[Plan], gates: Gates, call: Callable[[int], Answer], *, return_exceptions: bool
) -> Iterator[tuple[int, Answer | BaseException]]:
    """`call(i)` for every plan, as they end. Without `return_exceptions` the first error ends it all.

    A plan that is an error is that error. Calls that have not begun when somebody stops reading are never made.
    """
    places = dict(map(gates.of, plans))
    load = Counter(gates.of(plan)[0] for plan in plans)
    everything = BoundedSemaphore(gates.most) if gates.most else None

    def one(i: int) -> Answer:
        plan = plans[i]
        if isinstance(plan, BaseException):
            raise plan
        if everything is None:
            return call(i)
        with everything:
            return call(i)

    with ExitStack() as pools:
        pool = {
            model: pools.enter_context(
                ThreadPoolExecutor(
                    max(1, min(load[model], at_once, MOST_THREADS, gates.most or MOST_THREADS)),
                    thread_name_prefix="eccos-langchain",
                )
            )
            for model, at_once in places.items()
        }
        futures: dict[Future[Answer], int] = {
            pool[gates.of(plan)[0]].submit(copy_context().run, one, i): i for i, plan in enumerate(plans)
        }
        try:
            for future in as_completed(futures):
                yield futures[future], _outcome(future, return_exceptions=return_exceptions)
        finally:
            for future in futures:
                future.cancel()


def _outcome(future: Future[Any], *, return_exceptions: bool) -> Any:
    error = future.exception()
    if error is None:
        return future.result()
    if return_exceptions and isinstance(error, Exception):
        return error
    raise error


async def arun_all(
    plans: Sequence[Plan], gates: Gates, call: Callable[[int], Awaitable[Answer]], *, return_exceptions: bool
) -> AsyncIterator[tuple[int, Answer | BaseException]]:
    """The asynchronous twin of `run_all`; whoever stops reading, or is cancelled, cancels every call."""
    caps = {model: gates.caps.get(model) for model in {gates.of(plan)[0] for plan in plans}}
    places = {model: asyncio.Semaphore(cap) for model, cap in caps.items() if cap is not None}
    everything = asyncio.Semaphore(gates.most) if gates.most else None
    ended: asyncio.Queue[tuple[int, Answer | BaseException]] = asyncio.Queue()

    async def one(i: int) -> None:
        plan = plans[i]
        if isinstance(plan, BaseException):
            ended.put_nowait((i, plan))
            return
        try:
            async with AsyncExitStack() as held:
                for gate in (places.get(gates.of(plan)[0]), everything):
                    if gate is not None:
                        await held.enter_async_context(gate)
                answer = await call(i)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - handed to whoever reads the results
            ended.put_nowait((i, error))
        else:
            ended.put_nowait((i, answer))

    tasks = [asyncio.create_task(one(i)) for i in range(len(plans))]
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


def in_order(results: Iterator[tuple[int, Any]], count: int) -> list[Any]:
    """The answers, each in the place of its input."""
    places: list[Any] = [None] * count
    for i, answer in results:
        places[i] = answer
    return places
