"""The journal: everything that was asked and answered, on disk before it counts.

A file of JSON lines beside the outcomes file. `asked` is written before a call begins; `answer`, `failure`,
`judged` and `grade` are forced to the disk (fsync) before anything else happens with them, and before the call's slot
is free for another one: no more answers can be lost than calls may be in flight. So after a kill at any moment:

- an answer that had arrived and been written is there and is never asked for again;
- an `asked` without a reply is a call that was in flight: it is made again, and counts against the budget as paid.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from eccos_core.errors import DataError, InputError
from eccos_core.io.files import parse_object

Role: TypeAlias = Literal["answer", "grade"]
Cell: TypeAlias = tuple[str, str]
"""(question id, model)"""


@dataclass(frozen=True, slots=True)
class AskedEntry:
    """A call is about to begin; it will cost at most `usd_at_most`. Role `grade`: a judge is asked."""

    id: str
    model: str
    role: Role
    usd_at_most: float


@dataclass(frozen=True, slots=True)
class AnswerEntry:
    """What a model answered. `digest` says to what; see `Question.digest`."""

    id: str
    model: str
    digest: str
    text: str
    input_tokens: int
    output_tokens: int
    cost_usd: float
    latency_s: float
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class FailureEntry:
    """A call that failed for good; it may have been billed up to `usd_at_risk` all the same."""

    id: str
    model: str
    digest: str
    error: str
    message: str
    usd_at_risk: float = 0.0


@dataclass(frozen=True, slots=True)
class AttemptedEntry:
    """A call that failed and is tried again, or was a judge's."""

    id: str
    model: str
    role: Role
    usd_at_risk: float = 0.0


@dataclass(frozen=True, slots=True)
class JudgedEntry:
    """What a judge said about a model's answer."""

    id: str
    model: str
    text: str
    input_tokens: int
    output_tokens: int
    cost_usd: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class GradeEntry:
    """A score in [0, 1], or why there is none; `cost_usd` is what the judge cost."""

    id: str
    model: str
    score: float | None
    cost_usd: float = 0.0
    error: str = ""


Entry: TypeAlias = AskedEntry | AnswerEntry | FailureEntry | AttemptedEntry | JudgedEntry | GradeEntry
_KINDS: Mapping[str, type[Entry]] = {
    "asked": AskedEntry,
    "answer": AnswerEntry,
    "failure": FailureEntry,
    "attempted": AttemptedEntry,
    "judged": JudgedEntry,
    "grade": GradeEntry,
}
_NAMES = {entry_class: name for name, entry_class in _KINDS.items()}


@dataclass(slots=True)
class JournalContents:
    """What a journal says. `in_flight`: calls without a reply, and what they cost at most; `usd_at_risk`: what calls
    that failed, or were in flight, may have cost; `judged`: verdicts that no grade was made of yet."""

    answers: dict[Cell, AnswerEntry] = field(default_factory=dict)
    failures: dict[Cell, FailureEntry] = field(default_factory=dict)
    grades: dict[Cell, GradeEntry] = field(default_factory=dict)
    judged: dict[Cell, JudgedEntry] = field(default_factory=dict)
    in_flight: int = 0
    usd_at_risk: float = 0.0
    usd_of_graders: float = 0.0


def replay_journal(entries: Iterable[Entry]) -> JournalContents:
    """The state that a journal's entries lead to; later entries of one cell replace earlier ones."""
    memory = JournalContents()
    waiting: dict[tuple[str, str, Role], list[float]] = {}
    for entry in entries:
        cell = (entry.id, entry.model)
        match entry:
            case AskedEntry(role=role, usd_at_most=usd):
                waiting.setdefault((*cell, role), []).append(usd)
            case AttemptedEntry(role=role):
                _replied(waiting, (*cell, role))
                memory.usd_at_risk += entry.usd_at_risk
            case JudgedEntry():
                _replied(waiting, (*cell, "grade"))
                memory.judged[cell] = entry
                memory.usd_of_graders += entry.cost_usd
            case AnswerEntry():
                _replied(waiting, (*cell, "answer"))
                memory.answers[cell] = entry
                memory.failures.pop(cell, None)
                memory.grades.pop(cell, None)
            case FailureEntry():
                _replied(waiting, (*cell, "answer"))
                memory.failures[cell] = entry
                memory.usd_at_risk += entry.usd_at_risk
            case GradeEntry():
                memory.grades[cell] = entry
                memory.judged.pop(cell, None)
    memory.in_flight = sum(len(calls) for calls in waiting.values())
    memory.usd_at_risk += sum(sum(calls) for calls in waiting.values())
    return memory


