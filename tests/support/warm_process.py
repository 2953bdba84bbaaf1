"""Python processes that start at once, because they are forks of one that has imported what takes long.

`eccos serve` imports LiteLLM, which takes some seconds of processor time. Tests that start many such processes use a
`WarmProcess` in place of `subprocess.Popen`. It is a fork of Python's fork server, with imports done and nothing else.
A test of what a start itself does (imports, flags of Python, packages that are missing) uses `subprocess`.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
IMPORTED = ["eccos_core.cli", "eccos_core.server.app", "eccos_core.assembly", "litellm", "uvicorn", "redis", "psycopg"]
_STANDARD = ("stdin", "stdout", "stderr")
Target = int | IO[Any] | None


class WarmProcess:
    """As `subprocess.Popen([sys.executable, *arguments])`: `-c CODE`, `-m MODULE` or a script, with its arguments."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Target = None,
        stdout: Target = None,
        stderr: Target = None,
    ) -> None:
        _start_fork_server()
        self.returncode: int | None = None
        self.stdin: IO[Any] | None = None
        self.stdout: IO[Any] | None = None
        self.stderr: IO[Any] | None = None
        theirs: list[int] = []  # the ends of pipes that the child has
        given: list[_Descriptor] = []
        for number, (name, target) in enumerate(zip(_STANDARD, (stdin, stdout, stderr), strict=True)):
            if target == subprocess.PIPE:
                read, write = os.pipe()
                mine, descriptor = (write, read) if number == 0 else (read, write)
                setattr(self, name, os.fdopen(mine, "w" if number == 0 else "r"))
                theirs.append(descriptor)
            elif target == subprocess.STDOUT:
                descriptor = given[1].number
            else:
                descriptor = number if target is None else target if isinstance(target, int) else target.fileno()
            given.append(_Descriptor(descriptor))
        self._process = multiprocessing.get_context("forkserver").Process(
            target=_run, args=(list(map(str, arguments)), str(cwd or Path.cwd()), dict(env or os.environ), given)
        )
        self._process.start()
        for descriptor in theirs:
            os.close(descriptor)
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        if (status := self.poll()) is None:
            raise subprocess.TimeoutExpired("a warm process", timeout or 0.0)
        return status

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Close its stdin, wait for its end, and return what it wrote. Kills it after `timeout` seconds."""
        if self.stdin is not None:
            self.stdin.close()
        wrote = ["", ""]

        def read(number: int, file: IO[Any]) -> None:
            wrote[number] = file.read()

        files = [(number, file) for number, file in enumerate((self.stdout, self.stderr)) if file is not None]
        readers = [threading.Thread(target=read, args=each, daemon=True) for each in files]
        for reader in readers:
            reader.start()
        ends_at = time.monotonic() + (timeout if timeout is not None else 3600.0)
        try:
            self.wait(max(0.0, ends_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            self.wait(10)
            raise
        for reader in readers:
            reader.join(10)
        return wrote[0], wrote[1]

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill -9."""
        self.send_signal(signal.SIGKILL)


def run_warm(
    arguments: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120.0,
    check: bool = False,
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run([sys.executable, *arguments], capture_output=True, text=True)`."""
    process = WarmProcess(arguments, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout)
    done = subprocess.CompletedProcess([sys.executable, *arguments], process.wait(), out, err)
    if check:
        done.check_returncode()
    return done


class _Descriptor:
    """A file descriptor that goes to the child together with its arguments."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return _received, (DupFd(self.number),)


def _received(duplicate: Any) -> int:
    return int(duplicate.detach())


def _start_fork_server() -> None:
    """Start it, once for each worker of pytest, with this folder's eccos and none of a test's settings."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(IMPORTED)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _run(arguments: list[str], folder: str, environment: dict[str, str], descriptors: list[int]) -> None:
    """Become the process that was asked for. The fork server calls it in a fork."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    for descriptor in set(descriptors):
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    try:
        _become(arguments)
    finally:
        # `multiprocessing` leaves both out, or does them in another order than Python
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()


def _become(arguments: list[str]) -> None:
    kind, *rest = arguments
    sys.path[0:0] = ["" if kind in ("-c", "-m") else str(Path(kind).parent)]
    if kind == "-c":
        code, *more = rest
        sys.argv = ["-c", *more]
        names = sys.modules["__main__"].__dict__
        names["__name__"] = "__main__"
        exec(compile(code, "<string>", "exec"), names)
    elif kind == "-m":
        module, *more = rest
        sys.argv = [module, *more]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")
