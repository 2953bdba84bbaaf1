"""One replica of a serving engine. It advances pass by pass, and each pass takes what its cost model says."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from dataclasses import dataclass

from eccos_core.errors import InputError
from eccos_core.roofline import ModelPass, PassCost, count_pairs
from eccos_core.simulation.serving.lengths import AnswerLengths
from eccos_core.simulation.serving.schedulers import CacheReservation, EngineScheduler, future_peak
from eccos_core.simulation.serving.workload import ServingWorkload


@dataclass(slots=True)
class _Sequence:
    """A request that runs. It reads `unread` tokens of `context`, then decodes. `since` is its first decoding pass."""

    request: int
    context: int
    unread: int
    generated: int
    since: int = -1


@dataclass(slots=True)
class ReplicaCounts:
    """What a replica did."""

    busy_s: float = 0.0
    passes: int = 0
    prefilled_tokens: int = 0
    decoded_tokens: int = 0
    preemptions: int = 0
    recomputed_tokens: int = 0
    peak_kv_tokens: int = 0


class EngineReplica:
    """One engine. `submit` requests in the order of their arrival, and `run_until` a moment.

    `first_token_s` and `finished_s` map requests to seconds. Each running request holds its prompt and what it
    generated, and one token more. Of those, a layer with a sliding window holds the last ones alone. `kv_tokens` counts
    tokens over all layers, and `kv_used` layer-tokens. `chunk_tokens` limits the tokens of a pass. None reads whole
    prompts.
    """

    def __init__(
        self,
        workload: ServingWorkload,
        cost: PassCost,
        scheduler: EngineScheduler,
        lengths: AnswerLengths,
        *,
        kv_tokens: int,
        chunk_tokens: int | None = 512,
        max_batch: int = 256,
    ) -> None:
        if kv_tokens < 1 or max_batch < 1 or (chunk_tokens is not None and chunk_tokens < 1):
            raise InputError(
                f"kv_tokens is {kv_tokens}, chunk is {chunk_tokens} and batch is {max_batch}, must all be >= 1"
            )
        self.workload, self.cost, self.scheduler, self.lengths = workload, cost, scheduler, lengths
        self.window = cost.window
        self.kv_tokens, self.max_batch = kv_tokens, max_batch
        self._kv_limit = kv_tokens * self.window.layers
        self.chunk_tokens = math.inf if chunk_tokens is None else chunk_tokens
        self._prompts: list[int] = workload.prompt_tokens.tolist()
        self._outputs: list[int] = workload.output_tokens.tolist()
        self._limits: list[int] = workload.limit_tokens.tolist()
        self.now_s = float(workload.arrived_s[0])
        self.counts = ReplicaCounts()
        self.first_token_s: dict[int, float] = {}
        self.finished_s: dict[int, float] = {}
        self.admitted: list[int] = []  # in the order of admission, again after a preemption
        self.kv_used = 0
        self._generated: dict[int, int] = {}  # of preempted requests
        self._waiting: list[tuple[float, int]] = []
        self._reading: dict[int, _Sequence] = {}
        self._decoding: dict[int, _Sequence] = {}
        self._ends: defaultdict[int, list[_Sequence]] = defaultdict(list)  # by the pass that generates the last token
        self._decode_context = 0
        self._blocked = False  # the first that waits was turned away, and nothing was freed since
        self._ended: list[int] = []  # in the last pass

    @property
    def waiting(self) -> int:
        """Requests that wait for admission."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests that are read or decoded."""
        return len(self._reading) + len(self._decoding)

    @property
    def has_work(self) -> bool:
        """Whether a request waits or runs."""
        return bool(self._waiting or self.running)

    @property
    def outstanding_tokens(self) -> float:
        """The tokens of all prompts that wait, and what the cache holds."""
        held = self.kv_used / self.window.layers
        return held + sum(self._prompts[request] for _, request in self._waiting)

    def submit(self, request: int) -> None:
        """Queue a request at its arrival. Raises `InputError` when it could never fit into the cache."""
        written = self._limits if self.scheduler.reservation is CacheReservation.LIMIT else self._outputs
        needed = self.window.held(self._prompts[request] + written[request] + 1)
        if needed > self._kv_limit:
            raise InputError(
                f"request {request} needs {needed / self.window.layers:g} tokens of the cache, which has "
                f"{self.kv_tokens}; raise kv_tokens or leave such requests out"
            )
        self._queue(request)

    def run_until(self, until_s: float) -> None:
        """Run passes that start before `until_s`. Without work, time passes."""
        while self.now_s < until_s:
            if not self.has_work:
                self.now_s = until_s if math.isfinite(until_s) else self.now_s
                return
            self.run_pass()

    def _queue(self, request: int) -> None:
        key = self.lengths.total(request, 0) if self.scheduler.shortest_first else float(request)
        heapq.heappush(self._waiting, (key, request))
        if self._waiting[0][1] == request:
            self._blocked = False

    def run_pass(self) -> list[int]:
        """Run one pass, which ends at `now_s`, and return the requests that it answers to the end."""
        self._ended = []
        self._make_room()
        budget = self.chunk_tokens - len(self._decoding)
        chunks: list[tuple[_Sequence, int]] = []
        for sequence in self._reading.values():
            budget = self._read_chunk(sequence, budget, chunks)
        while budget > 0 and self._waiting and not self._blocked:
            admitted = self._admit()
            if admitted is None:
                self._blocked = True
                break
            budget = self._read_chunk(admitted, budget, chunks)
        self._finish_pass(chunks)
        return self._ended

    def _read_chunk(self, sequence: _Sequence, budget: float, chunks: list[tuple[_Sequence, int]]) -> float:
        read = int(min(sequence.unread, budget))
        if read <= 0:
            return budget
        chunks.append((sequence, read))
        return budget - read

    def _admit(self) -> _Sequence | None:
        """Admit the first that waits, or return None when it must wait on."""
        request = self._waiting[0][1]
        generated = self._generated.get(request, 0)
        context = self._prompts[request] + generated
        if self.running and not self._fits(request, context, generated):
            return None
        heapq.heappop(self._waiting)
        self._generated.pop(request, None)
        sequence = _Sequence(request, context, context, generated)
        self._reading[request] = sequence
        self.kv_used += self.window.held(context + 1)
        self.admitted.append(request)
        return sequence

    def _fits(self, request: int, context: int, generated: int) -> bool:
        if self.running >= self.max_batch:
            return False
        if self.kv_used + self._growth() + self.window.held(context + 1) > self._kv_limit:
            return False
        match self.scheduler.reservation:
            case CacheReservation.NONE:
                return True
            case CacheReservation.LIMIT:
                together = [*self._reading, *self._decoding, request]
                held = sum(self.window.held(self._prompts[one] + self._limits[one] + 1) for one in together)
                return held <= self._kv_limit
            case CacheReservation.FORECAST:
                return self._peak_with(request, context, generated) <= self._kv_limit

    def _growth(self) -> int:
        """Return the layer-tokens that the next pass adds to the decoding requests."""
        if not self.window:
            return len(self._decoding)
        held = self.window.held
        return sum(held(tokens + 1) - held(tokens) for tokens in map(self._tokens, self._decoding.values()))

    def _tokens(self, sequence: _Sequence) -> int:
        """Return the tokens of a decoding request, with the one that it writes next."""
        return sequence.context + self.counts.passes - sequence.since + 1

    def _peak_with(self, request: int, context: int, generated: int) -> float:
        """Return the most layer-tokens that the running requests and one more are believed to hold together."""
        total, passes = self.lengths.total, self.counts.passes
        sequences: list[tuple[float, float]] = []
        for one in self._decoding.values():
            done = passes - one.since
            sequences.append((one.context + done + 1, total(one.request, one.generated + done) - one.generated - done))
        unread = 0
        for one in self._reading.values():
            unread += one.unread
            coming = total(one.request, one.generated) - one.generated
            sequences.append((one.context + 1, coming + unread / self.chunk_tokens))
        coming = total(request, generated) - generated
        sequences.append((context + 1, coming + (unread + context) / self.chunk_tokens))
        return future_peak(sequences, self.window)

    def _make_room(self) -> None:
        """Preempt the newest requests until every decoding one has room for its next token."""
        while self.kv_used + self._growth() > self._kv_limit:
            newest = max([*self._reading, *self._decoding])
            self.counts.preemptions += 1
            self._blocked = False
            if newest in self._reading:
                sequence = self._reading.pop(newest)
                generated = sequence.generated
                self.counts.recomputed_tokens += sequence.context - sequence.unread
                self.kv_used -= self.window.held(sequence.context + 1)
            else:
                sequence = self._decoding.pop(newest)
                done = self.counts.passes - sequence.since
                generated = sequence.generated + done
                self._ends[self._last_pass(sequence)].remove(sequence)
                self._decode_context -= sequence.context + done
                self.counts.recomputed_tokens += sequence.context + done
                self.kv_used -= self.window.held(sequence.context + done + 1)
            self._generated[newest] = generated
            self._queue(newest)

    def _last_pass(self, sequence: _Sequence) -> int:
        return sequence.since + self._outputs[sequence.request] - sequence.generated - 1

    def _finish_pass(self, chunks: list[tuple[_Sequence, int]]) -> None:
        counts, decodes = self.counts, len(self._decoding)
        ends = [(sequence, read) for sequence, read in chunks if read == sequence.unread]
        read_tokens = sum(read for _, read in chunks)
        work = ModelPass(
            prefill_tokens=read_tokens,
            prefill_pairs=sum(count_pairs(read, one.context - one.unread) for one, read in chunks),
            prefills=len(ends),
            decodes=decodes,
            decode_context=self._decode_context + decodes,
            windowed_pairs=self._windowed_pairs(chunks),
            windowed_context=self._windowed_context(),
        )
        grown = self._growth()
        seconds = self.cost.seconds(work)
        self.now_s += seconds
        counts.busy_s += seconds
        counts.prefilled_tokens += read_tokens
        counts.decoded_tokens += decodes
        self.kv_used += grown
        self._decode_context += decodes
        counts.peak_kv_tokens = max(counts.peak_kv_tokens, math.ceil(self.kv_used / self.window.layers))
        for sequence in self._ends.pop(counts.passes, ()):
            del self._decoding[sequence.request]
            self._decode_context -= self._prompts[sequence.request] + self._outputs[sequence.request] - 1
            self._finish(sequence.request)
        counts.passes += 1
        for sequence, read in chunks:
            sequence.unread -= read
        for sequence, _ in ends:
            self._start_decoding(sequence)

    def _windowed_pairs(self, chunks: list[tuple[_Sequence, int]]) -> int | None:
        """Count what the chunks attend to in a layer with a window. None: no layer has one."""
        if not self.window:
            return None
        return sum(count_pairs(read, one.context - one.unread, self.window.tokens) for one, read in chunks)

    def _windowed_context(self) -> int | None:
        """Count the cached tokens that decoding reads in a layer with a window. None: no layer has one."""
        if not self.window:
            return None
        return sum(min(tokens, self.window.tokens) for tokens in map(self._tokens, self._decoding.values()))

    def _start_decoding(self, sequence: _Sequence) -> None:
        """Count the token that the last chunk generated, and let the request decode from the next pass on."""
        request = sequence.request
        del self._reading[request]
        self.first_token_s.setdefault(request, self.now_s)
        sequence.generated += 1
        if sequence.generated == self._outputs[request]:
            self._finish(request)
            return
        sequence.since = self.counts.passes
        self._decoding[request] = sequence
        self._decode_context += sequence.context
        self._ends[self._last_pass(sequence)].append(sequence)

    def _finish(self, request: int) -> None:
        self.kv_used -= self.window.held(self._prompts[request] + self._outputs[request])
        self.finished_s[request] = self.now_s
        self._ended.append(request)
        self._blocked = False