def _replied(waiting: dict[tuple[str, str, Role], list[float]], key: tuple[str, str, Role]) -> None:
    calls = waiting.get(key)
    if calls:
        calls.pop()


class Journal:
    """An append-only file of entries. One process at a time: a second one is refused.

    `append` gives a future that is done when the entry is on the disk; entries that arrive while the disk is busy are
    written together. Raises `InputError` where the file cannot be opened or written, or another process has it. A torn
    last line is dropped: nothing was done with it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = _open_locked(path)
        self._disk = threading.Lock()
        self._waiting: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._writer: asyncio.Task[None] | None = None
        content = path.read_bytes()
        os.ftruncate(self._descriptor, content.rfind(b"\n") + 1)

    def note(self, entry: Entry) -> None:
        """Writes an entry without forcing it to the disk: it survives a kill of the process, not a power cut."""
        with self._disk:
            self._write(_line(entry), durable=False)

    def append(self, entry: Entry) -> asyncio.Future[None]:
        """Queues an entry at once, before this call returns; the future is done when it is safely on the disk."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((_line(entry), done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_waiting())
        return done

    async def _write_waiting(self) -> None:
        while self._waiting:
            written, error = await asyncio.to_thread(self._flush)
            for done in written:
                if not done.done():
                    done.set_exception(error) if error else done.set_result(None)

    def _flush(self) -> tuple[list[asyncio.Future[None]], InputError | None]:
        """Writes everything that waits, in one piece; whoever holds the disk takes it all."""
        with self._disk:
            lines, futures = bytearray(), []
            while self._waiting:
                line, done = self._waiting.popleft()
                lines += line
                futures.append(done)
            try:
                if lines:
                    self._write(bytes(lines), durable=True)
            except InputError as error:
                return futures, error
            return futures, None

    def close(self) -> None:
        """Writes what waits, and gives the file free. What was queued is never lost by cancellation."""
        _, error = self._flush()
        with self._disk:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
        if error:
            raise error

    def remove(self) -> None:
        """Closes the file and removes it: everything in it stands elsewhere."""
        self.path.unlink()
        self.close()

    def _write(self, data: bytes, *, durable: bool) -> None:
        """Called by whoever holds the disk."""
        size = os.fstat(self._descriptor).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            if durable:
                os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, size)  # half a line must not stand before the next one
            raise InputError(f"{self.path}: cannot be written ({error.strerror or error})") from error


def read_journal(path: Path) -> list[Entry]:
    """Every entry of a journal; none where there is no such file. A torn last line does not count.

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
        _lock(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise InputError(
            f"{path}: another `eccos collect` is writing it; wait for it, or choose another --out"
        ) from error
    if not path.exists() or os.fstat(descriptor).st_ino != path.stat().st_ino:
        os.close(descriptor)  # the process that had it has just finished and removed it
        return _open_locked(path)
    return descriptor


def _lock(descriptor: int) -> None:
    """Raises `OSError` when another process holds the file; the lock ends with this process, however it ends."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _line(entry: Entry) -> bytes:
    content = {"kind": _NAMES[type(entry)], **asdict(entry)}
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _entry(line: bytes, file: str, number: int) -> Entry:
    content: dict[str, Any] = parse_object(line, file, number)
    entry_class = _KINDS.get(str(content.pop("kind", None)))
    wanted = {part.name for part in fields(entry_class)} if entry_class else set()
    if entry_class is None or set(content) != wanted:
        message = "not a line that eccos collect wrote; remove the file, and what it holds is asked again"
        raise DataError(file, message, number)
    return entry_class(**content)
