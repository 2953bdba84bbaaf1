"""Keys and balances as JSON, for the command line and the admin endpoints. Neither secret nor hash is in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from eccos_core.server.keys.key import VirtualKey
from eccos_core.server.keys.ledger import Balance
from eccos_core.server.keys.money import limit_nano, to_usd


def key_status(key: VirtualKey, now: float) -> str:
    """Return `active`, `revoked` or `expired`."""
    if key.revoked_at is not None:
        return "revoked"
    expires_at = key.rules.expires_at
    return "expired" if expires_at is not None and expires_at <= now else "active"


def describe_key(key: VirtualKey, now: float, balances: Sequence[Balance] = ()) -> dict[str, Any]:
    """Return a key as JSON, with what it has spent this month."""
    rules = key.rules
    account = next((each for each in balances if (each.scope, each.name) == ("key", key.id)), None)
    return {
        "id": key.id,
        "name": rules.name,
        "status": key_status(key, now),
        "tenant": rules.tenant,
        "is_admin": rules.is_admin,
        "usd_per_month": rules.usd_per_month,
        "requests_per_minute": rules.requests_per_minute,
        "tokens_per_minute": rules.tokens_per_minute,
        "models": None if rules.models is None else sorted(rules.models),
        "policies": None if rules.policies is None else sorted(rules.policies),
        "expires_at": when(rules.expires_at),
        "created_at": when(key.created_at),
        "revoked_at": when(key.revoked_at),
        **describe_account(account, rules.usd_per_month),
    }


def describe_tenants(budgets: Mapping[str, float | None], balances: Sequence[Balance]) -> list[dict[str, Any]]:
    """Return the accounts of all tenants, those with a budget and those that have spent something."""
    found = {each.name: each for each in balances if each.scope == "tenant"}
    return [
        {"tenant": name, "usd_per_month": budgets.get(name), **describe_account(found.get(name), budgets.get(name))}
        for name in sorted(found.keys() | budgets.keys())
    ]


def describe_account(account: Balance | None, usd_per_month: float | None) -> dict[str, Any]:
    """Return what an account has spent, has reserved, and has left. None is left where there is no budget."""
    spent, reserved = (0, 0) if account is None else (account.spent, account.reserved)
    limit = limit_nano(usd_per_month)
    left = None if limit is None else to_usd(max(0, limit - spent - reserved))
    return {"spent_usd": to_usd(spent), "reserved_usd": to_usd(reserved), "left_usd": left}


def when(at: float | None) -> str | None:
    """Return a time as text (UTC)."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
