"""What a replica tells Redis of its slots, as JSON. `exchange.lua` reads it."""

from __future__ import annotations

from collections.abc import Collection

from eccos_core.domain import Completion
from eccos_core.errors import BackendError
from eccos_core.workload.circuit_breaker import BreakerSettings
from eccos_core.workload.load import WARM_UP_SLOTS, DeploymentLoad
from eccos_core.workload.shared.settings import KEEP_MS, SCHEMA, SharedSettings

SCRIPT = "exchange.lua"
PATIENCE_S = 0.2  # a request that waits so much longer than those of another replica comes first
LEAVE_S = 0.15  # how long a slot is left for it; after that it is clear that it cannot use the slot


def describe_loads(loads: Collection[DeploymentLoad], take: DeploymentLoad | None) -> dict[str, object]:
    """Return what this replica holds, and the deployment whose slot it wants. None for a heartbeat."""
    taken = {} if take is None else {"take": take.name}  # JSON's null would count as true in Lua
    return {
        **taken,
        "schema": SCHEMA,
        "full": take is None,
        "deployments": [load.name for load in loads],
        "counts": {load.name: load.in_flight for load in loads},
        "probing": {load.name: True for load in loads if load.is_probing},
        "limits": {load.name: _describe_limits(load) for load in loads if load.is_limited or load is take},
    }


def describe_settings(settings: SharedSettings, breaker: BreakerSettings) -> dict[str, float]:
    """Return the rules that the script follows. Times are in milliseconds."""
    return {
        "lease_ms": 1000 * settings.lease_s,
        "grace_ms": 2500 * settings.heartbeat_s,
        "pause_ms": 2000 * settings.heartbeat_s,
        "keep_ms": KEEP_MS,
        "patience_ms": 1000 * PATIENCE_S,
        "leave_ms": 1000 * LEAVE_S,
        "failures": breaker.failures,
        "error_rate": breaker.error_rate,
        "open_ms": 1000 * breaker.open_s,
        "longest_open_ms": 1000 * breaker.longest_open_s,
        "warm_up_ms": max(1.0, 1000 * breaker.warm_up_s),
        "warm_up_slots": WARM_UP_SLOTS,
    }


def describe_call(completion: Completion | None, error: Exception | None) -> tuple[int, int, float] | None:
    """Return (1 if it went well, tokens, ms to wait). None for a failure that says nothing of the model."""
    if error is not None:
        if isinstance(error, BackendError) and not error.kind.blames_model:
            return None
        return 0, 0, 1000 * (getattr(error, "retry_after_s", None) or 0.0)
    return None if completion is None else (1, completion.input_tokens + completion.output_tokens, 0.0)


def _describe_limits(load: DeploymentLoad) -> dict[str, int]:
    limits = {"cap": load.cap, "rpm": load.rpm, "tpm": load.tpm}
    return {name: limit for name, limit in limits.items() if limit is not None}
