"""Builds the gate of a server from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from eccos_core.config import DEFAULT_KEYS, KeysConfig, ServerConfig
from eccos_core.domain import Request
from eccos_core.errors import RequestError
from eccos_core.io.tokens import count_tokens
from eccos_core.pocket import pool_config_path
from eccos_core.router import Router
from eccos_core.routing.eligibility import find_exclusion, needs_of
from eccos_core.routing.pricing import worst_usd
from eccos_core.server.gate import Gate, OpenGate
from eccos_core.server.keys.database import KeyDatabase
from eccos_core.server.keys.gate import KeyGate, NearLimit
from eccos_core.server.keys.tables import read_address


def find_database(config: Path, server: ServerConfig) -> str | Path:
    """Return where the keys of a configuration file are kept.

    A file without a section `keys` has its keys in `.eccos/keys.sqlite` beside it. Those of the bundled pocket pool
    are in the current folder.
    """
    if server.keys is not None:
        return server.keys.database.get_secret_value()
    bundled = config.resolve() == pool_config_path().resolve()
    return (Path.cwd() if bundled else config.resolve().parent) / DEFAULT_KEYS


def has_keys(config: Path, server: ServerConfig) -> bool:
    """Say whether a server of this configuration wants a key. It does where the section `keys` is written, or the usual
    database of keys exists."""
    address = read_address(find_database(config, server))
    return server.keys is not None or not isinstance(address, Path) or address.exists()


def open_gate(router: Router, config: Path, server: ServerConfig) -> Gate:
    """Return the gate of a server. Call `close` of a `KeyGate` at the end.

    Keys are on when the section `keys` is written, or when its usual database exists. So a server whose last key is
    revoked stays closed.
    """
    database = find_database(config, server)
    if not has_keys(config, server):
        return OpenGate()
    keys = server.keys or KeysConfig()
    return KeyGate(
        KeyDatabase(database),
        lambda request: usd_of_models(router, request),
        has_own_policy=lambda request: has_own_policy(router, request),
        near_limit=keys.near_limit,
        tenants=keys.budgets(),
        wrong_keys_per_minute=keys.wrong_keys_per_minute,
    )


def with_options(server: ServerConfig, database: str | None, near_limit: NearLimit | None) -> ServerConfig:
    """Return the configuration with what the command line says in its place. None leaves it as it is."""
    changes: dict[str, object] = {}
    if database is not None:
        changes["database"] = SecretStr(database)
    if near_limit is not None:
        changes["near_limit"] = near_limit
    if not changes:
        return server
    return server.model_copy(update={"keys": (server.keys or KeysConfig()).model_copy(update=changes)})


def usd_of_models(router: Router, request: Request) -> Mapping[str, float]:
    """Return the most that a request is likely to cost with each model that may answer it, in USD."""
    try:
        request = router.parts.tenants.narrow(request)
    except RequestError:  # the router tells the caller what is wrong
        return {}
    tokens, needs = count_tokens(request.messages), needs_of(request)
    planner = router.parts.planner
    calls = 1 if planner is None else planner.rule.max_calls
    may = [model for model in router.models if find_exclusion(request, model, tokens, needs) is None]
    return {model.name: worst_usd(model, request, tokens) * calls for model in may}


def has_own_policy(router: Router, request: Request) -> bool:
    """Say whether the tenant of a request has a policy of its own."""
    try:
        return router.parts.tenants.policy_of(request) is not None
    except RequestError:
        return True
