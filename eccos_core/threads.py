"""How many threads linear algebra gets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for linear algebra, as a router that serves has. A second one gains little on matrices this small, and
    on cores that others use the two spin and wait (a fit of 20 s took 365)."""
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
