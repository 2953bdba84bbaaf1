"""The calls of a plan: fallbacks of the first call, then further models, until an answer is accepted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import replace
from typing import TypeAlias

from eccos_core.domain import Chunk, Completion
from eccos_core.errors import BackendError, Overloaded
from eccos_core.routing.execution import Execution
from eccos_core.routing.plan_run import PlanRun

Reply: TypeAlias = Completion | BackendError | Overloaded
Walk: TypeAlias = Generator[None, Reply, Completion]  # each `yield` asks for one call of `execution.model`


def walk_plan(execution: Execution, run: PlanRun) -> Walk:
    """Say when to call `execution.model`, and learn from each reply. Returns the answer that is given.

    Raises as `Execution.record_failure` does when nobody answered. A further call that fails changes nothing.
    """
    while True:
        reply = yield
        if isinstance(reply, Completion):
            run.add(execution.observe(reply))
            break
        execution.record_failure(reply)
    while (model := run.next_model()) is not None:
        execution.ask_further(model)
        reply = yield
        if isinstance(reply, Completion):
            run.add(execution.observe(reply))
        else:
            execution.record_further_failure(reply)
            run.fail(model)
    return execution.give(run.given, run.whole)


def drive(walk: Walk, call: Callable[[], Completion]) -> Completion:
    """Make the calls of a plan, one after the other."""
    next(walk)
    while True:
        try:
            reply: Reply = call()
        except (BackendError, Overloaded) as error:
            reply = error
        try:
            walk.send(reply)
        except StopIteration as done:
            given: Completion = done.value
            return given


async def adrive(walk: Walk, call: Callable[[], Awaitable[Completion]]) -> Completion:
    """The asynchronous twin of `drive`."""
    next(walk)
    while True:
        try:
            reply: Reply = await call()
        except (BackendError, Overloaded) as error:
            reply = error
        try:
            walk.send(reply)
        except StopIteration as done:
            given: Completion = done.value
            return given


def finish_chunks(chunks: Sequence[Chunk], given: Completion) -> list[Chunk]:
    """Return the chunks of the accepted answer. The last one carries the completion with its decision."""
    return [
        replace(
            chunk,
            completion=None if chunk.completion is None else given,
            model=given.model,
            decided_by=given.decided_by,
        )
        for chunk in chunks
    ]
