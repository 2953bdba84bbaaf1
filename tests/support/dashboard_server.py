"""A server with a dashboard: a router with scripted models and a decision log, and callers with keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from eccos_core.decision_log import DecisionLog
from eccos_core.domain import Capability, Model, QualityFloor, Request
from eccos_core.errors import BackendError
from eccos_core.router import Router
from eccos_core.routing.decision_store import DecisionStore
from eccos_core.server.errors import ApiError
from eccos_core.server.gate import Caller, NoSpending, OpenGate, Spending
from eccos_core.testing import ScriptedBackend, scripted_router

PRICES = {"small": 1e-6, "large": 2e-5}
QUALITY = {"small": 0.6, "large": 0.9}
ADMIN, TENANT_A, TENANT_B = "admin-key", "key-of-a", "key-of-b"


@dataclass
class KeyedGate(OpenGate):
    """A gate that knows three keys: an admin's, and those of two tenants."""

    has_keys = True

    async def admit(self, headers: Mapping[str, str]) -> Caller:
        """See `Gate`."""
        callers = {
            ADMIN: Caller("k-admin", None, is_admin=True),
            TENANT_A: Caller("k-a", "a"),
            TENANT_B: Caller("k-b", "b"),
        }
        found = callers.get(headers.get("authorization", "").removeprefix("Bearer "))
        if found is None:
            raise ApiError("authentication", "this API key is not known here", code="invalid_api_key")
        return found

    async def reserve(self, caller: Caller, request: Request, usd_at_most: float) -> tuple[Request, Spending]:
        """See `Gate`."""
        return request, NoSpending()


@contextmanager
def logged_router(
    folder: Path,
    *,
    names: Sequence[str] = ("small", "large"),
    log_prompts: bool = False,
    with_log: bool = True,
    answers: Mapping[str, Sequence[str | BackendError]] | None = None,
) -> Iterator[Router]:
    """A router over two scripted models with a decision log in `folder`. "hard" questions go to the second model."""
    pool = tuple(
        Model(name, price, price, max_concurrency=8, capabilities=frozenset(Capability))
        for name, price in zip(names, PRICES.values(), strict=True)
    )
    backend = ScriptedBackend(answers or {name: [f"{name} says hello"] for name in names}, pool)
    table = {"": [0.8, 0.9], "hard": [0.2, 0.9]}
    scripted = scripted_router(backend, pool, table, policy=QualityFloor(0.5), usd_per_quality=1e-3)
    log = DecisionLog(folder / "decisions.sqlite", log_prompts=log_prompts) if with_log else None
    with Router.from_parts(replace(scripted.parts, decision_store=DecisionStore(log=log))) as router:
        yield router
        if log is not None:
            log.close()
