"""The workload of one replica among several. Redis decides who gets a slot, and this process keeps a copy of the rest.

A decision reads the free slots of all models from the copy, at no cost. Then one script checks every limit of the
chosen model and takes its slot, in one round trip. If another replica was faster, the script refuses and its answer
brings the copy up to date, so the next try decides on the truth. The other way round, first to ask and then to take,
costs two round trips for every request, and this one only where replicas compete for a last slot.

Each replica sends absolute counts, so a lost, late or repeated message does no harm. Slots given back, and what calls
taught, travel with the next message: a take, or a heartbeat.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar, Unpack

from eccos_core.domain import Completion, Model, SharedStatus, WorkloadStatus
from eccos_core.errors import EccosError, Overloaded, SharedStateError
from eccos_core.workload.circuit_breaker import BreakerSettings
from eccos_core.workload.load import ALONE, DeploymentLoad, ModelLoad, OtherReplicas, ReplicaShare
from eccos_core.workload.queue import POLL_S
from eccos_core.workload.shared.heartbeat import keep_alive, leave
from eccos_core.workload.shared.message import PATIENCE_S, SCRIPT, describe_call, describe_loads, describe_settings
from eccos_core.workload.shared.server import SharedServer, StateAway
from eccos_core.workload.shared.settings import SharedSettings
from eccos_core.workload.shared.streams import SharedStream, StreamExchange
from eccos_core.workload.tracker import WorkloadLimits, WorkloadTracker

MAX_TRIES = 8  # decisions for one request while other replicas are faster; then it waits in the queue
MAX_EVENTS = 10_000  # of ended calls that wait for Redis
EVENTS_PER_MESSAGE = 200
IMPATIENT_POLL_S = 0.02  # how often a replica looks for slots that are left for it

Held = TypeVar("Held")
Event = tuple[int, str, int, int, float]  # number, deployment, 1 if it went well, tokens, ms that it asked to wait
_log = logging.getLogger("eccos.shared")


class SlotTakenElsewhere(Overloaded):
    """Another replica was faster. The copy of the shared state is up to date now, so decide again."""


class SharedWorkload(WorkloadTracker):
    """The `Workload` of one replica. Caps, rates and circuit breakers hold over all replicas of one `settings.name`.

    Models without a cap and without a rate need no agreement while their circuit is closed, so they cost no round trip.
    Raises `SharedStateError` for a Redis that refuses it. A Redis that is away is waited for.
    """

    def __init__(
        self,
        models: Sequence[Model],
        settings: SharedSettings,
        clock: Callable[[], float] = time.monotonic,
        **limits: Unpack[WorkloadLimits],
    ) -> None:
        self.settings = settings
        self.replica = uuid.uuid4().hex[:12]
        self.server = SharedServer(settings)
        self._breaker = limits.get("breaker") or BreakerSettings()
        self._sequence = self._event_number = 0
        self._sent_at = 0.0
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._problem: str | None = None
        self._share: ReplicaShare | None = None  # as of the last heartbeat that was answered
        self._fleet_in_flight = 0
        self._is_dirty = False
        self._streams = StreamExchange(self.server, self.replica, settings.heartbeat_s, clock)
        self._wake: SimpleQueue[bool] = SimpleQueue()  # its `put` is safe in a finalizer, which releases slots
        super().__init__(models, clock, **limits)
        with self._lock:
            self._close_until_heard()
        self._exchange_state(is_first=True)
        heartbeats = threading.Thread(
            target=keep_alive, args=(weakref.ref(self), self._wake, settings), name="eccos-shared", daemon=True
        )
        heartbeats.start()
        self.close = weakref.finalize(self, leave, heartbeats, self._wake, self.server, settings, self.replica)

    def reconfigure(self, models: Sequence[Model], **limits: Unpack[WorkloadLimits]) -> None:
        """See `WorkloadTracker.reconfigure`. Each replica keeps the limits of its own configuration."""
        with self._lock:
            self._breaker = limits.get("breaker") or BreakerSettings()
            super().reconfigure(models, **limits)
            if self._problem is not None:
                self._limit_alone()

    def acquire(self, take: Callable[[], Held], deadline_s: float) -> Held:
        """See `WorkloadTracker.acquire`. The order of arrival holds within one replica."""
        return super().acquire(partial(_take_on_truth, take), deadline_s)

    async def aacquire(self, take: Callable[[], Held], deadline_s: float) -> Held:
        """The asynchronous twin of `acquire`."""
        return await super().aacquire(partial(_take_on_truth, take), deadline_s)

    def observe(self, model: str, completion: Completion | None, error: Exception | None = None) -> None:
        """See `WorkloadTracker.observe`. The other replicas learn of it too."""
        super().observe(model, completion, error)
        event = describe_call(completion, error)
        if event is None:
            return
        with self._lock:
            self._event_number += 1
            self._events.append((self._event_number, self._usage(model).load.name, *event))
            self._note_change()

    def status(self) -> WorkloadStatus:
        """Return a snapshot of this replica, and of the state that it shares."""
        with self._lock:
            alone = super().status()
            shared = SharedStatus(
                server=self.settings.address,
                name=self.settings.name,
                replicas=0 if self._share is None else self._share.replicas,
                in_flight=self._fleet_in_flight,
                when_away=self.settings.when_away,
                problem=self._problem,
            )
            return WorkloadStatus(alone.models, alone.waiting, shared)

    def share_streams(self, streams: Mapping[str, SharedStream]) -> None:
        """Keep the targets of these streams together with the replicas that have streams of the same names."""
        self._streams.register(streams)
        self.wake()

    def wake(self) -> None:
        """Let the thread of heartbeats see whether a stream asks for an exchange. It never blocks."""
        self._wake.put(True)

    # ---------------------------------------------------------------- slots

    def _take(self, usage: ModelLoad) -> bool:
        with self._lock:
            now, load = self._clock(), usage.load
            if load.free(now) < 1:
                raise load.refusal(now)
            if self._problem is not None or not load.needs_agreement:
                return super()._take(usage)
            try:
                answer = self._send(take=load)
            except (StateAway, SharedStateError) as error:
                self._go_away(error)
                return super()._take(usage)
            was_probing = load.is_probing
            if answer["granted"]:
                usage.in_flight += 1
                load.take(now)
                load.is_probing = was_probing or answer["is_probe"]
            self._adopt(answer)
            if answer["is_left"]:
                load.left_until = now + POLL_S
                raise load.refusal(now)
            if not answer["granted"]:
                raise SlotTakenElsewhere(f"{load.refusal(now)} (another replica was faster)")
            is_probe: bool = answer["is_probe"]
            return is_probe

    def _release_slot(self, usage: ModelLoad, probe: bool) -> None:
        with self._lock:
            super()._release_slot(usage, probe)
            self._note_change()

    def _note_change(self) -> None:
        if not self._is_dirty:
            self._is_dirty = True
            self._wake.put(True)

    # ---------------------------------------------------------------- messages

    def _send(self, take: DeploymentLoad | None = None) -> dict[str, Any]:
        """Send this replica's state, and ask for a slot. Call it with the lock, or with a message of `_compose`."""
        return self.server.run(SCRIPT, "meta", self._compose(take))

    def _compose(self, take: DeploymentLoad | None = None) -> dict[str, object]:
        self._sequence += 1
        self._is_dirty = False
        most = EVENTS_PER_MESSAGE if take is None else EVENTS_PER_MESSAGE // 10
        return {
            "replica": self.replica,
            "sequence": self._sequence,
            "waiting_ms": 1000 * self._queue.longest_wait_s(),
            "events": [self._events[i] for i in range(min(most, len(self._events)))],
            "settings": describe_settings(self.settings, self._breaker),
            **describe_loads(self._loads.values(), take),
        }

    def _exchange_state(self, *, is_first: bool = False) -> None:
        """Send a heartbeat, with all that changed. Learn what the other replicas do. Only the first one raises."""
        with self._lock:
            self._sent_at = self._clock()
            message = self._compose()
        try:
            answer = self.server.run(SCRIPT, "meta", message)
        except (StateAway, SharedStateError) as error:
            if is_first and isinstance(error, SharedStateError):
                raise  # a configuration that cannot work
            with self._lock:
                self._go_away(error)
            return
        with self._lock:
            self._come_back()
            self._adopt(answer)
            self._share = ReplicaShare(answer["rank"], answer["replicas"])

    def _adopt(self, answer: Mapping[str, Any]) -> None:
        """Bring the copy of the shared state up to date."""
        while self._events and self._events[0][0] <= answer["event"]:
            self._events.popleft()
        if not answer["is_newest"]:
            return
        now, freed = self._clock(), 0
        loads = list(self._loads.values())
        self._fleet_in_flight = 0
        waits = (
            f"replicas say what they hold, for {answer['ready_ms'] / 1000:.1f} s more" if answer["ready_ms"] else None
        )
        # a pool that changed while the message travelled has its other deployments in the next answer
        for load, found in zip(loads, answer["others"], strict=False):
            own_requests, own_tokens = load.own_last_minute(now)
            counted = answer["minutes"].get(load.name) if answer["minutes"] else None
            requests, tokens = (
                (load.others.requests, load.others.tokens)
                if counted is None
                else (counted[0] - own_requests, counted[1] - own_tokens)
            )
            freed += max(0, load.others.in_flight - found["in_flight"]) + (load.closed is not None and waits is None)
            if -math.inf < load.left_until <= now:  # nobody took what was left
                load.left_until, freed = -math.inf, freed + 1
            load.others = OtherReplicas(found["in_flight"], requests, tokens, found["is_probing"])
            load.closed = waits
            load.error_rate = found["error_rate"]
            load.tokens_per_call = found.get("tokens_per_call")
            open_ms, closed_ms = found.get("open_ms"), found.get("closed_ms")
            load.breaker.adopt(
                None if open_ms is None else now + open_ms / 1000,
                None if closed_ms is None else now - closed_ms / 1000,
            )
            self._fleet_in_flight += found["in_flight"] + load.in_flight
        if freed:  # also for a request that was just refused and does not wait yet
            self._queue.notify(freed)

    # ---------------------------------------------------------------- without Redis

    def _close_until_heard(self) -> None:
        for load in self._loads.values():
            load.closed = "Redis has not been reached yet (workload.shared)"

    def _go_away(self, error: EccosError) -> None:
        if self._problem is None:
            rule = {
                "fail_closed": "models with a cap or a rate get no requests until it is back",
                "local_share": "each replica goes on with its last share",
            }[self.settings.when_away]
            _log.warning(
                "the shared state is away: %s. when_away is %s: %s.",
                error,
                self.settings.when_away,
                rule,
                extra={"eccos": {"event": "shared_state_away"}},
            )
            share = self._share if self.settings.when_away == "local_share" else None
            self._streams.go_alone(1 / share.replicas if share else 0.0)
        self._problem = str(error)
        self._limit_alone()

    def _limit_alone(self) -> None:
        """Apply what `when_away` says. Without a share, because Redis was never reached, nothing goes."""
        share = self._share if self.settings.when_away == "local_share" else None
        for load in self._loads.values():
            load.others = OtherReplicas()
            load.share = share or ALONE
            load.closed = None if share else f"Redis is away, and when_away is {self.settings.when_away}"

    def _come_back(self) -> None:
        if self._problem is None:
            return
        self._problem = None
        for load in self._loads.values():
            load.share, load.closed = ALONE, None
        _log.warning("the shared state is back", extra={"eccos": {"event": "shared_state_back"}})
        self._queue.notify(self._count_free())

    @property
    def is_away(self) -> bool:
        """Whether Redis does not answer."""
        return self._problem is not None

    def beat(self, retry_s: float) -> float:
        """Send a heartbeat if one is due, or if nobody has told Redis of a change. Return the seconds to the next."""
        pause_s = retry_s if self._problem is not None else self._pause_s()
        left_s = self._sent_at + pause_s - self._clock()
        if left_s <= 0 or (self._is_dirty and self._problem is None):
            self._exchange_state()
            left_s = pause_s
        if self._problem is None:
            if not self._streams.due_in_s():
                self._exchange_streams()
            left_s = min(left_s, self._streams.due_in_s())
        return left_s

    def _pause_s(self) -> float:
        """Return the seconds between heartbeats. They are short while requests wait for what other replicas hold."""
        if not len(self._queue):
            return self.settings.heartbeat_s
        return IMPATIENT_POLL_S if self._queue.longest_wait_s() > PATIENCE_S else POLL_S

    def _exchange_streams(self) -> None:
        """Exchange the sums of the streams. A failure is that of the next heartbeat, which says so."""
        try:
            richer = self._streams.exchange()
        except (StateAway, SharedStateError) as error:
            with self._lock:
                self._go_away(error)
            return
        if richer:
            self._queue.notify(max(1, len(self._queue)))


def _take_on_truth(take: Callable[[], Held]) -> Held:
    """Decide again while another replica was faster: each refusal brings the copy up to date."""
    for _ in range(MAX_TRIES - 1):
        try:
            return take()
        except SlotTakenElsewhere:
            continue
    return take()
