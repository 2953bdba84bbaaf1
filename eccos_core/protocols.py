"""What you can swap: one protocol for each part. Pass an object that has the methods. There is no registry.

Each contract is written here, once. One test file per protocol in `tests/contract` checks every implementation.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from eccos_core.domain import (
    Assignment,
    BatchOffer,
    BoolArray,
    Chunk,
    Completion,
    Decision,
    Float32Array,
    FloatArray,
    Forecast,
    IntArray,
    Judgement,
    LabellerStatus,
    LabellingCall,
    LabelSource,
    Outcome,
    OutcomeTable,
    Request,
    RoutingProblem,
    StreamChoice,
    WorkloadStatus,
)
from eccos_core.errors import BackendError, Overloaded, ProviderBatchError

Held = TypeVar("Held")


class AnswerLabels(Protocol):
    """Where an `AnswerObserver` puts what it finds out about one answer. Safe to call from any thread."""

    def record(self, quality: float, source: LabelSource, judgement: Judgement | None = None) -> None:
        """Label the answer with a quality in [0, 1]. `judgement`: what a judge said before it was corrected."""
        ...

    def record_other(self, completion: Completion, quality: float, judgement: Judgement | None = None) -> None:
        """Keep the outcome of another model's answer to the same question."""
        ...

    def add_spending(self, call: LabellingCall, usd: float) -> None:
        """Keep what a call of the judge, or of the other model, has cost."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """Turns text into a vector. The same text gives the same vector. Safe to call from several threads."""

    @property
    def name(self) -> str:
        """Name the encoder and its weights. Two encoders with one name give the same vectors."""
        ...

    @property
    def dimensions(self) -> int:
        """D, the length of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """Return (len(texts), D) float32, each row of unit length. No texts give (0, D)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class HistoryNeighbors:
    """indices (R, k) into the rows of `HistoryStore.table()`; similarity (R, k) cosine in [-1, 1]; best first."""

    indices: IntArray
    similarity: FloatArray


@runtime_checkable
class HistoryStore(Protocol):
    """Keeps questions, their vectors, and how well each model answered them.

    There is one row for each question (a query text), with at most one outcome per model. Nothing that was
    acknowledged is lost.
    """

    def add(self, outcomes: Sequence[Outcome], vectors: Float32Array) -> int:
        """Add outcomes, with the vector of each outcome's query. Returns how many outcomes were new.

        `vectors` is (len(outcomes), D). Adding the same outcome again changes nothing and counts as not new. Another
        quality for a known (question, model) replaces it. Raises `HistoryError` when D differs from the store's.
        """
        ...

    def nearest(self, vectors: Float32Array, k: int) -> HistoryNeighbors:
        """Find the k most similar questions for each of `vectors` (R, D). A smaller store gives fewer columns."""
        ...

    def table(self) -> tuple[OutcomeTable, Float32Array]:
        """Return all outcomes as a table of N rows, and their vectors (N, D), row by row."""
        ...


class OnlineHistory(HistoryStore, Protocol):
    """A history that says what changed, so that an online predictor need not read all of it again."""

    def changes(self, since: int) -> tuple[int, IntArray]:
        """Return (a version number, the rows that this object wrote since version `since`). 0 means since ever.

        New rows are among them. Rows that another process wrote are not. O(1) when nothing changed.
        """
        ...

    def some(self, rows: IntArray) -> tuple[OutcomeTable, Float32Array]:
        """Return the chosen rows of `table()`, in this order, without reading the others."""
        ...

    def __len__(self) -> int:
        """Return N, the number of rows that this object knows of."""
        ...


@runtime_checkable
class Predictor(Protocol):
    """Forecasts quality and tokens for every model of `models`."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the M models, in the order of the forecast's columns."""
        ...

    def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        """Forecast R requests from `vectors` (R, D) and `input_tokens` (R,). The same input gives the same forecast."""
        ...


