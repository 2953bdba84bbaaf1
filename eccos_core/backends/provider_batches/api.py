"""What every provider's batch API can do, and the words that they share: rows, answers, progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from eccos_core.backends.provider_batches.state import ProviderBatch

CLOCK_SLACK_S: Final = 600.0  # by which the provider's clock may differ from ours
PAGES: Final = 20  # of the provider's list that a lost batch is searched on


@dataclass(frozen=True, slots=True)
class WrittenRow:
    """A request as it would go over the wire: its name in the batch, the path, the body and its size in bytes."""

    name: str
    path: str
    body: Mapping[str, Any]
    size: int


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """What became of one row: the answer's HTTP status and body. Without them, `problem` says what happened."""

    status: int = 0
    body: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    is_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is. `files` are what to download, `problem` why it failed as a whole."""

    status: str
    done: int
    total: int
    is_over: bool
    is_cancelled: bool = False
    files: tuple[str, ...] = ()
    problem: str = ""


class BatchApi(Protocol):
    """One provider's batch API for one deployment. Every method raises `BackendError`."""

    most_rows: int
    most_bytes: int

    async def submit(self, record: ProviderBatch, rows: Sequence[WrittenRow]) -> str:
        """Submit a batch, and return the provider's id of it."""
        ...

    async def find(self, record: ProviderBatch, taken: frozenset[str]) -> str | None:
        """Return the id of a batch that was submitted, but whose answer was lost. `taken` are known to be others'."""
        ...

    async def look(self, batch_id: str) -> BatchProgress:
        """Say how far a batch is."""
        ...

    async def download(self, batch_id: str, progress: BatchProgress) -> dict[str, RowAnswer]:
        """Return what became of the rows of a batch that is over, by name. Rows may be missing."""
        ...

    async def cancel(self, batch_id: str) -> None:
        """Ask the provider to stop. Rows that it has begun may still be answered."""
        ...
