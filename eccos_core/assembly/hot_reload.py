"""Hot reload: a router follows its YAML file without dropping a request.

A valid change assembles new parts beside the old ones, and the router swaps them in. Requests that come later use the
new parts. Requests in flight end on the old ones. All hold slots of one workload, so that caps hold across the change.
A file that cannot be used changes nothing and is reported.
"""

from __future__ import annotations

import atexit
import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from eccos_core.assembly.build import Assembler
from eccos_core.config import Config, config_changes, load_config
from eccos_core.errors import ConfigError, EccosError
from eccos_core.io.forks import ProcessGuard
from eccos_core.routing.parts import Parts

FIRST_LOOK_S, LAST_LOOK_S = 1.0, 60.0  # between looks for what an earlier version left behind
_log = logging.getLogger("eccos.reloading")


class HotReload:
    """Assembles the parts of a file, and again after every change, until `close`.

    Parts that a change leaves as they were (encoder, predictor, history, decision log, conversations, connections)
    are used again, local models too. A local model that is no longer in the file is closed, and its memory freed, when
    the last request that may call it has ended. What changed is loaded, and fitted where it must be, in the watching
    thread, before the change takes effect. Environment variables and outcomes files that the YAML names are read when
    it changes. They are not watched.

    `problem` says why the newest version of the file is not in use. It is None while it is. The logger
    `eccos.reloading` reports both. Raises as `Router.from_yaml` does.
    """

    def __init__(self, path: str | Path, progress: Callable[[str], None] | None = None) -> None:
        self.problem: str | None = None
        self._guard = ProcessGuard("this router's watcher")
        self._path = path
        self._stop = threading.Event()
        self._reloading = threading.Lock()
        self._left_behind: list[weakref.ref[Any]] = []  # backends of earlier versions
        self._collector: threading.Thread | None = None
        self._watcher: threading.Thread | None = None
        self._swap: Callable[[Parts], None] | None = None
        self._changes = config_changes(path, self._stop)  # from here on no change is missed
        self.assembler = Assembler(progress)
        self._listeners: list[Callable[[Config], None]] = []
        self._config = load_config(path)
        self.parts: Parts = self.assembler.assemble(self._config)

    def start(self, swap: Callable[[Parts], None]) -> None:
        """Begin to follow the file. `swap` puts parts into use."""
        self._swap = swap
        self._watcher = threading.Thread(target=self._follow, name="eccos-reloading", daemon=True)
        self._watcher.start()
        atexit.register(self.close)  # a thread that frees a model when the interpreter goes away takes the process down

    def listen(self, listener: Callable[[Config], None]) -> None:
        """Call `listener` with the configuration in use, now and after every change. It must not raise."""
        with self._reloading:
            self._listeners.append(listener)
            listener(self._config)

    def close(self) -> None:
        """Follow the file no longer. The parts stay as they are. A forked child follows nothing."""
        if self._guard.is_forked:
            return
        self._stop.set()
        atexit.unregister(self.close)
        for thread in (self._watcher, self._collector):
            if thread is not None and thread is not threading.current_thread():
                thread.join()
        self._listeners.clear()
        self._swap = None  # or router and follower would keep each other, and the models, until the next collection

    def reload_now(self) -> bool:
        """Read the file and put it into use. True when it is."""
        try:
            return self.reload(load_config(self._path))
        except ConfigError as error:
            return self.reload(error)

    def reload(self, change: Config | ConfigError) -> bool:
        """Put a new version of the configuration into use. True when it is. A fault is reported, never raised."""
        with self._reloading:
            if isinstance(change, ConfigError):
                return self._refuse(change)
            try:
                with self.assembler.changing:
                    parts = self.assembler.assemble(change)
                    if self._swap is not None:
                        self._swap(parts)
            except EccosError as error:
                return self._refuse(error)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the new version, the old one goes on
                return self._refuse(error)
            before, self.parts = self.parts, parts
            if parts.backend is not before.backend:
                self._left_behind = [left for left in self._left_behind if left() is not None]
                self._left_behind.append(weakref.ref(before.backend))
            del before
            self.problem, self._config = None, change
            for listener in self._listeners:
                listener(change)
            if self._left_behind and (self._collector is None or not self._collector.is_alive()):
                self._collector = threading.Thread(target=self._collect, name="eccos-letting-go", daemon=True)
                self._collector.start()
        models = [model.name for model in change.models]
        _log.info("%s: in use", change.path, extra={"eccos": {"event": "reloaded", "models": models}})
        return True

    def _collect(self) -> None:
        """Collect garbage until the backends of earlier versions are gone.

        Calls of LiteLLM lie in reference cycles, and keep in memory what nobody needs any more: local models. A full
        collection takes 0.2 s, so it is tried ever more rarely while requests in flight hold on to a backend.
        """
        wait_s = 0.0
        while any(left() is not None for left in self._left_behind) and not self._stop.wait(wait_s):
            gc.collect()
            wait_s = min(max(FIRST_LOOK_S, 2 * wait_s), LAST_LOOK_S)

    def _follow(self) -> None:
        changes: Iterator[Config | ConfigError] = self._changes
        for change in changes:
            self.reload(change)

    def _refuse(self, error: Exception) -> bool:
        reason = str(error) if isinstance(error, EccosError) else f"{type(error).__name__}, a fault of eccos"
        self.problem = reason
        extra = {"eccos": {"event": "not_reloaded", "error": type(error).__name__}}
        _log.error("the configuration stays as it was: %s", reason, extra=extra)
        return False
