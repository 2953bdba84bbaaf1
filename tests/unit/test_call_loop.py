"""The loop that every provider call runs on: results, errors, interrupts, streams, closing, forks."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import AsyncGenerator, Iterator

import pytest

from eccos_core.backends.litellm.backend import before
from eccos_core.backends.litellm.call_loop import CallLoop
from eccos_core.domain import Deadline


@pytest.fixture
def loop() -> Iterator[CallLoop]:
    made = CallLoop()
    yield made
    made.close()


async def name_of_thread() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


async def fail() -> None:
    raise ValueError("no")


class Numbers:
    """Counts up, and notes that it was closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    async def count(self, end: int) -> AsyncGenerator[int, None]:
        try:
            for number in range(1, end):
                await asyncio.sleep(0)
                yield number
        finally:
            self.closed.set()


async def test_threads_and_tasks_share_one_thread(loop: CallLoop) -> None:
    assert await asyncio.to_thread(loop.run, name_of_thread()) == await loop.arun(name_of_thread()) == "eccos-calls"


def test_an_error_arrives_where_it_is_waited_for(loop: CallLoop) -> None:
    with pytest.raises(ValueError, match="no"):
        loop.run(fail())


async def test_cancelling_the_caller_cancels_the_call(loop: CallLoop) -> None:
    ended = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    task = asyncio.create_task(loop.arun(wait()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ended.wait, 5)


def test_a_stream_is_whole_and_one_that_is_dropped_is_closed(loop: CallLoop) -> None:
    numbers = Numbers()
    assert list(loop.iterate(numbers.count(4))) == [1, 2, 3]
    assert numbers.closed.wait(5)
    dropped = Numbers()
    stream = loop.iterate(dropped.count(1000))
    assert next(stream) == 1
    del stream
    gc.collect()
    assert dropped.closed.wait(5)


async def test_an_asynchronous_stream_that_is_left_is_closed(loop: CallLoop) -> None:
    numbers = Numbers()
    stream = loop.aiterate(numbers.count(1000))
    assert [await anext(stream), await anext(stream)] == [1, 2]
    await stream.aclose()
    assert await asyncio.to_thread(numbers.closed.wait, 5)


def test_after_closing_the_next_call_starts_it_again(loop: CallLoop) -> None:
    assert loop.run(name_of_thread())
    loop.close()
    loop.close()
    assert loop.run(name_of_thread()) == "eccos-calls"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_after_a_fork_the_child_has_its_own(loop: CallLoop) -> None:
    loop.run(name_of_thread())
    child = os.fork()
    if child == 0:
        os._exit(0 if loop.run(name_of_thread()) == "eccos-calls" else 1)
    for _ in range(500):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child waits for a thread that it does not have")


async def test_the_deadline_ends_what_never_ends() -> None:
    with pytest.raises(TimeoutError, match=r"within the deadline of 0\.02 s"):
        await before(Deadline.after(0.02), asyncio.Event().wait())
    assert await before(None, name_of_thread())
    assert await before(Deadline.after(60), name_of_thread())


async def test_what_a_library_makes_of_the_cancellation_is_still_a_timeout() -> None:
    async def swallow() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise RuntimeError("connection lost") from None

    with pytest.raises(TimeoutError, match="deadline"):
        await before(Deadline.after(0.02), swallow())
