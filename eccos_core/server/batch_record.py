"""What is known about a batch, kept in a file of its own, so that a restart finds it again."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from eccos_core.domain import Assignment, new_id
from eccos_core.io.file_lock import try_lock
from eccos_core.io.files import atomic_writer
from eccos_core.server.batch_results import read_results
from eccos_core.server.errors import ApiError
from eccos_core.server.json_text import dump_json, load_json

BatchStatus: TypeAlias = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "cancelling", "cancelled"
]
DAY_S = 86_400.0
ENDED = frozenset({"failed", "completed", "cancelled"})
_ID = re.compile(r"batch_[0-9a-f]{32}")


@dataclass(slots=True)
class BatchRecord:
    """A batch as it is kept. `owner`, `tenant` and `is_admin` are those of the caller who made it.

    `patience_s` is how long its answers may take. `at_providers` counts the rows that wait at a provider's batch API,
    and `batched_usd` is what its rows have cost there. `certificates` has one entry for each joint assignment: one, or
    one more for each restart and policy of a line.
    """

    input_file_id: str
    owner: str
    tenant: str | None
    is_admin: bool
    policy: str | None
    metadata: dict[str, str]
    id: str = field(default_factory=lambda: f"batch_{new_id()}")
    status: BatchStatus = "validating"
    created_at: int = field(default_factory=lambda: int(time.time()))
    times: dict[str, int] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    total: int = 0
    completed: int = 0
    failed: int = 0
    cost_usd: float = 0.0
    patience_s: float = DAY_S
    at_providers: int = 0
    batched_usd: float = 0.0
    resumed: int = 0
    certificates: list[dict[str, Any]] = field(default_factory=list)
    output_file_id: str | None = None
    error_file_id: str | None = None

    @property
    def queued(self) -> int:
        """How many of its requests have no result yet."""
        return 0 if self.status in ENDED else self.total - self.completed - self.failed

    def move(self, status: BatchStatus) -> None:
        """Change the status, and note when."""
        self.status = status
        self.times[f"{status}_at"] = int(time.time())

    def describe(self) -> dict[str, Any]:
        """Return OpenAI's batch object, with the certificate under `eccos`."""
        stamps = ("in_progress", "finalizing", "completed", "failed", "cancelling", "cancelled")
        errors = {"object": "list", "data": self.errors} if self.errors else None
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "errors": errors,
            "input_file_id": self.input_file_id,
            "completion_window": f"{self.patience_s / 3600:g}h",
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "expires_at": None,
            "expired_at": None,
            **{f"{stamp}_at": self.times.get(f"{stamp}_at") for stamp in stamps},
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "metadata": self.metadata or None,
            "eccos": {
                "policy": self.policy,
                "cost_usd": self.cost_usd,
                "at_providers": self.at_providers,
                "batched_usd": self.batched_usd,
                "resumed": self.resumed,
                "certificates": self.certificates,
            },
        }


def certificate_of(assignment: Assignment) -> dict[str, Any]:
    """Return what a joint assignment proves, as JSON."""
    return {
        "requests": len(assignment.model_index),
        "engine": assignment.engine,
        "status": str(assignment.status),
        "gap": assignment.gap,
        "predicted_cost_usd": assignment.cost_usd,
        "lower_bound_usd": assignment.lower_bound_usd,
        "predicted_quality": assignment.quality,
        "upper_bound_quality": assignment.upper_bound_quality,
        "note": assignment.note,
    }


class BatchFolder:
    """Batch records in a folder, and the results that have come so far. Its methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, batch_id: str) -> bool:
        """Take a batch, so that no other process runs it. False where another one has it. It ends with the process."""
        lock = try_lock(self._folder / f"{batch_id}.lock")
        if lock is None:
            return False
        self._locks[batch_id] = lock
        return True

    def let_go(self, batch_id: str, *, ended: bool) -> None:
        """Let other processes take a batch. One that has ended leaves nothing but its record."""
        lock = self._locks.pop(batch_id, None)
        if lock is not None:
            os.close(lock)
        if ended:
            for kind in ("lock", "cancel"):
                (self._folder / f"{batch_id}.{kind}").unlink(missing_ok=True)

    def read(self, batch_id: str) -> BatchRecord | None:
        """Read a record again."""
        return self._read(self._folder / f"{batch_id}.json")

    def ask_to_cancel(self, batch_id: str) -> None:
        """Leave word for the process that runs a batch."""
        (self._folder / f"{batch_id}.cancel").touch()

    def is_to_cancel(self, batch_id: str) -> bool:
        """Whether somebody left word to cancel a batch."""
        return (self._folder / f"{batch_id}.cancel").exists()

    def as_seen(self, record: BatchRecord) -> BatchRecord:
        """Return the record of a batch that another process runs, with what can be seen of its progress."""
        if record.status not in ENDED:
            results = self.results(record)
            record.completed = sum(1 for each in results if each["error"] is None)
            record.failed = len(results) - record.completed
            if self.is_to_cancel(record.id):
                record.status = "cancelling"
        return record

    def save(self, record: BatchRecord) -> None:
        """Write a record, whole or not at all."""
        with atomic_writer(self._folder / f"{record.id}.json") as stream:
            stream.write(dump_json(asdict(record)))

    def records(self, without: Collection[str] = ()) -> Iterator[BatchRecord]:
        """Yield every record that can be read, but for the ids of `without`."""
        for place in sorted(self._folder.glob("batch_*.json")):
            if place.stem in without:
                continue
            record = self._read(place)
            if record is not None:
                yield record

    def get(self, batch_id: str, owner: str) -> BatchRecord:
        """Return a batch of this owner. Raises `ApiError` for any other id, without a word about why."""
        if _ID.fullmatch(batch_id):
            record = self._read(self._folder / f"{batch_id}.json")
            if record is not None and record.owner == owner:
                return record
        raise ApiError("not_found", f"no batch {batch_id[:60]!r}. GET /v1/batches lists yours.", param="batch_id")

    def results_path(self, batch_id: str) -> Path:
        """Return where the results so far of a batch are (`ResultLog`)."""
        return self._folder / f"{batch_id}.results"

    def results(self, record: BatchRecord) -> list[dict[str, Any]]:
        """Return the results so far. A last line that was cut off is left out."""
        return read_results(self.results_path(record.id))

    def drop_results(self, record: BatchRecord) -> None:
        """Remove the results so far, once they are in a file of their own."""
        self.results_path(record.id).unlink(missing_ok=True)

    def _read(self, place: Path) -> BatchRecord | None:
        names = {each.name for each in fields(BatchRecord)}
        try:
            kept = load_json(place.read_bytes())
            return BatchRecord(**{name: value for name, value in kept.items() if name in names})
        except (OSError, ValueError, TypeError, AttributeError):
            return None
