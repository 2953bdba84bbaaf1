"""What `eccos serve` listens on, and what it refuses."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from eccos_core.errors import InputError

_LIMITS = (
    "max_body_bytes", "max_header_bytes", "read_timeout_s", "drain_s", "max_file_bytes", "max_files",
    "max_queued_requests",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Address and limits of the server.

    - `host`, `port`: where it listens. Port 0 takes a free one.
    - `max_body_bytes`: the largest request body. A larger one is refused before it is read whole.
    - `max_header_bytes`: all headers of a request together.
    - `read_timeout_s`: how long a client may take to send its request. Large bodies get more time, at 50 kB/s.
    - `drain_s`: how long running requests may go on after SIGTERM.
    - `files_dir`: the folder of `/v1/files` and `/v1/batches`. None: a folder for this run only.
    - `max_file_bytes`, `max_files`: the largest file, and how many files one key may keep.
    - `max_queued_requests`: how many requests the unfinished batches of one key may have together. Each process counts
      its own batches.
    - `worker`: the number of this process where several serve one port. The metrics tell it.
    - `cors_origins`: web pages that may call the server. None by default.

    Raises `InputError` for a limit that is not above 0.
    """

    host: str = "127.0.0.1"
    port: int = 8484
    max_body_bytes: int = 20_000_000
    max_header_bytes: int = 65_536
    read_timeout_s: float = 30.0
    drain_s: float = 30.0
    files_dir: Path | None = None
    max_file_bytes: int = 200_000_000
    max_files: int = 1_000
    max_queued_requests: int = 100_000
    cors_origins: tuple[str, ...] = field(default=())
    worker: int | None = None

    def __post_init__(self) -> None:
        for name in _LIMITS:
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}, must be more than 0")
        if not 0 <= self.port < 65536:
            raise InputError(f"port is {self.port}, must be from 0 to 65535")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def check_open(settings: ServerSettings, *, has_keys: bool) -> None:
    """Raise `InputError` for a server that anybody on the network could use, because no key exists."""
    if has_keys or settings.is_local:
        return
    raise InputError(
        f"host is {settings.host!r}, and no key exists. Without keys eccos serves this machine only, at 127.0.0.1. "
        "Create a key with `eccos keys create`, or leave --host out."
    )
