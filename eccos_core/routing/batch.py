"""Runs a decided batch: as many calls at once as each model's slots allow, with results in order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from typing import TypeVar

from eccos_core.errors import EccosError

MOST_THREADS = 64  # per model. For more calls at once, use an event loop (`acomplete_batch`)

Result = TypeVar("Result")


def call_all(
    models: Sequence[str], at_once: Callable[[str], int], call: Callable[[int], Result]
) -> list[Result | BaseException]:
    """Call `call(i)` for every job i of model `models[i]`, at most `at_once(model)` calls of one model at a time.

    Every job ends, with its result or its exception in its place. Each runs in a copy of the caller's context.
    """
    jobs = Counter(models)
    with ExitStack() as pools:
        pool = {
            model: pools.enter_context(
                ThreadPoolExecutor(min(count, at_once(model), MOST_THREADS), thread_name_prefix=f"eccos-{model}")
            )
            for model, count in jobs.items()
        }
        futures: list[Future[Result]] = [
            pool[model].submit(copy_context().run, call, i) for i, model in enumerate(models)
        ]
    return [future.exception() or future.result() for future in futures]


async def acall_all(
    models: Sequence[str], at_once: Callable[[str], int], call: Callable[[int], Awaitable[Result]]
) -> list[Result | BaseException]:
    """The asynchronous twin of `call_all`. A cancellation cancels every call."""
    gates = {model: asyncio.Semaphore(at_once(model)) for model in set(models)}

    async def one(i: int) -> Result:
        async with gates[models[i]]:
            return await call(i)

    return list(await asyncio.gather(*(one(i) for i in range(len(models))), return_exceptions=True))


def settle_results(
    results: list[Result | BaseException], *, return_exceptions: bool
) -> list[Result] | list[Result | EccosError]:
    """Return the results, with our own errors in their places when asked to. Else raise the first error.

    What is no error of ours (a cancellation, a fault) is always raised.
    """
    kept: list[Result | EccosError] = []
    for result in results:
        if isinstance(result, BaseException) and not (return_exceptions and isinstance(result, EccosError)):
            raise result
        kept.append(result)
    return kept
