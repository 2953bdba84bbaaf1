"""The journal of a collection: every call and answer is on disk before the collection uses it.

It is a file of JSON lines beside the outcomes file. `call_started` is written before a call begins. `answer`,
`failure`, `verdict` and `grade` are synced to the disk (fsync) before anything else happens with them. Only then is
the call's slot free for another call. So a kill loses at most one answer per call in flight:

- An answer that was written is never paid for again.
- A `call_started` without a reply was in flight. The call is made again and counts against the budget as paid.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from eccos_core.errors import DataError, InputError
from eccos_core.io.file_lock import lock_descriptor
from eccos_core.io.files import parse_object

Role: TypeAlias = Literal["answer", "grade"]
Cell: TypeAlias = tuple[str, str]
"""(question id, model)"""


@dataclass(frozen=True, slots=True)
class CallStartedEntry:
    """A call is about to begin. It costs at most `usd_at_most`. Role `grade`: a judge is called."""

    id: str
    model: str
    role: Role
    usd_at_most: float


@dataclass(frozen=True, slots=True)
class AnswerEntry:
    """A model's answer. `digest` identifies the question text and the parameters, see `Question.digest`.

    `features`: what the answer tells about itself, by the names of `ANSWER_FEATURES`.
    """

    id: str
    model: str
    digest: str
    text: str
    input_tokens: int
    output_tokens: int
    cost_usd: float
    latency_s: float
    finish_reason: str | None = None
    features: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class FailureEntry:
    """A call that failed for good. The provider may have billed up to `usd_at_risk`."""

    id: str
    model: str
    digest: str
    error: str
    message: str
    usd_at_risk: float = 0.0


@dataclass(frozen=True, slots=True)
class FailedAttemptEntry:
    """A failed call that will be retried, or a failed call of a judge."""

    id: str
    model: str
    role: Role
    usd_at_risk: float = 0.0


@dataclass(frozen=True, slots=True)
class VerdictEntry:
    """A judge's reply about a model's answer."""

    id: str
    model: str
    text: str
    input_tokens: int
    output_tokens: int
    cost_usd: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class GradeEntry:
    """A score in [0, 1], or the reason why there is none. `cost_usd` is what the judge cost.

    `answer`: the final answer as the grader reads it, None for prose.
    """

    id: str
    model: str
    score: float | None
    cost_usd: float = 0.0
    error: str = ""
    answer: str | None = None


Entry: TypeAlias = CallStartedEntry | AnswerEntry | FailureEntry | FailedAttemptEntry | VerdictEntry | GradeEntry
_KINDS: Mapping[str, type[Entry]] = {
    "call_started": CallStartedEntry,
    "answer": AnswerEntry,
    "failure": FailureEntry,
    "failed_attempt": FailedAttemptEntry,
    "verdict": VerdictEntry,
    "grade": GradeEntry,
}
_NAMES = {entry_class: name for name, entry_class in _KINDS.items()}


@dataclass(slots=True)
class JournalContents:
    """The state that a journal describes.

    `in_flight`: number of calls without a reply. `usd_at_risk`: what calls that failed or were in flight may have cost.
    `verdicts`: judges' replies that have no grade yet. `grading_usd`: what all judges cost.
    """

    answers: dict[Cell, AnswerEntry] = field(default_factory=dict)
    failures: dict[Cell, FailureEntry] = field(default_factory=dict)
    grades: dict[Cell, GradeEntry] = field(default_factory=dict)
    verdicts: dict[Cell, VerdictEntry] = field(default_factory=dict)
    in_flight: int = 0
    usd_at_risk: float = 0.0
    grading_usd: float = 0.0


def replay_journal(entries: Iterable[Entry]) -> JournalContents:
    """Compute the state after a journal's entries. A later entry of a cell replaces an earlier one."""
    contents = JournalContents()
    open_calls: dict[tuple[str, str, Role], list[float]] = {}
    for entry in entries:
        cell = (entry.id, entry.model)
        match entry:
            case CallStartedEntry(role=role, usd_at_most=usd):
                open_calls.setdefault((*cell, role), []).append(usd)
            case FailedAttemptEntry(role=role):
                _close_call(open_calls, (*cell, role))
                contents.usd_at_risk += entry.usd_at_risk
            case VerdictEntry():
                _close_call(open_calls, (*cell, "grade"))
                contents.verdicts[cell] = entry
                contents.grading_usd += entry.cost_usd
            case AnswerEntry():
                _close_call(open_calls, (*cell, "answer"))
                contents.answers[cell] = entry
                contents.failures.pop(cell, None)
                contents.grades.pop(cell, None)
            case FailureEntry():
                _close_call(open_calls, (*cell, "answer"))
                contents.failures[cell] = entry
                contents.usd_at_risk += entry.usd_at_risk
            case GradeEntry():
                contents.grades[cell] = entry
                contents.verdicts.pop(cell, None)
    contents.in_flight = sum(len(calls) for calls in open_calls.values())
    contents.usd_at_risk += sum(sum(calls) for calls in open_calls.values())
    return contents


