"""What can be swapped: six protocols of one to three methods. Pass an object; there is no registry.

The contract of each is documented here, once, and checked by one test file per protocol in `tests/contract`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from eccos_core.domain import (
    Assignment,
    Chunk,
    Completion,
    Float32Array,
    FloatArray,
    Forecast,
    IntArray,
    Outcome,
    OutcomeTable,
    Request,
    RoutingProblem,
    WorkloadStatus,
)

Held = TypeVar("Held")


@runtime_checkable
class Encoder(Protocol):
    """Turns text into a vector. Same text, same vector. Safe to call from several threads."""

    @property
    def name(self) -> str:
        """Identity of the encoder and its weights: two encoders with one name give the same vectors."""
        ...

    @property
    def dimensions(self) -> int:
        """D, the length of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """(len(texts), D) float32, each row of unit length. No texts give (0, D)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class HistoryNeighbors:
    """indices (R, k) into the rows of `HistoryStore.table()`; similarity (R, k) cosine in [-1, 1]; best first."""

    indices: IntArray
    similarity: FloatArray


@runtime_checkable
class HistoryStore(Protocol):
    """Remembers questions, their vectors and what each model made of them.

    One row a question (a query text); a row has at most one outcome per model. Nothing acknowledged is lost.
    """

    def add(self, outcomes: Sequence[Outcome], vectors: Float32Array) -> int:
        """Add outcomes; vectors (len(outcomes), D), one per outcome's query. Returns how many outcomes were new.

        The same outcome twice changes nothing and counts as not new; another quality for a known (question, model)
        replaces it. Raises `HistoryError` when D differs from the store's.
        """
        ...

    def nearest(self, vectors: Float32Array, k: int) -> HistoryNeighbors:
        """The k most similar questions for each of vectors (R, D); fewer columns when the store holds fewer rows."""
        ...

    def table(self) -> tuple[OutcomeTable, Float32Array]:
        """All outcomes as a table of N rows, and the vectors (N, D), row by row."""
        ...


class OnlineHistory(HistoryStore, Protocol):
    """A history that tells what came since, so that a predictor which looks into it need not read all of it again."""

    def changes(self, since: int) -> tuple[int, IntArray]:
        """(a number for now, the rows that this object wrote since `since`, an earlier such number or 0 for ever).

        New rows are among them; rows written by another process are not. O(1) when nothing changed.
        """
        ...

    def some(self, rows: IntArray) -> tuple[OutcomeTable, Float32Array]:
        """The chosen rows of `table()`, in this order, without reading the others."""
        ...

    def __len__(self) -> int:
        """N: how many rows this object knows of."""
        ...


@runtime_checkable
class Predictor(Protocol):
    """Forecasts quality and tokens for every model of `models`."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the M models, in the order of the forecast's columns."""
        ...

    def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        """vectors (R, D), input_tokens (R,) -> Forecast with R rows. Pure: the same input gives the same forecast."""
        ...


@runtime_checkable
class Optimizer(Protocol):
    """A solver is a function of a problem."""

    def solve(self, problem: RoutingProblem) -> Assignment:
        """The assignment, feasible always. Raises `InfeasibleError` (or answers with `Status.BEST_EFFORT` when the
        policy says so), and `InputError` for NaN, negative or mis-shaped numbers."""
        ...


@runtime_checkable
class Workload(Protocol):
    """Knows how many requests each model has in flight."""

    def free_slots(self) -> IntArray:
        """(M,) how many more requests each model can take now, in the pool's order; a large number when uncapped."""
        ...

    def deciding(self) -> AbstractContextManager[IntArray]:
        """The critical section in which a decision is made and its slot held; gives `free_slots()` as of now.

        `hold` may be entered inside it (it is re-entrant), and never waits there, so that nothing that blocks or
        awaits stands between choosing and holding.
        """
        ...

    def hold(self, model: str) -> AbstractContextManager[None]:
        """Holds one slot for the length of a `with` block; released exactly once, whatever happens.

        Raises `Overloaded` when the model has no free slot.
        """
        ...

    def acquire(self, take: Callable[[], Held], deadline_s: float) -> Held:
        """What `take` (decide and hold) gives as soon as it does not raise `Overloaded`: first come, first served.

        After `deadline_s` seconds its `Overloaded` is raised.
        """
        ...

    async def aacquire(self, take: Callable[[], Held], deadline_s: float) -> Held:
        """The same, without blocking the event loop; threads and tasks wait in one line."""
        ...

    def observe(self, model: str, completion: Completion | None, error: Exception | None = None) -> None:
        """Learn from one ended call: latency, tokens per second, failure."""
        ...

    def status(self) -> WorkloadStatus:
        """A consistent snapshot of every model, in the pool's order, and of how many requests wait."""
        ...


@runtime_checkable
class Backend(Protocol):
    """Calls one model. Raises `BackendError`, and `StreamInterrupted` when a stream breaks half way."""

    def complete(self, model: str, request: Request) -> Completion:
        """The whole answer of one call."""
        ...

    async def acomplete(self, model: str, request: Request) -> Completion:
        """The same, without blocking the event loop."""
        ...

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """Chunks as they come; the last one carries the completion."""
        ...

    def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """The same, without blocking the event loop."""
        ...
