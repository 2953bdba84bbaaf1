"""A PostgreSQL server of Debian's package, on a port of loopback, for the tests of one session."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def find_programs() -> Path:
    """The folder of `initdb` and `postgres`. Skips the test where there is none, and fails it in CI."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        reason = "PostgreSQL is not installed (apt-get install postgresql)"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"{reason}. CI must not skip this test: .ci/run installs it.")
        pytest.skip(reason)
    return found[-1].parent


class PostgresServer:
    """A server with an empty database that can be stopped and started again. `auth` is how it lets users in."""

    def __init__(self, auth: str = "trust") -> None:
        self._programs = find_programs()
        self._folder = Path(tempfile.mkdtemp(prefix="eccos-pg-"))
        # the server refuses to run as root, so it runs as the user that Debian's package made
        self._as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._as_user:
            shutil.chown(self._folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._data = self._folder / "data"
        password = self._folder / "password"
        password.write_text("right-secret\n")
        password.chmod(0o644)
        make = [self._programs / "initdb", "-D", self._data, "-U", "eccos", f"--auth={auth}", "--encoding=UTF8"]
        make += ["--no-sync", f"--pwfile={password}"]
        subprocess.run([*self._as_user, *map(str, make)], check=True, capture_output=True, cwd=self._folder)
        self._server: subprocess.Popen[bytes] | None = None

    def address(self, password: str = "not-a-secret", user: str = "eccos") -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        serve = [self._programs / "postgres", "-D", self._data, "-h", "127.0.0.1", "-p", self.port]
        serve += ["-k", self._folder, "-c", "fsync=off"]
        self._server = subprocess.Popen(
            [*self._as_user, *map(str, serve)],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / "log").open("w"),
        )
        ready = [str(self._programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        for _ in range(300):
            if subprocess.run(ready, capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        pytest.fail(f"PostgreSQL did not start: {(self._folder / 'log').read_text()[-500:]}")

    def stop(self) -> None:
        """Stop the server at once, and cut off who is connected."""
        if self._server is None:
            return
        main = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(main, signal.SIGINT)  # PostgreSQL's fast shutdown. `runuser` would not pass it on.
        self._server.wait(30)
        self._server = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop all its processes for the length of the block (SIGSTOP). Connections stay open, and nothing answers."""
        main = (self._data / "postmaster.pid").read_text().split()[0]
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", main], capture_output=True, text=True).stdout
        processes = [int(each) for each in (main, *listed.split())]
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            assert self._server is not None
            for process in (*processes, self._server.pid):  # `runuser` stops itself along with its child
                os.kill(process, signal.SIGCONT)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def running_postgres(auth: str = "trust") -> Iterator[PostgresServer]:
    """Start a server, and stop it at the end."""
    pytest.importorskip("psycopg")
    server = PostgresServer(auth)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start a server with an empty database, and stop it at the end. Yields its address."""
    with running_postgres() as server:
        yield server.address()