def _close_call(open_calls: dict[tuple[str, str, Role], list[float]], key: tuple[str, str, Role]) -> None:
    calls = open_calls.get(key)
    if calls:
        calls.pop()


class Journal:
    """An append-only file of entries that one process at a time can open.

    `append` returns a future that is done when the entry is on the disk. Entries that arrive while the disk is busy are
    written together. A torn last line is dropped, because nothing was done with it. Raises `InputError` if the file
    cannot be opened or written, or if another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = _open_locked(path)
        self._disk = threading.Lock()
        self._queue: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._writer: asyncio.Task[None] | None = None
        content = path.read_bytes()
        os.ftruncate(self._descriptor, content.rfind(b"\n") + 1)

    def write_unsynced(self, entry: Entry) -> None:
        """Write an entry without syncing it to the disk. It survives a kill of the process, but not a power cut."""
        with self._disk:
            self._write(_line(entry), durable=False)

    def append(self, entry: Entry) -> asyncio.Future[None]:
        """Queue an entry at once. The returned future is done when the entry is safely on the disk."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((_line(entry), done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_queued())
        return done

    async def _write_queued(self) -> None:
        while self._queue:
            written, error = await asyncio.to_thread(self._flush)
            for done in written:
                if not done.done():
                    done.set_exception(error) if error else done.set_result(None)

    def _flush(self) -> tuple[list[asyncio.Future[None]], InputError | None]:
        """Write and sync all queued entries at once."""
        with self._disk:
            lines, futures = bytearray(), []
            while self._queue:
                line, done = self._queue.popleft()
                lines += line
                futures.append(done)
            try:
                if lines:
                    self._write(bytes(lines), durable=True)
            except InputError as error:
                return futures, error
            return futures, None

    def close(self) -> None:
        """Write all queued entries and close the file. Cancelling a task never loses a queued entry."""
        _, error = self._flush()
        with self._disk:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
        if error:
            raise error

    def remove(self) -> None:
        """Close and delete the file, once the outcomes file holds everything in it."""
        self.path.unlink()
        self.close()

    def _write(self, data: bytes, *, durable: bool) -> None:
        """Write to the file. The caller holds `_disk`."""
        size = os.fstat(self._descriptor).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            if durable:
                os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, size)  # otherwise the next line would be appended to half a line
            raise InputError(f"{self.path}: cannot be written ({error.strerror or error})") from error


def read_journal(path: Path) -> list[Entry]:
    """Read every entry of a journal. A missing file has none. A torn last line is skipped.

    Raises `DataError` for a line that is no entry.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    return [_entry(line, str(path), number) for number, line in enumerate(lines, start=1) if line.strip()]


def _open_locked(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    try:
        lock_descriptor(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise InputError(
            f"{path}: another `eccos collect` is writing it. Wait for it to end, or choose another --out."
        ) from error
    if not path.exists() or os.fstat(descriptor).st_ino != path.stat().st_ino:
        os.close(descriptor)  # the process that had it open has just deleted it
        return _open_locked(path)
    return descriptor


def _line(entry: Entry) -> bytes:
    content = {"kind": _NAMES[type(entry)], **asdict(entry)}
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _entry(line: bytes, file: str, number: int) -> Entry:
    content: dict[str, Any] = parse_object(line, file, number)
    entry_class = _KINDS.get(str(content.pop("kind", None)))
    parts = fields(entry_class) if entry_class else ()
    needed = {part.name for part in parts if part.default is MISSING and part.default_factory is MISSING}
    if entry_class is None or not needed <= set(content) <= {part.name for part in parts}:
        message = "not a line that eccos collect wrote. Delete the file to collect its answers again."
        raise DataError(file, message, number)
    return entry_class(**content)
