"""A PostgreSQL server of Debian's package, on a port of loopback, for the tests of one session."""

from __future__ import annotations

import os
import shutil
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


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start a server with an empty database, and stop it at the end. Yields its address."""
    pytest.importorskip("psycopg")
    programs = find_programs()
    folder = Path(tempfile.mkdtemp(prefix="eccos-pg-"))
    # the server refuses to run as root, so it runs as the user that Debian's package made
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    make = [programs / "initdb", "-D", data, "-U", "eccos", "--auth=trust", "--encoding=UTF8", "--no-sync"]
    subprocess.run([*as_user, *map(str, make)], check=True, capture_output=True, cwd=folder)
    serve = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", port, "-k", folder, "-c", "fsync=off"]
    server = subprocess.Popen(
        [*as_user, *map(str, serve)], cwd=folder, stdout=subprocess.DEVNULL, stderr=(folder / "log").open("w")
    )
    try:
        _wait(programs, port, folder)
        yield f"postgresql://eccos:not-a-secret@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(programs: Path, port: int, folder: Path) -> None:
    for _ in range(300):
        ready = subprocess.run([str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)], capture_output=True)
        if ready.returncode == 0:
            return
        time.sleep(0.1)
    pytest.fail(f"PostgreSQL did not start: {(folder / 'log').read_text()[-500:]}")
