"""A background thread that ends when its owner closes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from eccos_core.io.forks import ProcessGuard


class StoppableThread(threading.Thread):
    """A daemon thread. `work()` must return soon after `stopping` is set."""

    def __init__(self, work: Callable[[], None], name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self.stopping = threading.Event()
        self._guard = ProcessGuard(f"the thread {name}")

    def stop(self) -> None:
        """Wait until the work has ended. The thread itself does not wait, nor does a forked child, which has none."""
        if self._guard.is_forked:
            return
        self.stopping.set()
        if self is not threading.current_thread():
            self.join()
