"""How many threads work gets."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any

from eccos_core.io.forks import reset_in_child
from eccos_core.io.optional import needs_extra


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for linear algebra, as a router that serves has. A second one gains little on matrices this small, and
    on cores that others use the two spin and wait (a fit of 20 s took 365)."""
    with needs_extra("local", "fitting a network"):
        import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with one_thread_without_torch():
            yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def one_thread_without_torch() -> Iterator[None]:
    """The same for what does not use torch, which is then not imported (2 s, 200 MB)."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

    with threadpool_limits(1):
        yield


class BlasThreads:
    """Keeps numpy's linear algebra on one thread while anybody is inside `single_threaded`.

    The setting belongs to the whole process. It is restored when the last one leaves.
    """

    def __init__(self) -> None:
        from threadpoolctl import ThreadpoolController

        self._libraries: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
        self._before: list[int] = []
        self._inside = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def single_threaded(self) -> Iterator[None]:
        """One thread inside the block (2 us, where `threadpool_limits` takes 1 ms)."""
        with self._lock:
            if not self._inside:
                self._before = [library.get_num_threads() for library in self._libraries]
                for library in self._libraries:
                    library.set_num_threads(1)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    for library, threads in zip(self._libraries, self._before, strict=True):
                        library.set_num_threads(threads)


@functools.cache  # there is one linear algebra in a process; finding it takes a millisecond
def blas_threads() -> BlasThreads:
    """The linear algebra that numpy loaded."""
    return BlasThreads()


reset_in_child(blas_threads.cache_clear)
