"""How many threads work gets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for linear algebra, as a router that serves has. A second one gains little on matrices this small, and
    on cores that others use the two spin and wait (a fit of 20 s took 365)."""
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
