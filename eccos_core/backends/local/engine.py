"""A Hugging Face causal language model from a folder, answering many requests at once on one worker thread.

Cheap to import: torch and transformers are loaded by the worker thread at the first request.
"""

from __future__ import annotations

import threading
import weakref
from pathlib import Path
from typing import Any

from eccos_core.backends.local.generation import Deliver, EngineStatistics, Generation, GenerationHandle
from eccos_core.backends.local.model import EngineOptions
from eccos_core.backends.local.worker import Worker
from eccos_core.io.forks import ProcessGuard


class LocalEngine:
    """One loaded model and its worker thread. Safe to submit to from any thread.

    The folder is loaded by the worker at the first request. Closing, garbage collection and the end of the process
    stop the worker.
    """

    def __init__(self, name: str, folder: Path, options: EngineOptions | None = None) -> None:
        self._guard = ProcessGuard(f"the local model {name}")
        self._worker = Worker(name, folder, options or EngineOptions())
        self._thread = threading.Thread(target=self._worker.run, name=f"eccos-local {name}", daemon=True)
        self._finalizer = weakref.finalize(self, _stop, self._worker, self._thread, self._guard)
        self._thread.start()

    def submit(self, generation: Generation, deliver: Deliver) -> GenerationHandle:
        """Queue a request. `deliver` is called on the worker thread, must not block, and gets pieces (when streaming)
        and then exactly one `Generated` or `BackendError`. Raises `BackendError` (overloaded) when the queue is full.
        """
        self._guard.check()
        return self._worker.submit(generation, deliver)

    def statistics(self) -> EngineStatistics:
        """A snapshot of what was done and what waits."""
        return self._worker.statistics()

    @property
    def model(self) -> Any:
        """The loaded `transformers` model; waits for loading. Raises `BackendError` when it could not be loaded."""
        self._guard.check()
        return self._worker.loaded().model

    def close(self) -> None:
        """Stop the worker; requests that wait or run fail as unavailable."""
        self._finalizer()


def _stop(worker: Worker, thread: threading.Thread, guard: ProcessGuard) -> None:
    if guard.is_forked:
        return
    worker.stop()
    if thread is not threading.current_thread():
        thread.join(timeout=30)