@runtime_checkable
class Optimizer(Protocol):
    """Solves a routing problem. It is a pure function of the problem."""

    def solve(self, problem: RoutingProblem) -> Assignment:
        """Return an assignment that is always feasible.

        Raises `InfeasibleError` when there is none. A policy with `on_infeasible="best_effort"` gets the nearest
        attainable answer instead, with `SolutionStatus.BEST_EFFORT`. Raises `InputError` for numbers that are NaN,
        negative or of the wrong shape.
        """
        ...


@runtime_checkable
class Steering(Protocol):
    """Decides the requests of a stream, at a price of quality that it may move. Safe to call from several threads."""

    @property
    def usd_per_quality(self) -> float:
        """Lambda now: what one unit of quality may cost, in USD."""
        ...

    def decide(
        self, quality: FloatArray, cost_usd: FloatArray, open_models: BoolArray, occupancy: FloatArray | None = None
    ) -> StreamChoice:
        """Choose the model of one request. `occupancy` is the share of each model's slots that is taken.

        All arrays are (M,). Raises `Overloaded` when no model is open, and `InfeasibleError` when none is affordable.
        """
        ...

    def decide_jointly(
        self,
        quality: FloatArray,
        cost_usd: FloatArray,
        open_models: BoolArray,
        free_slots: IntArray,
        optimizer: Optimizer,
        models: Sequence[str],
    ) -> list[StreamChoice | Overloaded]:
        """Choose the models of B requests that arrived together. Arrays are (B, M), `free_slots` is (M,).

        A request that finds no slot gets an `Overloaded` in its place.
        """
        ...

    def retract(self, choice: StreamChoice) -> None:
        """Forget a choice: its slot was gone, so its answer is never given. Call it before the next decision."""
        ...

    def correct_cost(self, difference_usd: float) -> None:
        """Learn that an answer cost this much more than predicted (less, when negative)."""
        ...


@runtime_checkable
class Workload(Protocol):
    """Knows how many requests each model has in flight."""

    def free_slots(self, models: Sequence[str] | None = None) -> IntArray:
        """Return how many more requests each model can take now, (M,). A model without a cap has a large number.

        `models` gives names and order. Without it, they are the pool's.
        """
        ...

    def deciding(self, models: Sequence[str] | None = None) -> AbstractContextManager[IntArray]:
        """Enter the critical section in which a decision is made and its slot held. Gives `free_slots(models)`.

        You may enter `hold` inside it. It never waits there. So nothing that blocks or awaits stands between choosing
        and holding.
        """
        ...

    def hold(self, model: str) -> AbstractContextManager[None]:
        """Hold one slot for the length of a `with` block. It is released exactly once, whatever happens.

        Raises `Overloaded` when the model has no free slot.
        """
        ...

    def acquire(self, take: Callable[[], Held], deadline_s: float) -> Held:
        """Call `take` (decide and hold) until it does not raise `Overloaded`, first come, first served.

        After `deadline_s` seconds its `Overloaded` is raised.
        """
        ...

    async def aacquire(self, take: Callable[[], Held], deadline_s: float) -> Held:
        """Do the same without blocking the event loop. Threads and tasks wait in one queue."""
        ...

    def observe(self, model: str, completion: Completion | None, error: Exception | None = None) -> None:
        """Learn from one ended call: latency, tokens per second, failure."""
        ...

    def status(self) -> WorkloadStatus:
        """Return a consistent snapshot of every model, in the pool's order, and of how many requests wait."""
        ...


@runtime_checkable
class Backend(Protocol):
    """Calls one model. Raises `BackendError`, and `StreamInterrupted` when a stream breaks half way.

    A request may carry a `deadline`. A backend ends its call by then.
    """

    def complete(self, model: str, request: Request) -> Completion:
        """Return the whole answer of one call."""
        ...

    async def acomplete(self, model: str, request: Request) -> Completion:
        """Do the same without blocking the event loop."""
        ...

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """Yield chunks as they come. The last one carries the completion."""
        ...

    def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """Do the same without blocking the event loop."""
        ...


