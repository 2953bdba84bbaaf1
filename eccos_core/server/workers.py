"""Several processes on one port: a parent that starts workers again, and the line between it and each worker."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

from eccos_core.config import ChromaPersistentConfig, Config
from eccos_core.errors import InputError
from eccos_core.server.settings import ServerSettings

READY = b"r"
LOOK_S = 0.1
STEADY_S = 5.0  # a worker that lived for so long is started again at once
MAX_WAIT_S = 30.0  # before a worker that dies again and again is started again
KILL_AFTER_S = 5.0  # beyond the time to drain
_log = logging.getLogger("eccos.server")


@dataclass(frozen=True, slots=True)
class WorkerLine:
    """What a worker inherits: its number from 1, the listening socket, and a line to its parent."""

    number: int
    listening_fd: int
    line_fd: int

    def __str__(self) -> str:
        return f"{self.number}:{self.listening_fd}:{self.line_fd}"

    @classmethod
    def read(cls, text: str) -> WorkerLine:
        """Read what `str` wrote. Raises `InputError`."""
        try:
            return cls(*map(int, text.split(":")))
        except (ValueError, TypeError):
            raise InputError("--worker is for the workers that `eccos serve --workers` starts itself") from None

    def open_listening(self) -> socket.socket:
        """Return the listening socket that all workers share."""
        return socket.socket(fileno=self.listening_fd)

    def report_ready(self) -> None:
        """Tell the parent that requests are answered. From then on this process ends when the parent does."""
        line = socket.socket(fileno=self.line_fd)
        with contextlib.suppress(OSError):
            line.sendall(READY)
        threading.Thread(target=_end_with_parent, args=(line,), name="eccos-parent", daemon=True).start()


def _end_with_parent(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while line.recv(1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


def check_workers(config: Config, workers: int) -> None:
    """Raise `InputError` for what several processes on one machine cannot keep together, with the ways out."""
    if sys.platform == "win32":
        raise InputError("--workers needs Linux or macOS. On Windows, start one server for each port.")
    limited = [
        entry.model.name
        for entry in config.pool
        if entry.model.max_concurrency is not None or entry.requests_per_minute or entry.tokens_per_minute
    ]
    shares = config.workload.shared is not None
    if limited and not shares:
        more = f" and {len(limited) - 3} more" if len(limited) > 3 else ""
        raise InputError(
            f"{config.path}: {workers} workers would each send {', '.join(limited[:3])}{more} as much as the limits of "
            f"model_list allow, so {workers} times as much together. Set eccos.workload.shared to a Redis, which keeps "
            "the limits for all, or leave --workers out."
        )
    if (config.stream.usd_per_hour or config.stream.usd_per_day) and not shares:
        raise InputError(
            f"{config.path}: {workers} workers would each spend what eccos.stream allows. Set eccos.workload.shared to "
            "a Redis, which keeps one account for all, or leave --workers out."
        )
    if isinstance(config.history, ChromaPersistentConfig):
        raise InputError(
            f"{config.path}: eccos.history is a folder, which belongs to one process. Set eccos.history.url to a "
            "Chroma server, or eccos.history.outcomes to a file, or leave --workers out."
        )


@dataclass(slots=True)
class _ServingProcess:
    number: int
    process: subprocess.Popen[bytes]
    line: socket.socket
    started_at: float
    is_ready: bool = False


class WorkerSupervisor:
    """Starts workers, starts a dead one again, and passes on the signal to end.

    `command(line)` is what starts a worker, which listens on the socket of `line`. `announce` is called once, when all
    workers are ready. Call `run` in the main thread.
    """

    def __init__(
        self,
        command: Callable[[WorkerLine], Sequence[str]],
        listening: socket.socket,
        settings: ServerSettings,
        workers: int,
        announce: Callable[[], None],
    ) -> None:
        self._command, self._listening, self._settings = command, listening, settings
        self._announce, self._count = announce, workers
        self._workers: dict[int, _ServingProcess] = {}
        self._waits_s: dict[int, float] = {}
        self._start_at: dict[int, float] = {}
        self._signals = 0
        self._was_ready = False

    def run(self) -> int:
        """Serve until SIGTERM or Ctrl-C, and let all workers end. Returns the exit code.

        Raises `InputError` when a worker ends before it was ever ready.
        """
        with self._signals_caught():
            try:
                self._start_at = dict.fromkeys(range(1, self._count + 1), 0.0)
                while not self._signals:
                    self._start_due()
                    self._look()
                    time.sleep(LOOK_S)
            finally:
                self._end_all()
        return 0

    def _start_due(self) -> None:
        now = time.monotonic()
        for number in [number for number, at in self._start_at.items() if at <= now]:
            del self._start_at[number]
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            line = WorkerLine(number, self._listening.fileno(), theirs.fileno())
            process = subprocess.Popen(  # noqa: S603 - this program itself
                list(self._command(line)),
                pass_fds=(line.listening_fd, line.line_fd),
                start_new_session=True,  # Ctrl-C reaches the parent, which passes it on once
            )
            theirs.close()
            self._workers[number] = _ServingProcess(number, process, ours, now)

    def _look(self) -> None:
        for worker in list(self._workers.values()):
            with contextlib.suppress(BlockingIOError, ConnectionError):
                worker.is_ready = worker.is_ready or worker.line.recv(1) == READY
            code = worker.process.poll()
            if code is not None:
                self._plan_restart(worker, code)
        if (
            not self._was_ready
            and len(self._workers) == self._count
            and all(w.is_ready for w in self._workers.values())
        ):
            self._was_ready = True
            self._announce()

    def _plan_restart(self, worker: _ServingProcess, code: int) -> None:
        worker.line.close()
        del self._workers[worker.number]
        if not self._was_ready and not worker.is_ready:
            raise InputError(f"worker {worker.number} could not start (exit code {code}). Its reason is above.")
        now = time.monotonic()
        wait_s = 0.0 if now - worker.started_at > STEADY_S else self._waits_s.get(worker.number, 0.5)
        self._waits_s[worker.number] = min(MAX_WAIT_S, 2 * max(wait_s, 0.25))
        self._start_at[worker.number] = now + wait_s
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        _log.error("worker %d %s. It is started again in %.1f s.", worker.number, how, wait_s)

    def _end_all(self) -> None:
        until = time.monotonic() + self._settings.drain_s + KILL_AFTER_S
        told = 0
        while any(worker.process.poll() is None for worker in self._workers.values()):
            asked = max(1, self._signals)
            if told < asked:
                told = asked
                self._send(signal.SIGTERM)
            if time.monotonic() > until:
                self._send(signal.SIGKILL)
            time.sleep(LOOK_S)
        for worker in self._workers.values():
            worker.line.close()

    def _send(self, sign: signal.Signals) -> None:
        for worker in self._workers.values():
            if worker.process.poll() is None:
                worker.process.send_signal(sign)

    @contextlib.contextmanager
    def _signals_caught(self) -> Iterator[None]:
        def catch(_: int, __: FrameType | None) -> None:
            self._signals += 1

        before = {sign: signal.signal(sign, catch) for sign in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)
