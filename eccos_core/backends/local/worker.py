"""What the worker thread of a local model does: admit, step, deliver.

The life of a request: `submit` puts it into a bounded queue; the worker renders and tokenises it, reads its prompt
together with others that wait (prefill), lets it join the running batch, and every step gives each row one token.
A row leaves when it is finished or cancelled; the others do not wait for it (continuous batching).

Imports torch late, on the worker thread.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from eccos_core.backends.local.generation import Deliver, EngineStatistics, Generation, GenerationHandle, GenerationRow
from eccos_core.backends.local.kv_budget import KvBudget
from eccos_core.backends.local.model import EngineOptions, LoadedModel, load_model, out_of_memory, unavailable
from eccos_core.backends.local.numpy_llama import NumpyBatch, NumpyLlama
from eccos_core.errors import BackendError, FailureKind
from eccos_core.io.optional import needs_extra
from eccos_core.io.threads import blas_threads

SMALL_MODEL_PARAMETERS = 50_000_000  # below this one CPU thread is faster than several
STEPS_BEFORE_GROWING = 500  # steps without running out of memory after which a halved cache grows again


class Worker:
    """What the worker thread does. Knows nothing of the `LocalEngine` that owns it, so that that can be collected."""

    def __init__(self, name: str, folder: Path, options: EngineOptions) -> None:
        self._name, self._folder, self._options = name, folder, options
        self._waiting: deque[GenerationRow] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._rows: list[GenerationRow] = []
        self._batch: Any = None
        self._budget = KvBudget(options.max_kv_tokens)
        self._quiet_steps = self._kv_peak = self._preempted = 0
        self._input_tokens = self._output_tokens = 0
        self._busy_s = 0.0
        self._loaded: LoadedModel | BackendError | None = None
        self._load_ended = threading.Event()
        self._wanted = threading.Event()

    # called from any thread

    def submit(self, generation: Generation, deliver: Deliver) -> GenerationHandle:
        """See `LocalEngine.submit`."""
        row = GenerationRow(generation, deliver, threading.Event())
        with self._changed:
            if self._stopping:
                raise unavailable(self._name)
            if len(self._waiting) >= self._options.max_queue:
                raise BackendError(
                    self._name,
                    f"the queue of the local model is full ({self._options.max_queue} waiting)",
                    retryable=True,
                    kind=FailureKind.OVERLOADED,
                    status_code=429,
                )
            self._waiting.append(row)
            self._wanted.set()
            self._changed.notify()
        return GenerationHandle(row.cancelled)

    def loaded(self) -> LoadedModel:
        """The loaded model; waits for loading. Raises `BackendError` when it cannot be loaded."""
        self._wanted.set()
        with self._changed:
            self._changed.notify()
        self._load_ended.wait()
        loaded = self._loaded
        if isinstance(loaded, LoadedModel):
            return loaded
        raise loaded or unavailable(self._name)

    def statistics(self) -> EngineStatistics:
        """A snapshot."""
        loaded = self._loaded
        device = str(loaded.model.device) if isinstance(loaded, LoadedModel) else "not loaded"
        with self._changed:
            return EngineStatistics(
                device=device,
                running=len(self._rows),
                waiting=len(self._waiting),
                kv_limit=self._budget.limit,
                kv_peak=self._kv_peak,
                preempted=self._preempted,
                input_tokens=self._input_tokens,
                output_tokens=self._output_tokens,
                busy_s=self._busy_s,
            )

    def stop(self) -> None:
        """Ask the thread to end after its current step."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    # the worker thread

    def run(self) -> None:
        """Serve until stopped; whatever happens, every request gets an answer or an error."""
        try:
            while self._wait_for_work():
                self._serve()
        finally:
            with self._changed:
                self._stopping = True
                left = [*self._rows, *self._waiting]
                self._rows, self._batch = [], None
                self._waiting.clear()
            self._loaded = None
            self._load_ended.set()
            _give_memory_back()
            for row in left:
                row.deliver(unavailable(self._name))

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not self._stopping and not self._waiting and (self._load_ended.is_set() or not self._wanted.is_set()):
                self._changed.wait()
            return not self._stopping

    def _serve(self) -> None:
        """Load when needed, then work until nothing waits or runs."""
        if self._loaded is None:
            self._load()
        if not isinstance(self._loaded, LoadedModel):
            error = self._loaded or unavailable(self._name)
            for row in self._take(self._options.max_queue):
                row.deliver(error)
            if error.retryable:
                self._loaded = None  # memory may be free again at the next request
            return
        with inference(self._loaded):
            while not self._stopping and (self._waiting or self._rows):
                started = time.perf_counter()
                self._advance(self._loaded)
                self._busy_s += time.perf_counter() - started

    def _load(self) -> None:
        try:
            self._loaded = load_model(self._name, self._folder, self._options)
            self._use_few_threads(self._loaded)
        except BackendError as error:
            self._loaded = error
        self._load_ended.set()

    def _use_few_threads(self, loaded: LoadedModel) -> None:
        """A small model on the CPU computes on one thread; the limit holds for this thread only."""
        if isinstance(loaded.model, NumpyLlama):
            return  # see `inference`
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        with needs_extra("local", "a local model"):
            import torch

        torch.get_num_threads()  # torch sets its own number at a thread's first use: let it do so before ours
        if loaded.model.device.type == "cpu" and loaded.model.num_parameters() < SMALL_MODEL_PARAMETERS:
            threadpool_limits(limits=1, user_api="openmp")

    def _take(self, count: int) -> list[GenerationRow]:
        with self._changed:
            return [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]

    def _advance(self, loaded: LoadedModel) -> None:
        """One round: admit who waits, then one token for every row. A failure ends the rows that it concerns only."""
        if self._batch is None:
            self._batch = new_batch(loaded)
        joining: list[GenerationRow] = []
        try:
            self._drop_cancelled()
            joining = self._admissible(loaded)
            if joining:
                self._admit(loaded, joining)
                joining = []
            if self._rows:
                self._make_room()
                logits = self._batch.step([row.output[-1] for row in self._rows])
                self._kv_peak = max(self._kv_peak, self._batch.size * self._batch.columns)
                self._take_tokens(loaded, self._rows, logits)
                self._drop_finished(loaded)
            self._grow_again()
        except Exception as error:  # noqa: BLE001 - a model's own code may raise anything; its callers must hear of it
            reason = self._failure(error)
            if reason.kind is not FailureKind.OUT_OF_MEMORY or not self._start_over(loaded, joining):
                self._fail(joining, reason, error)

    def _admissible(self, loaded: LoadedModel) -> list[GenerationRow]:
        """Waiting rows that fit beside the running ones, tokenised and checked."""
        room = self._options.max_batch - len(self._rows)
        if room <= 0 or not self._waiting or not self._batch.can_join:
            return []
        admitted: list[GenerationRow] = []
        widest = 0
        while self._waiting and len(admitted) < room:
            row = self._take(1)[0]
            if row.cancelled.is_set() or not self._prepare(loaded, row):
                continue
            widest = max(widest, len(row.context))
            too_many = admitted and widest * (len(admitted) + 1) > self._options.max_prefill_tokens
            together = [*self._rows, *admitted, row]
            if too_many or not self._budget.admits(together, max(widest, self._batch.columns)):
                self._wait_again([row])
                break
            admitted.append(row)
        return admitted

    def _wait_again(self, rows: list[GenerationRow]) -> None:
        """Put rows back to the front of the queue, in their order. What they generated is kept."""
        with self._changed:
            self._waiting.extendleft(reversed(rows))

    def _make_room(self) -> None:
        """Let the newest rows start over, until a column more fits for those that stay."""
        rows = len(self._rows)
        while not self._budget.has_room(rows, self._batch.columns + 1):
            rows -= 1
        newest = self._rows[rows:]
        if newest:
            self._preempted += len(newest)
            self._keep(list(range(rows)))
            self._wait_again(newest)

    def _start_over(self, loaded: LoadedModel, joining: list[GenerationRow]) -> bool:
        """Memory ran out: all rows wait again, for a cache of half the size. False when there was one row only."""
        rows = list(dict.fromkeys([*self._rows, *joining]))
        if len(rows) < 2:
            return False
        self._budget.shrink(len(rows) * max(len(row.context) for row in rows))
        self._quiet_steps = 0
        self._preempted += len(rows)
        with self._changed:
            self._rows = []
        self._batch = None
        _give_memory_back()
        ended = [row for row in rows if row.output and row.finish_reason(loaded.end_ids) is not None]
        self._wait_again([row for row in rows if row not in ended])
        self._deliver_finished(loaded, ended)
        return True

    def _prepare(self, loaded: LoadedModel, row: GenerationRow) -> bool:
        """Tokenise and check one request; a bad one is answered with its error and False is returned."""
        try:
            row.prepare(self._name, loaded, self._options.max_kv_tokens)
        except BackendError as error:
            row.deliver(error)
            return False
        return True

    def _admit(self, loaded: LoadedModel, joining: list[GenerationRow]) -> None:
        """Read the new prompts, give each its next token, and let the unfinished join the running rows."""
        logits, cache, mask = self._batch.prefill([row.context for row in joining])
        self._input_tokens += sum(len(row.ids) for row in joining if not row.output)
        self._take_tokens(loaded, joining, logits)
        self._batch.join(cache, mask)
        self._kv_peak = max(self._kv_peak, self._batch.size * self._batch.columns)
        with self._changed:
            self._rows.extend(joining)
        self._drop_finished(loaded)

    def _take_tokens(self, loaded: LoadedModel, rows: list[GenerationRow], logits: Any) -> None:
        """Sample one token for each row and put it into the row. logits (len(rows), V)."""
        draws = [(row.temperature, row.top_p, row.draw()) for row in rows]
        tokens = self._batch.choose(logits, draws)
        self._output_tokens += len(rows)
        asked = any(row.generation.logprobs for row in rows)
        logprobs = self._batch.logprobs(logits, tokens) if asked else [None] * len(rows)
        for row, token, logprob in zip(rows, tokens, logprobs, strict=True):
            row.take(token, loaded.end_ids, logprob if row.generation.logprobs else None)

    def _drop_finished(self, loaded: LoadedModel) -> None:
        reasons = [row.finish_reason(loaded.end_ids) for row in self._rows]
        finished = [row for row, reason in zip(self._rows, reasons, strict=True) if reason is not None]
        self._keep([place for place, reason in enumerate(reasons) if reason is None])
        self._deliver_finished(loaded, finished)

    def _deliver_finished(self, loaded: LoadedModel, finished: list[GenerationRow]) -> None:
        for row in finished:
            self._budget.record_answer(len(row.output))
            try:
                row.finish(loaded, row.finish_reason(loaded.end_ids) or "stop")
            except Exception as error:  # noqa: BLE001 - a tokenizer's own code; the row must hear of it
                row.deliver(self._failure(error))

    def _drop_cancelled(self) -> None:
        self._keep([place for place, row in enumerate(self._rows) if not row.cancelled.is_set()])

    def _keep(self, places: list[int]) -> None:
        if len(places) == len(self._rows):
            return
        self._batch.keep(places)
        with self._changed:
            self._rows = [self._rows[place] for place in places]

    def _failure(self, error: Exception) -> BackendError:
        """What a failed step means for its requests."""
        torch = sys.modules.get("torch")  # a numpy model runs without it
        of_torch = torch is not None and isinstance(error, torch.OutOfMemoryError)
        # on the CPU PyTorch raises a plain RuntimeError
        if of_torch or isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            return out_of_memory(self._name, f"{len(self._rows)} requests ran")
        message = f"the local model failed: {type(error).__name__}: {error}"
        return BackendError(self._name, message, retryable=False, kind=FailureKind.UNAVAILABLE, status_code=500)

    def _fail(self, joining: list[GenerationRow], reason: BackendError, cause: BaseException) -> None:
        """The running and the joining rows fail with `reason`; the batch starts anew."""
        reason.__cause__ = cause.with_traceback(None)  # frames would keep the batch's tensors alive
        with self._changed:
            ended, self._rows = list(dict.fromkeys([*self._rows, *joining])), []
        self._batch = None
        _give_memory_back()
        for row in ended:
            row.deliver(reason)

    def _grow_again(self) -> None:
        self._quiet_steps += 1
        if self._quiet_steps >= STEPS_BEFORE_GROWING:
            self._quiet_steps = 0
            self._budget.grow()


def new_batch(loaded: LoadedModel) -> Any:
    """The rows that decode together, on what the model computes with."""
    pad_id = loaded.tokenizer.pad_token_id or 0
    if isinstance(loaded.model, NumpyLlama):
        return NumpyBatch(loaded.model, pad_id)
    from eccos_core.backends.local.running_batch import RunningBatch

    return RunningBatch(loaded.model, pad_id)


def inference(loaded: LoadedModel) -> AbstractContextManager[Any]:
    """What stands around the steps: no gradients on torch, one thread on numpy."""
    if isinstance(loaded.model, NumpyLlama):
        return blas_threads().single_threaded()
    with needs_extra("local", "a local model"):
        import torch
    context: AbstractContextManager[Any] = torch.inference_mode()
    return context


def _give_memory_back() -> None:
    """What PyTorch keeps of a GPU's memory for later goes back to the GPU, where other models can have it."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)  # None while another thread still imports torch
    if cuda is not None and cuda.is_available():
        cuda.empty_cache()