@runtime_checkable
class SelectiveBackend(Backend, Protocol):
    """A backend whose models do not all take the same call parameters, and which says so beforehand."""

    def unsupported_parameters(self, model: str, parameters: Mapping[str, Any]) -> frozenset[str]:
        """Return the names of the parameters that the model would refuse. Calls nobody."""
        ...


def unsupported_parameters(backend: Backend, model: str, parameters: Mapping[str, Any]) -> frozenset[str]:
    """Return what a model of the backend would refuse. That is nothing where the backend does not say."""
    if not parameters or not isinstance(backend, SelectiveBackend):
        return frozenset()
    return backend.unsupported_parameters(model, parameters)


@runtime_checkable
class LogprobSource(Backend, Protocol):
    """A backend that says which of its models give log-probabilities of their tokens."""

    def gives_logprobs(self, model: str) -> bool:
        """Tell whether the model takes `logprobs: true`, as far as is known without a call."""
        ...


def gives_logprobs(backend: Backend, model: str) -> bool:
    """Tell whether a model of the backend gives log-probabilities. A backend that does not say gives none."""
    return isinstance(backend, LogprobSource) and backend.gives_logprobs(model)


class AnswerObserver(Protocol):
    """Looks at answers after they were given. It must return at once, never raise, and work in the background."""

    def observe_answer(
        self, request: Request, decision: Decision, completion: Completion, labels: AnswerLabels
    ) -> None:
        """Look at an answer, now or later."""
        ...

    def status(self) -> LabellerStatus:
        """Return what was done since the start."""
        ...

    def close(self, successor: AnswerObserver | None = None) -> None:
        """Stop the work in the background. What still waits goes to the successor, or is dropped and counted.

        An answer that is shown later, by a request that began before, goes to the successor too.
        """
        ...


class BatchCalls(AbstractContextManager[Any], Protocol):
    """The provider batches of one call. Requests are named by their content, so that they are found again."""

    def model_of(self, row: str) -> str | None:
        """Return the model whose open batch has this request already. None if no batch has."""
        ...

    def submit(self, rows: Mapping[str, Mapping[str, Request]]) -> dict[str, BackendError]:
        """Submit the requests of each model, by name. Returns those that no batch took, with the reason."""
        ...

    async def asubmit(self, rows: Mapping[str, Mapping[str, Request]]) -> dict[str, BackendError]:
        """Do the same without blocking the event loop."""
        ...

    def collect(self) -> dict[str, Completion | BackendError | ProviderBatchError]:
        """Wait until every batch is over, and return what became of each request."""
        ...

    async def acollect(self) -> dict[str, Completion | BackendError | ProviderBatchError]:
        """Do the same without blocking the event loop."""
        ...

    def aresults(self) -> AsyncGenerator[dict[str, Completion | BackendError | ProviderBatchError], None]:
        """Yield what became of the requests of each batch, as soon as that batch is over."""
        ...

    async def acancel(self) -> None:
        """Ask the providers to end the batches. Who waits gets the answers that there are, and errors for the rest."""
        ...

    def finish(self) -> None:
        """Forget the batches that were read."""
        ...


class BatchProvider(Protocol):
    """Calls models through the batch APIs of their providers. It keeps what is open, beyond the end of the process."""

    @property
    def offers(self) -> Mapping[str, BatchOffer]:
        """What the batch API of each model offers. Models without one are not there."""
        ...

    def open_session(
        self,
        models: Sequence[str],
        patience_s: float,
        report: Callable[[str], None] | None = None,
        *,
        scope: str = "",
    ) -> BatchCalls:
        """Return the batches of one call, those of `models` that are open among them. `report` hears what happens.

        A `scope` keeps them apart: only a session of the same scope finds them again.
        """
        ...

    def abandon(self, scope: str) -> None:
        """Cancel and forget the open batches of a scope. Raises `BackendError` when a provider cannot be reached."""
        ...
