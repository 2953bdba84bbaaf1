"""Hot reload: a router that follows its YAML file, without dropping a request.

A valid change builds a new router beside the old one, which then takes its place: requests that come later go to the
new one, requests in flight end on the old one. Both hold slots of one workload, so that caps hold across the change.
A file that cannot be used changes nothing and is reported.
"""

from __future__ import annotations

import atexit
import gc
import logging
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from eccos_core.assembly.build import Built, build
from eccos_core.config import Config, config_changes, load_config
from eccos_core.domain import Chunk, Completion, Decision, Policy, RouterStatus
from eccos_core.errors import ConfigError, EccosError, UnknownDecisionError
from eccos_core.router import RequestLike, Router
from eccos_core.routing.decider import PreparedBatch
from eccos_core.routing.decision_store import DecisionStore

FIRST_LOOK_S, LAST_LOOK_S = 1.0, 60.0  # between looks for what an earlier version left behind
EARLIER = 4  # how many earlier memories of decisions are kept, for labels that come after a change
_log = logging.getLogger("eccos.reloading")


class ReloadingRouter(Router):
    """A `Router` that follows its YAML file from the moment it is made until `close`.

    Parts that a change leaves as they were (encoder, predictor, history, decision log, conversations, connections)
    are used again, local models too; one that is no longer in the file is closed, and its memory freed, when the last
    request that may call it has ended. What changed is loaded, and learnt where it must be, in the watching thread,
    before the change takes effect. Environment variables and outcomes files that the YAML names are read when it
    changes, not watched.
    `problem`: why the newest version of the file is not in use, None while it is. The logger `eccos.reloading` tells.
    """

    def __init__(self, path: str | Path) -> None:
        self.problem: str | None = None
        self._stop = threading.Event()
        self._reloading = threading.Lock()
        self._left: list[weakref.ref[Any]] = []  # backends of earlier versions
        self._letting_go: threading.Thread | None = None
        self._earlier: deque[DecisionStore] = deque(maxlen=EARLIER)
        changes = config_changes(path, self._stop)  # from here on no change is missed
        self._built = build(load_config(path))
        self._adopt(self._built)
        self._watcher = threading.Thread(target=self._follow, args=(changes,), name="eccos-reloading", daemon=True)
        self._watcher.start()
        atexit.register(self.close)  # a thread that frees a model when the interpreter goes away takes the process down

    @classmethod
    def from_yaml(cls, path: str | Path) -> ReloadingRouter:
        """The router that a configuration file describes, now and after every change of it. Raises `ConfigError`."""
        return cls(path)

    def close(self) -> None:
        """Follows the file no longer; the router goes on as it is."""
        self._stop.set()
        atexit.unregister(self.close)
        for thread in (self._watcher, self._letting_go):
            if thread is not None and thread is not threading.current_thread():
                thread.join()

    def __enter__(self) -> ReloadingRouter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ---------------------------------------------------------------- changes

    def reload(self, change: Config | ConfigError) -> bool:
        """Puts a new version of the configuration into use; True when it is. A fault is reported, never raised."""
        with self._reloading:
            if isinstance(change, ConfigError):
                return self._refuse(change)
            try:
                built = build(change, self._built)
                if built.encoder is not self._built.encoder:
                    built.encoder.encode(["ready?"])  # a model is loaded at its first text: not at a request's expense
            except EccosError as error:
                return self._refuse(error)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the new version, the old one goes on
                return self._refuse(error)
            if built.router.decision_store is not self.decision_store:
                self._earlier.append(self.decision_store)
            if built.router.backend is not self.backend:
                self._left = [left for left in self._left if left() is not None] + [weakref.ref(self.backend)]
            self._adopt(built)
            self.problem = None
            if self._left and (self._letting_go is None or not self._letting_go.is_alive()):
                self._letting_go = threading.Thread(target=self._let_go, name="eccos-letting-go", daemon=True)
                self._letting_go.start()
        models = [model.name for model in change.models]
        _log.info("%s: in use", change.path, extra={"eccos": {"event": "reloaded", "models": models}})
        return True

    def _let_go(self) -> None:
        """Collects garbage until the backends of earlier versions are gone.

        Calls of LiteLLM lie in reference cycles, and keep in memory what nobody needs any more: local models. A full
        collection takes 0.2 s, so it is tried ever more rarely while requests in flight hold on to a backend.
        """
        wait_s = 0.0
        while any(left() is not None for left in self._left) and not self._stop.wait(wait_s):
            gc.collect()
            wait_s = min(max(FIRST_LOOK_S, 2 * wait_s), LAST_LOOK_S)

    def _follow(self, changes: Iterator[Config | ConfigError]) -> None:
        for change in changes:
            self.reload(change)

    def _refuse(self, error: Exception) -> bool:
        told = str(error) if isinstance(error, EccosError) else f"{type(error).__name__}, a fault of eccos"
        self.problem = told
        extra = {"eccos": {"event": "not_reloaded", "error": type(error).__name__}}
        _log.error("the configuration stays as it was: %s", told, extra=extra)
        return False

    def _adopt(self, built: Built) -> None:
        """Requests go to this one from now on."""
        vars(self).update(vars(built.router))  # its parts, for those who look at them
        self._built = built

    @property
    def _now(self) -> Router:
        """The router of the newest usable configuration. Every request asks once, and keeps to it."""
        return self._built.router

    # ---------------------------------------------------------------- every way in

    def route(self, requests: Sequence[RequestLike], *, policy: Policy | None = None) -> list[Decision]:
        """See `Router.route`."""
        return self._now.route(requests, policy=policy)

    def route_each(
        self, requests: Sequence[RequestLike], *, policy: Policy | None = None
    ) -> list[Decision | EccosError]:
        """See `Router.route_each`."""
        return self._now.route_each(requests, policy=policy)

    def decide(self, request: RequestLike) -> Decision:
        """See `Router.decide`."""
        return self._now.decide(request)

    def explain(self, request: RequestLike) -> tuple[PreparedBatch, Decision]:
        """See `Router.explain`."""
        return self._now.explain(request)

    def complete(self, request: RequestLike, *, decision: Decision | None = None, **parameters: Any) -> Completion:
        """See `Router.complete`."""
        return self._now.complete(request, decision=decision, **parameters)

    async def acomplete(
        self, request: RequestLike, *, decision: Decision | None = None, **parameters: Any
    ) -> Completion:
        """See `Router.acomplete`."""
        return await self._now.acomplete(request, decision=decision, **parameters)

    def stream(self, request: RequestLike, *, decision: Decision | None = None, **parameters: Any) -> Iterator[Chunk]:
        """See `Router.stream`."""
        return self._now.stream(request, decision=decision, **parameters)

    def astream(
        self, request: RequestLike, *, decision: Decision | None = None, **parameters: Any
    ) -> AsyncIterator[Chunk]:
        """See `Router.astream`."""
        return self._now.astream(request, decision=decision, **parameters)

    def complete_batch(
        self, requests: Sequence[RequestLike], *, policy: Policy | None = None, return_exceptions: bool = False
    ) -> list[Completion] | list[Completion | BaseException]:
        """See `Router.complete_batch`."""
        return self._now.complete_batch(requests, policy=policy, return_exceptions=return_exceptions)

    async def acomplete_batch(
        self, requests: Sequence[RequestLike], *, policy: Policy | None = None, return_exceptions: bool = False
    ) -> list[Completion] | list[Completion | BaseException]:
        """See `Router.acomplete_batch`."""
        return await self._now.acomplete_batch(requests, policy=policy, return_exceptions=return_exceptions)

    def with_window(self, window_s: float) -> Router:
        """See `Router.with_window`. It is made of the parts as they are now, and follows the file no longer: for both,
        set `eccos.stream.window_ms` there."""
        return self._now.with_window(window_s)

    def record(self, decision_id: str, quality: float) -> None:
        """See `Router.record`. Decisions made before a change can be labelled, too."""
        for decision_store in (self.decision_store, *reversed(self._earlier)):
            try:
                return decision_store.label(decision_id, quality)
            except UnknownDecisionError:
                continue
        raise UnknownDecisionError(decision_id)

    def status(self) -> RouterStatus:
        """See `Router.status`."""
        return self._now.status()
