"""Look from outside at what replicas share, as `eccos status` does. Nothing is changed, and no replica is added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eccos_core.workload.shared.server import SharedServer, StateAway
from eccos_core.workload.shared.settings import SCHEMA, SharedSettings


@dataclass(frozen=True, slots=True)
class FleetLoad:
    """What the replicas of one pool hold now, by the clock of Redis.

    - `server`: the address of Redis, without credentials. `name`: the pool's name in it.
    - `replicas`: how many are alive. `waiting_replicas`: at how many of them requests wait for a slot.
    - `in_flight`: calls of each deployment. `open_circuits`: the deployments that get no calls now.
    - `problem`: why Redis does not answer. None while it does.
    """

    server: str
    name: str
    replicas: int = 0
    waiting_replicas: int = 0
    in_flight: Mapping[str, int] | None = None
    open_circuits: tuple[str, ...] = ()
    problem: str | None = None


def look_at_fleet(settings: SharedSettings) -> FleetLoad:
    """Ask Redis once. Raises `SharedStateError` for a Redis that refuses, or that serves another eccos."""
    server = SharedServer(settings)
    try:
        found = server.run("look.lua", "meta", {"schema": SCHEMA})
    except StateAway as error:
        return FleetLoad(settings.address, settings.name, problem=str(error))
    finally:
        server.close()
    return FleetLoad(
        settings.address,
        settings.name,
        int(found["replicas"]),
        int(found["waiting"]),
        {name: int(count) for name, count in sorted(found["in_flight"].items()) if count},
        tuple(sorted(filter(None, found["open"].split("\n")))),
    )
