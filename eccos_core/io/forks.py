"""Detect a forked child process, in which threads, locks and connections of the parent do not work."""

from __future__ import annotations

import os
from collections.abc import Callable

from eccos_core.errors import ForkedProcessError


class ProcessGuard:
    """Remember the process that built something, and refuse its use in a forked child.

    owned: what was built, as the subject of the error's first sentence.
    """

    def __init__(self, owned: str) -> None:
        self._owned = owned
        self._pid = os.getpid()

    @property
    def is_forked(self) -> bool:
        """Whether this process is a forked child of the one that built it."""
        return os.getpid() != self._pid

    def check(self) -> None:
        """Raise `ForkedProcessError` in a forked child."""
        if self.is_forked:
            raise ForkedProcessError(
                f"{self._owned} was opened in process {self._pid}, and this is process {os.getpid()}, a fork of it. "
                "Threads, locks and connections do not survive a fork. Build the router in the child, and do not open "
                "one in the parent: in gunicorn without preload_app or in post_fork, in Celery in "
                'worker_process_init, in multiprocessing with the start method "spawn"'
            )


def reset_in_child(reset: Callable[[], object]) -> None:
    """Call `reset` in every forked child, to forget state that belongs to the parent. Does nothing on Windows."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)


def wait_before_fork(wait: Callable[[], object]) -> None:
    """Call `wait` before every fork. Does nothing on Windows."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=wait)
