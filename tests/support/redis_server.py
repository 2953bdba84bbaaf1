"""A Redis of Debian's package, on a port of loopback, for tests that start, stop and pause it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

PASSWORD = "not-a-secret"


def find_redis(program: str | None = None) -> str:
    """The path of a server: `redis-server` or `valkey-server`. Skips the test where it is not, and fails it in CI.

    `ECCOS_TEST_REDIS=valkey-server` runs the tests that name none with Valkey. Debian 12 has Valkey in its backports
    only. So CI, which installs it from there, fails without it only where that has worked (`ECCOS_CI_VALKEY`).
    """
    named = program or os.environ.get("ECCOS_TEST_REDIS")
    found = shutil.which(named) if named else shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        program = named or "redis-server"
        reason = f"{program} is not installed (apt-get install {program})"
        must_be_there = "CI" if program == "redis-server" else "ECCOS_CI_VALKEY"
        if os.environ.get(must_be_there, "").lower() == "true":
            pytest.fail(f"{reason}. CI must not skip this test: .ci/run installs it.")
        pytest.skip(reason)
    return found


class RedisServer:
    """One server with a password. It keeps its state over a restart where `keeps_state` is true.

    `program` is `redis-server` or `valkey-server`. `options`: more of its options.
    """

    def __init__(
        self, folder: Path, *, program: str | None = None, keeps_state: bool = False, options: Sequence[str] = ()
    ) -> None:
        pytest.importorskip("redis")
        self._program, self._folder = find_redis(program), folder
        self._keeps_state, self._options = keeps_state, options
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        keep = ["--appendonly", "yes", "--appendfsync", "always"] if self._keeps_state else ["--appendonly", "no"]
        self._process = subprocess.Popen(
            [
                *(self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)),
                *("--save", "", "--requirepass", PASSWORD, *keep, *self._options),
            ],
            stdout=(self._folder / "redis.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        for _ in range(200):
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    connection.sendall(f"AUTH {PASSWORD}\r\nPING\r\nQUIT\r\n".encode())
                    if b"+PONG" in b"".join(iter(lambda: connection.recv(100), b"")):
                        return
            except OSError:
                pass
            time.sleep(0.05)
        pytest.fail(f"Redis did not start: {(self._folder / 'redis.log').read_text()[-500:]}")

    def kill(self) -> None:
        """Kill it at once. Without `keeps_state` everything is lost."""
        self._process.kill()
        self._process.wait(10)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop it for the length of the block (SIGSTOP). Connections stay open, and nothing answers."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def redis_server(program: str | None = None, *, keeps_state: bool = False) -> Iterator[RedisServer]:
    """Start a server, and kill it at the end. `program`: as for `RedisServer`."""
    with tempfile.TemporaryDirectory(prefix="eccos-redis-") as folder:
        server = RedisServer(Path(folder), program=program, keeps_state=keeps_state)
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def tls_redis_server() -> Iterator[tuple[str, Path, Path]]:
    """Start a server with TLS. Yields its address, the certificate that it is to be trusted by, and another one."""
    with tempfile.TemporaryDirectory(prefix="eccos-redis-") as name:
        folder = Path(name)
        certificate, key = make_certificate(folder, "server")
        other, _ = make_certificate(folder, "other")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        files = ["--tls-cert-file", certificate, "--tls-ca-cert-file", certificate, "--tls-key-file", key]
        options = ["--tls-port", str(port), "--tls-auth-clients", "no", *map(str, files)]
        server = RedisServer(folder, options=options)
        try:
            yield f"rediss://:{PASSWORD}@127.0.0.1:{port}/0", certificate, other
        finally:
            server.kill()


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a certificate of 127.0.0.1 that signs itself. Returns its file, and that of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / f"{name}.pem", folder / f"{name}.key"
    public.write_bytes(certificate.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return public, private
