"""One router for each configuration file of this process, however many ask for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from eccos_core.io.forks import reset_in_child


class Shareable(Protocol):
    """A router, as far as sharing it goes."""

    _release_shared: Callable[[], bool] | None


Shared = TypeVar("Shared", bound=Shareable)


class SharedRouters:
    """Counts who uses the router of a file. Safe to use from several threads.

    This is the one state of the process in eccos: two routers of one file can only share slots if they can find each
    other.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all routers. A forked child does this, because it cannot use its parent's."""
        self._lock = threading.RLock()
        self._in_use: dict[tuple[type, Path], tuple[object, int]] = {}

    def get(self, kind: type[Shared], path: str | Path, build: Callable[[], Shared]) -> Shared:
        """Return the router of a file, built at the first call. One call of `close` each releases it."""
        key = (kind, Path(path).expanduser().resolve())
        with self._lock:
            found, users = self._in_use.get(key, (None, 0))
            if isinstance(found, kind):
                self._in_use[key] = (found, users + 1)
                return found
            router = build()
            router._release_shared = partial(self._release, key)
            self._in_use[key] = (router, 1)
            return router

    def _release(self, key: tuple[type, Path]) -> bool:
        """Count one user less. True for the last one, who closes the router."""
        with self._lock:
            router, users = self._in_use[key]
            if users > 1:
                self._in_use[key] = (router, users - 1)
                return False
            del self._in_use[key]
            return True


SHARED = SharedRouters()
reset_in_child(SHARED.reset)
