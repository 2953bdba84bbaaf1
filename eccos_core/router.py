"""The story: predict, optimise, hold a slot, call, record.

A `Router` is given its parts and owns none of their logic. `Router.from_yaml` builds the parts that a file names.
This is where each step goes on:

- `route`, `decide`: `routing/pipeline.py` prepares and remembers, `routing/decider.py` predicts and optimises.
- `complete`, `stream`: `routing/pipeline.py` decides and holds a slot, `routing/model_caller.py` calls and falls back.
- `complete_batch`: `routing/complete_batch.py` calls one by one, packed, or through the batch APIs of providers.
- `record`, `signal`, `swap`: `routing/live_pipeline.py` finds the decision, and the pipeline learns from its label.
- `from_yaml`: `assembly/build.py` builds the parts, `assembly/background.py` keeps them up to date.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

from eccos_core.domain import (
    Chunk,
    Completion,
    ConversationView,
    Decision,
    GroupShare,
    LabelSource,
    LatencyRule,
    Model,
    Policy,
    RouterStatus,
)
from eccos_core.errors import EccosError, InputError
from eccos_core.packing import PackingRule
from eccos_core.protocols import Backend, Encoder, Optimizer, Predictor, Steering, Workload
from eccos_core.routing.batch import settle_results
from eccos_core.routing.complete_batch import BatchOptions, acomplete_batch, complete_batch
from eccos_core.routing.decider import Decider
from eccos_core.routing.decision_store import DecisionStore
from eccos_core.routing.live_pipeline import LivePipeline
from eccos_core.routing.outside_call import OutsideCall
from eccos_core.routing.parts import DEFAULT_POLICY, Parts
from eccos_core.routing.pipeline import Pipeline, RequestLike
from eccos_core.routing.prepared import PreparedBatch
from eccos_core.routing.tenants import Tenants
from eccos_core.telemetry.base import NO_TELEMETRY, Telemetry

if TYPE_CHECKING:
    from eccos_core.assembly.background import BackgroundServices
    from eccos_core.assembly.hot_reload import HotReload
    from eccos_core.config import Config
    from eccos_core.routing.savings import SavingsReport


class Router:
    """Answers every request with the cheapest model that is good enough.

    Give it `models`, a `predictor` and a `backend`. Everything else has a default:

    - `encoder` reads a request's text. The default is the bundled static encoder with the text's surface.
    - `optimizer` assigns a batch. `policy` is what a batch is solved under.
    - `steering` decides requests that come one by one. The default follows `policy`. `tenant_steering` is for tenants
      with a policy of their own.
    - `workload` counts what is in flight. `decision_store` remembers decisions for their labels.
    - `max_attempts` is how many models one request is sent to at most. `deadline_s` is its longest wait for a slot,
      and `answer_deadline_s` the most time from its first call to the end of its last, in seconds.
    - `window_s` (0 to 0.05): requests that arrive within so many seconds are decided together.
    - `packing` lets requests of a batch share calls.
    - `allowed_call_params` names call parameters that steer LiteLLM (`api_base`, ...) and that callers may give.

    Use it in a `with` or `async with` block, or call `close`. It is safe to use from several threads and tasks. Raises
    `InputError` when predictor and pool do not have the same models.
    """

    def __init__(
        self,
        models: Sequence[Model],
        predictor: Predictor,
        backend: Backend,
        *,
        encoder: Encoder | None = None,
        optimizer: Optimizer | None = None,
        policy: Policy = DEFAULT_POLICY,
        steering: Steering | None = None,
        tenant_steering: Mapping[str, Steering] | None = None,
        workload: Workload | None = None,
        decision_store: DecisionStore | None = None,
        tenants: Tenants | None = None,
        groups: Sequence[GroupShare] = (),
        conversation: ConversationView = "last_user",
        telemetry: Telemetry = NO_TELEMETRY,
        max_attempts: int = 3,
        deadline_s: float = 60.0,
        answer_deadline_s: float = 120.0,
        window_s: float = 0.0,
        allowed_call_params: Collection[str] = (),
        latency_rule: LatencyRule | None = None,
        packing: PackingRule | None = None,
    ) -> None:
        from eccos_core.routing import defaults

        self._start(
            Parts(
                models=tuple(models),
                encoder=encoder or defaults.default_encoder(),
                predictor=predictor,
                optimizer=optimizer or defaults.default_optimizer(),
                steering=steering or defaults.default_steering(policy),
                workload=workload or defaults.default_workload(models),
                backend=backend,
                decision_store=decision_store or DecisionStore(),
                policy=policy,
                tenants=tenants or Tenants({}),
                tenant_steering=tenant_steering or {},
                groups=tuple(groups),
                conversation=conversation,
                telemetry=telemetry,
                max_attempts=max_attempts,
                deadline_s=deadline_s,
                answer_deadline_s=answer_deadline_s,
                window_s=window_s,
                allowed_call_params=frozenset(allowed_call_params),
                latency_rule=latency_rule or LatencyRule(),
                packing=packing,
            )
        )

    def _start(self, parts: Parts) -> None:
        self._live = LivePipeline(parts)
        self._closing = threading.Lock()
        self._closed = False
        self._owns_parts = False
        self._services: BackgroundServices | None = None
        self._release_shared: Callable[[], bool] | None = None

    @classmethod
    def from_parts(cls, parts: Parts) -> Self:
        """Build a router of these parts."""
        router = cls.__new__(cls)
        router._start(parts)
        return router

    @classmethod
    def from_yaml(
        cls, path: str | Path, *, reload: bool = False, progress: Callable[[str], None] | None = None
    ) -> Self:
        """Build the router that a configuration file describes.

        With `reload` the router follows the file: a valid change is put into use without dropping a request, and a
        faulty one changes nothing (`problem` says why). `progress` hears what is done, in words. Raises `ConfigError`
        with every problem of the file, `ArtifactError`, `HistoryError`, and `InputError` for a model that has neither
        outcomes nor a prior.
        """
        from eccos_core.assembly.background import BackgroundServices

        services = BackgroundServices(path, reload=reload, progress=progress)
        router = cls.from_parts(services.assembled.parts)
        router._owns_parts = True
        router._services = services
        services.start(router._live, router.swap)
        return router

    @classmethod
    def shared(cls, path: str | Path) -> Self:
        """Return this process's one router of a configuration file. It follows the file.

        Every call with the same file gives the same router. So LangChain, LlamaIndex and your own code share slots,
        circuit breakers, budgets and conversations. Call `close` once for each call of `shared`. The last one closes
        the router. Raises as `from_yaml` does.
        """
        from eccos_core.assembly.sharing import SHARED

        return SHARED.get(cls, path, lambda: cls.from_yaml(path, reload=True))

    def with_window(self, window_s: float) -> Router:
        """Return a router of the same parts that decides together what arrives within `window_s` seconds.

        The two share slots and memory. The new one has the parts of now and follows no file. Closing it closes nothing
        that the old one uses. Raises `InputError` for a window that is not between 0 and 0.05.
        """
        return Router.from_parts(replace(self.parts, window_s=window_s))

    # ---------------------------------------------------------------- decide

    def route(self, requests: Sequence[RequestLike], *, policy: Policy | None = None) -> list[Decision]:
        """Assign a whole batch jointly (ECCOS, eq. 1). Nothing is called and no slot is held.

        Requests of tenants with a policy of their own are assigned jointly among themselves. Raises `InfeasibleError`
        when the policy cannot be met, `NoEligibleModelError`, `RequestError`.
        """
        return self._pipeline.route(requests, policy)

    def route_each(
        self, requests: Sequence[RequestLike], *, policy: Policy | None = None
    ) -> list[Decision | EccosError]:
        """Do as `route`, but a request that no model may answer has its error in its place.

        The others are assigned jointly without it. What concerns them all together (a floor or budget out of reach,
        too few slots) is raised as `InfeasibleError`.
        """
        return self._pipeline.route_each(requests, policy)

    def decide(self, request: RequestLike) -> Decision:
        """Decide one request of a stream at the current price. Nothing is called and no slot is held."""
        return self.explain(request)[1]

    def explain(self, request: RequestLike) -> tuple[PreparedBatch, Decision]:
        """Do as `decide`, and return all the numbers that decided it."""
        return self._pipeline.explain(request)

    # ---------------------------------------------------------------- complete

    def begin_call(self, request: RequestLike, **parameters: Any) -> OutsideCall:
        """Decide and hold a slot for a call that you make yourself. Tell the `OutsideCall` how it ended.

        So a router of another library can use this one's decisions. Raises as `complete` does before it calls.
        """
        pipeline = self._open()
        return OutsideCall(pipeline.begin(pipeline.parse(request, **parameters), None))

    async def abegin_call(self, request: RequestLike, **parameters: Any) -> OutsideCall:
        """The asynchronous twin of `begin_call`."""
        pipeline = self._open()
        return OutsideCall(await pipeline.abegin(pipeline.parse(request, **parameters), None))

    def complete(self, request: RequestLike, *, decision: Decision | None = None, **parameters: Any) -> Completion:
        """Decide, hold a slot and call. When a model fails, the next best model of the same decision is called.

        `parameters` are OpenAI call parameters. With a `decision` that `route` made for this request, nothing is
        decided again: so you can call a jointly assigned batch one by one. Raises `Overloaded`,
        `NoEligibleModelError`, `AttemptsExhausted`, or the `BackendError` of a request that no model can take.
        """
        pipeline = self._open()
        asked = pipeline.parse(request, **parameters)
        with pipeline.parts.telemetry.step("complete", [asked]):
            return pipeline.caller.call(pipeline.begin(asked, decision))

    async def acomplete(
        self, request: RequestLike, *, decision: Decision | None = None, **parameters: Any
    ) -> Completion:
        """The asynchronous twin of `complete`."""
        pipeline = self._open()
        asked = pipeline.parse(request, **parameters)
        with pipeline.parts.telemetry.step("complete", [asked]):
            return await pipeline.caller.acall(await pipeline.abegin(asked, decision))

    def stream(self, request: RequestLike, *, decision: Decision | None = None, **parameters: Any) -> Iterator[Chunk]:
        """Yield chunks as they come. The last one carries the completion with its decision.

        When a model fails before its first chunk, the next best model is called. A stream that breaks later raises
        `StreamInterrupted`. The slot is released when the iterator ends, is closed, or is garbage-collected.
        """
        pipeline = self._open()
        asked = pipeline.parse(request, **parameters).streamed()
        with closing(pipeline.caller.stream(pipeline.begin(asked, decision))) as chunks:
            yield from chunks

    async def astream(
        self, request: RequestLike, *, decision: Decision | None = None, **parameters: Any
    ) -> AsyncIterator[Chunk]:
        """The asynchronous twin of `stream`."""
        pipeline = self._open()
        asked = pipeline.parse(request, **parameters).streamed()
        async with aclosing(pipeline.caller.astream(await pipeline.abegin(asked, decision))) as chunks:
            async for chunk in chunks:
                yield chunk

    @overload
    def complete_batch(
        self,
        requests: Sequence[RequestLike],
        *,
        return_exceptions: Literal[False] = False,
        **options: Unpack[BatchOptions],
    ) -> list[Completion]: ...
    @overload
    def complete_batch(
        self, requests: Sequence[RequestLike], *, return_exceptions: Literal[True], **options: Unpack[BatchOptions]
    ) -> list[Completion | EccosError]: ...
    @overload
    def complete_batch(
        self, requests: Sequence[RequestLike], *, return_exceptions: bool, **options: Unpack[BatchOptions]
    ) -> list[Completion] | list[Completion | EccosError]: ...
    def complete_batch(
        self,
        requests: Sequence[RequestLike],
        *,
        policy: Policy | None = None,
        return_exceptions: bool = False,
        pack: bool | None = None,
        patience_s: float | None = None,
        report: Callable[[str], None] | None = None,
    ) -> list[Completion] | list[Completion | EccosError]:
        """Assign the batch jointly, then call, as many at once as the models' slots allow. Results are in order.

        With `return_exceptions` a request that failed, or that no model may answer, has its error in its place, and
        the others are answered. Without it, the first error is raised after every call has ended. What concerns all
        requests together (a floor or budget out of reach) is raised as `route` does.

        With `pack`, requests with the same instructions share calls where that pays (`PackingRule`). None does as the
        router's `packing` says. A request whose answer is missing in its pack is asked alone.

        With `patience_s`, requests may also go through the batch APIs of providers that answer within so many seconds,
        at a discount (`model_info.batch`). What such a batch leaves open is called at once. A call that is made again
        after a kill finds its batches. Nothing is packed then. `report` hears in words how the batches go.
        """
        options = BatchOptions(policy=policy, pack=pack, patience_s=patience_s, report=report)
        results = complete_batch(self._open(), requests, options, in_place=return_exceptions)
        return settle_results(results, return_exceptions=return_exceptions)

    @overload
    async def acomplete_batch(
        self,
        requests: Sequence[RequestLike],
        *,
        return_exceptions: Literal[False] = False,
        **options: Unpack[BatchOptions],
    ) -> list[Completion]: ...
    @overload
    async def acomplete_batch(
        self, requests: Sequence[RequestLike], *, return_exceptions: Literal[True], **options: Unpack[BatchOptions]
    ) -> list[Completion | EccosError]: ...
    @overload
    async def acomplete_batch(
        self, requests: Sequence[RequestLike], *, return_exceptions: bool, **options: Unpack[BatchOptions]
    ) -> list[Completion] | list[Completion | EccosError]: ...
    async def acomplete_batch(
        self,
        requests: Sequence[RequestLike],
        *,
        policy: Policy | None = None,
        return_exceptions: bool = False,
        pack: bool | None = None,
        patience_s: float | None = None,
        report: Callable[[str], None] | None = None,
    ) -> list[Completion] | list[Completion | EccosError]:
        """The asynchronous twin of `complete_batch`."""
        options = BatchOptions(policy=policy, pack=pack, patience_s=patience_s, report=report)
        results = await acomplete_batch(self._open(), requests, options, in_place=return_exceptions)
        return settle_results(results, return_exceptions=return_exceptions)

    # ---------------------------------------------------------------- label, watch

    def record(self, decision_id: str, quality: float, *, source: LabelSource = "human") -> None:
        """Label the answer of a decision, now or later, once or again. The outcome joins the history.
        A model whose labels fall far behind its forecasts raises a `DriftAlarm` in `status`.

        `quality` is in [0, 1]. `source`: who says so. A label never replaces one of a more trusted source: a human,
        a judge, a signal, a reward model. Raises `UnknownDecisionError`, and `InputError` for a quality outside [0, 1].
        """
        self._live.record(decision_id, quality, source)

    def signal(self, decision_id: str, name: str) -> None:
        """Report what a user did with an answer: "regenerated", "copied", or what `eccos.labels.signals` names.

        The signal's quality becomes the label, unless somebody who knows better has labelled the answer. Raises
        `InputError` for an unknown signal, and `UnknownDecisionError`.
        """
        self.record(decision_id, self._live.quality_of_signal(name), source="signal")

    def status(self) -> RouterStatus:
        """Return a snapshot of every model's load and health, of the queue, and of the decision log."""
        log = self.decision_store.log
        return RouterStatus(
            self.workload.status(),
            decision_log_problem=log.problem if log is not None else None,
            decisions_dropped=log.dropped if log is not None else 0,
            drift=self.parts.drift.alarms,
            certificate_problem=self.parts.certificate_problem,
            labelling=self.parts.answer_observer.status() if self.parts.answer_observer is not None else None,
        )

    def savings(self, baseline: str | None = None, *, since: float | None = None) -> SavingsReport:
        """Compare what the logged requests cost with sending all of them to one model.

        `baseline` is that model. By default it is the one with the best mean forecast. `since` is in s since 1970
        (UTC), and None takes the whole decision log. Raises `InputError` for a router without a decision log and for
        an unknown baseline, and `DataError` for a log without answers or of another pool.
        """
        from eccos_core.routing.logged_traffic import read_traffic
        from eccos_core.routing.savings import measure_savings

        log = self.decision_store.log
        if log is None:
            raise InputError("this router has no decision log, which savings are read from. Set eccos.decision_log.")
        log.flush()
        names = [model.name for model in self.models]
        return measure_savings(read_traffic(log, names, since), names, baseline)

    # ---------------------------------------------------------------- change, close

    def swap(self, parts: Parts) -> None:
        """Put other parts into use at once, without dropping a request.

        Requests that come from now on use the new parts. Requests in flight end on the parts that they began with.
        Decisions made before can still be labelled. What the old parts alone used is not closed: you may still need
        it. Raises `InputError` for parts that do not fit together, and then changes nothing.
        """
        observer = self.parts.answer_observer
        self._live.swap(parts)
        if self._owns_parts and observer is not None and observer is not parts.answer_observer:
            observer.close(parts.answer_observer)

    def reload(self) -> bool:
        """Read the file that the router follows now, instead of when its change is noticed. True when it is in use.

        A faulty file changes nothing, and `problem` says why. Raises `InputError` for a router that follows no file.
        """
        return self._require_hot_reload().reload_now()

    def listen(self, listener: Callable[[Config], None]) -> None:
        """Call `listener` with the configuration in use, now and after every change that is put into use.

        It is called in the thread that watches the file, and must not raise. Raises `InputError` for a router that
        follows no file.
        """
        self._require_hot_reload().listen(listener)

    def close(self) -> None:
        """Stop following the file, write the decision log, and close what `from_yaml` built.

        Parts that you gave stay open: they are yours. Closing again does nothing. Requests in flight end. New calls
        raise `InputError`. You can still decide, but no decision is logged. In a forked child this does nothing.
        """
        if self._live.is_forked:
            return
        with self._closing:
            if self._closed or (self._release_shared is not None and not self._release_shared()):
                return
            self._closed = True
        if self._services is not None:
            self._services.close()
        if self._owns_parts:
            self._live.close()
        else:
            self._live.flush()

    async def aclose(self) -> None:
        """The asynchronous twin of `close`."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # ---------------------------------------------------------------- what it is made of

    @property
    def parts(self) -> Parts:
        """The parts in use now."""
        return self._pipeline.parts

    @property
    def models(self) -> tuple[Model, ...]:
        """The pool."""
        return self.parts.models

    @property
    def policy(self) -> Policy:
        """What a batch is solved under."""
        return self.parts.policy

    @property
    def decider(self) -> Decider:
        """What predicts and optimises."""
        return self._pipeline.decider

    @property
    def backend(self) -> Backend:
        """What calls the models."""
        return self.parts.backend

    @property
    def workload(self) -> Workload:
        """What counts requests in flight."""
        return self.parts.workload

    @property
    def decision_store(self) -> DecisionStore:
        """What remembers decisions."""
        return self.parts.decision_store

    @property
    def telemetry(self) -> Telemetry:
        """Where spans and metrics go."""
        return self.parts.telemetry

    @property
    def follows_file(self) -> bool:
        """Whether changes of a configuration file are put into use, as `from_yaml(path, reload=True)` asks for."""
        return self._hot_reload is not None

    @property
    def problem(self) -> str | None:
        """Why the newest version of the configuration file is not in use. None while it is in use, or not followed."""
        return None if self._hot_reload is None else self._hot_reload.problem

    @property
    def _pipeline(self) -> Pipeline:
        """The pipeline in use now. Raises `ForkedProcessError` in a forked child."""
        return self._live.current

    def _open(self) -> Pipeline:
        if self._closed:
            raise InputError("this router is closed. Build a new one, or keep it open for as long as you call it.")
        return self._pipeline

    @property
    def _hot_reload(self) -> HotReload | None:
        return None if self._services is None else self._services.hot_reload

    def _require_hot_reload(self) -> HotReload:
        if self._hot_reload is None:
            raise InputError("this router follows no file. Build it with Router.from_yaml(path, reload=True).")
        return self._hot_reload
