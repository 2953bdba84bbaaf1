"""What is known of provider batches on disk, so that a process that was killed finds its batches again.

One file for each batch. It holds no text of a request, no answer and no key: requests are named by a digest.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any

from eccos_core.domain import Request, new_id
from eccos_core.errors import DataError
from eccos_core.io.file_lock import lock_descriptor
from eccos_core.io.files import atomic_writer, parse_object
from eccos_core.io.tokens import text_key

VERSION = 1


@dataclass(frozen=True, slots=True)
class ProviderBatch:
    """One provider batch.

    `id` is our name of it, `provider_id` the provider's: empty while it is being submitted. `place` is a digest of the
    deployment that it was submitted to. `created_at` and `patient_until` are s since 1970 (UTC). `rows` are the names
    of its requests (`row_name`). `scope` names the batch of `eccos serve` that it belongs to, empty outside of it.
    """

    id: str
    model: str
    place: str
    created_at: float
    patient_until: float
    rows: tuple[str, ...]
    provider_id: str = ""
    version: int = VERSION
    scope: str = ""

    @classmethod
    def new(cls, model: str, place: str, rows: tuple[str, ...], patience_s: float, scope: str = "") -> ProviderBatch:
        """Make the record of a batch that is about to be submitted."""
        now = time.time()
        return cls(new_id(), model, place, now, now + patience_s, rows, scope=scope)


@dataclass(slots=True, eq=False)
class OpenBatch:
    """A batch that this process has claimed, with the requests that came for it.

    `is_pending`: its record stays, as it may still run. Set `hurry` to look at it now.
    """

    record: ProviderBatch
    lock: IO[bytes]
    requests: dict[str, Request] = field(default_factory=dict)
    is_pending: bool = False
    hurry: asyncio.Event = field(default_factory=asyncio.Event)


def row_name(request: Request, occurrence: int) -> str:
    """Name a request by its content, for batches. `occurrence` tells equal requests of one call apart.

    At most 64 letters, digits and dashes, as both providers want it.
    """
    content = json.dumps([list(request.messages), dict(request.parameters)], sort_keys=True, default=str)
    return f"eccos-{text_key(content)[:40]}-{occurrence}"


class ProviderBatchFolder:
    """The records of one folder. Each is claimed by one process at a time, and free again once that one has ended."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self) -> Iterator[ProviderBatch]:
        """Yield every record, the oldest first. Raises `DataError` for a file that eccos did not write."""
        found = [self._read(file) for file in sorted(self.path.glob("*.json"))]
        yield from sorted((each for each in found if each is not None), key=lambda each: each.created_at)

    def save(self, record: ProviderBatch) -> None:
        """Write a record, whole or not at all."""
        content = json.dumps(asdict(record), indent=1).encode() + b"\n"
        with atomic_writer(self._file(record.id)) as stream:
            stream.write(content)

    def remove(self, record_id: str) -> None:
        """Forget a batch. Who claimed it still holds its lock."""
        for suffix in ("json", "cancel"):
            self._file(record_id, suffix).unlink(missing_ok=True)

    def claim(self, record_id: str) -> IO[bytes] | None:
        """Claim a record until the file that you get is closed, or the process ends. None if another one has it."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = self._file(record_id, "lock").open("ab")
        try:
            lock_descriptor(lock.fileno())
        except OSError:
            lock.close()
            return None
        return lock

    def release(self, record_id: str, lock: IO[bytes]) -> None:
        """Give a claim back. The lock's file goes with its record."""
        if not self._file(record_id).exists():
            with suppress(OSError):
                self._file(record_id, "lock").unlink(missing_ok=True)
        lock.close()

    def again(self, record: ProviderBatch) -> ProviderBatch | None:
        """Read a record once more. None if it is gone, as its process has ended."""
        return self._read(self._file(record.id))

    def ask_cancel(self, record_id: str) -> None:
        """Ask the process that waits for a batch to cancel it."""
        self._file(record_id, "cancel").touch()

    def is_cancel_asked(self, record_id: str) -> bool:
        """Whether somebody asked to cancel a batch."""
        return self._file(record_id, "cancel").exists()

    def _file(self, record_id: str, suffix: str = "json") -> Path:
        return self.path / f"{record_id}.{suffix}"

    def _read(self, file: Path) -> ProviderBatch | None:
        try:
            content: Mapping[str, Any] = parse_object(file.read_bytes(), str(file), None)
        except FileNotFoundError:
            return None
        content = {"scope": "", **content}  # which the files of earlier releases do not have
        names = {each.name for each in fields(ProviderBatch)}
        if content.get("version") != VERSION or set(content) != names:
            rule = f"no record of a provider batch, version {VERSION}. Move it out of this folder, which is eccos' own."
            raise DataError(str(file), rule)
        return replace(ProviderBatch(**content), rows=tuple(content["rows"]))
