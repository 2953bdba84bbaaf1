"""What replicas agree on: the address of the Redis, the name of the pool, and how long a lease lasts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

WhenAway: TypeAlias = Literal["fail_closed", "local_share"]
SCHEMA = "2"  # of the keys in Redis. Replicas of another schema never mix.
KEEP_MS = 86_400_000  # keys that nobody uses for a day are forgotten


@dataclass(frozen=True, slots=True)
class SharedSettings:
    """The Redis that replicas share.

    - `url`: `redis://`, `rediss://` (TLS) or `unix://`. It may hold a password, so it is never shown.
    - `name`: what the keys begin with, `eccos:{name}`. Pools with one name share their limits.
    - `when_away`: what a replica does without Redis. `fail_closed` sends nothing to models with a cap or a rate.
      `local_share` goes on with this replica's part of each limit.
    - `lease_s`: how long the slots of a replica outlive its last sign of life. It gives one
      every second, or every fifth of the lease.
    - `timeout_s`: longest wait for an answer of Redis.
    """

    url: str = field(repr=False)
    name: str = "default"
    when_away: WhenAway = "fail_closed"
    lease_s: float = 5.0
    timeout_s: float = 0.5

    @property
    def prefix(self) -> str:
        """What every key begins with. The braces keep all keys in one slot of a Redis Cluster."""
        return f"eccos:{{{self.name}}}"

    @property
    def heartbeat_s(self) -> float:
        """How often a replica gives a sign of life, in seconds."""
        return min(1.0, self.lease_s / 5)

    @property
    def address(self) -> str:
        """The address without user, password and options. Use this one in messages."""
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return f"unix://{parts.path}"
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
