"""Who may call, and what they may spend. The gate of a server without keys lets everybody in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from eccos_core.domain import Request
from eccos_core.server.errors import ApiError


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    `key_id` names the key, never the key itself. `tenant` is whose rules hold. `is_admin` may use admin endpoints.
    `is_paced`: a request of a batch, which has waited for its rate limits (`Gate.pace`) and is not counted again.
    """

    key_id: str = "open"
    tenant: str | None = None
    is_admin: bool = False
    is_paced: bool = False


class Spending(Protocol):
    """Money that is set aside for one request. Settle it exactly once. Settling again changes nothing."""

    async def settle(self, cost_usd: float | None, tokens: int = 0) -> None:
        """Say what the request really cost in USD, and how many tokens its answer has.

        0 USD gives all of it back. None means that nobody knows, so what was set aside counts.
        """
        ...


@dataclass(slots=True)
class Bill:
    """What a call has cost, and how many tokens its answer has. None USD: nobody knows yet. Set `has_begun` when a
    part of the answer was there: then even a call that fails costs something."""

    cost_usd: float | None = None
    tokens: int = 0
    has_begun: bool = False


@asynccontextmanager
async def settled(spending: Spending) -> AsyncGenerator[Bill, None]:
    """Settle what was set aside for a call, at what its bill says in the end.

    A call that fails before its answer began costs nothing. For one that its caller leaves, and for one that breaks in
    the middle, what was set aside counts, as the provider may charge for it.
    """
    bill = Bill()
    try:
        yield bill
    except Exception:
        if bill.cost_usd is None and not bill.has_begun:
            bill.cost_usd = 0.0
        raise
    finally:
        await spending.settle(bill.cost_usd, bill.tokens)


class Gate(Protocol):
    """Knows callers and their budgets. Safe to use from several tasks."""

    @property
    def has_keys(self) -> bool:
        """Whether callers need a key."""
        ...

    async def admit(self, headers: Mapping[str, str]) -> Caller:
        """Return who is calling. Header names are lower case. Raises `ApiError` for a missing, wrong or revoked key,
        and for a caller over its rate limit."""
        ...

    async def reserve(self, caller: Caller, request: Request, usd_at_most: float) -> tuple[Request, Spending]:
        """Set money aside before a call. Returns the request as the budget lets it pass, perhaps with a cheaper policy.

        Raises `ApiError` when a budget is spent.
        """
        ...

    async def reserve_tokens(self, caller: Caller, model: str, tokens: int, usd_at_most: float) -> Spending:
        """Set money aside for a call of a model outside the pool that reads `tokens`, such as one that embeds.

        Raises `ApiError` as `reserve` does. Nothing steps down, because no other model gives the same vectors.
        """
        ...

    async def reserve_batch(self, caller: Caller, batch_id: str, usd_at_most: float) -> Spending:
        """Set money aside for the rows of a batch that wait at a provider, perhaps for a day.

        After a restart the same batch finds what was set aside for it. Raises `ApiError` as `reserve` does.
        """
        ...

    async def narrow(self, caller: Caller, requests: Sequence[Request]) -> list[Request | ApiError]:
        """Return the requests with the models that the caller may use. An error takes the place of a refused one."""
        ...

    async def pace(self, caller: Caller, tokens: int) -> None:
        """Wait until a request of a batch keeps to the caller's rate limits, and count it. Raises `ApiError`."""
        ...

    def count_wrong_key(self, headers: Mapping[str, str], address: str) -> None:
        """Count a request that `admit` refused as unauthenticated. Raises `ApiError` 429 when an address sends many."""
        ...

    def close(self) -> None:
        """End what the gate holds open. Call it when the server has ended."""
        ...


class NoSpending:
    """The `Spending` of a caller without a budget."""

    async def settle(self, cost_usd: float | None, tokens: int = 0) -> None:
        """See `Spending`."""


class OpenGate:
    """The `Gate` of a server without keys. The one who runs it is the only caller."""

    has_keys = False

    async def admit(self, headers: Mapping[str, str]) -> Caller:
        """See `Gate`."""
        return Caller(is_admin=True)

    async def reserve(self, caller: Caller, request: Request, usd_at_most: float) -> tuple[Request, Spending]:
        """See `Gate`."""
        return request, NoSpending()

    async def reserve_tokens(self, caller: Caller, model: str, tokens: int, usd_at_most: float) -> Spending:
        """See `Gate`."""
        return NoSpending()

    async def reserve_batch(self, caller: Caller, batch_id: str, usd_at_most: float) -> Spending:
        """See `Gate`."""
        return NoSpending()

    async def narrow(self, caller: Caller, requests: Sequence[Request]) -> list[Request | ApiError]:
        """See `Gate`."""
        return list(requests)

    async def pace(self, caller: Caller, tokens: int) -> None:
        """See `Gate`."""

    def count_wrong_key(self, headers: Mapping[str, str], address: str) -> None:
        """See `Gate`."""

    def close(self) -> None:
        """See `Gate`."""
