"""`eccos keys create|list|revoke`: the virtual keys of `eccos serve`."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eccos_core.cli.options import resolve_config, split_names
from eccos_core.cli.output import JsonOption, console, print_json, table
from eccos_core.cli.route import PoolOption
from eccos_core.errors import InputError, did_you_mean
from eccos_core.io.optional import require_package

if TYPE_CHECKING:
    from eccos_core.config import Config
    from eccos_core.server.keys import KeyDatabase, KeyRules

_COLUMNS = ("key", "name", "status", "tenant", "spent", "budget", "left", "a minute", "expires (UTC)")
_DAYS = {"h": 1 / 24, "d": 1.0, "w": 7.0}

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What the key is for, such as `search` or `ana`.")]
KeyArgument = Annotated[str, typer.Argument(metavar="KEY_ID", help="The id of the key. `eccos keys list` shows it.")]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="DATABASE",
        envvar="ECCOS_KEYS_DATABASE",
        show_envvar=False,
        help="A SQLite file, or postgresql://.... Without it: `eccos.server.keys.database` of the YAML file.",
    ),
]
TenantOption = Annotated[str | None, typer.Option("--tenant", metavar="TENANT", help="The tenant of the key.")]
BudgetOption = Annotated[
    float | None, typer.Option("--usd-per-month", min=0, help="The budget of a calendar month (UTC).")
]
RequestsOption = Annotated[int | None, typer.Option("--requests-per-minute", min=1, help="Most requests a minute.")]
TokensOption = Annotated[int | None, typer.Option("--tokens-per-minute", min=1, help="Most tokens a minute.")]
ExpiresOption = Annotated[
    str | None, typer.Option("--expires", metavar="WHEN", help="After 12h, 90d or 8w, or on a date such as 2027-01-31.")
]
ModelsOption = Annotated[
    list[str] | None, typer.Option("--model", metavar="MODEL", help="A model that may answer. Repeat it for several.")
]
PoliciesOption = Annotated[
    list[str] | None, typer.Option("--policy", metavar="POLICY", help="A policy that may be asked for. Repeat it.")
]
AdminOption = Annotated[bool, typer.Option("--admin", help="Let the key manage keys over HTTP.")]

keys = typer.Typer(no_args_is_help=True, help="Manage the virtual keys of `eccos serve`.")


@keys.command("create")
def create_key(
    name: NameArgument,
    tenant: TenantOption = None,
    usd_per_month: BudgetOption = None,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    expires: ExpiresOption = None,
    model: ModelsOption = None,
    policy: PoliciesOption = None,
    admin: AdminOption = False,
    config: PoolOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Make a key and show it once. Nobody can read it again.

    The key works at once in a server that has keys. Restart a server that was started without any.

    Example: eccos keys create search --usd-per-month 50 --requests-per-minute 60

    Example: eccos keys create ops --admin
    """
    models, policies = split_names(model), split_names(policy)
    with _open(config, database) as (opened, loaded):
        from eccos_core.server.keys import KeyRules
        from eccos_core.server.keys.describe import describe_key

        rules = KeyRules(
            name,
            tenant,
            usd_per_month,
            requests_per_minute,
            tokens_per_minute,
            None if expires is None else _read_end(expires),
            frozenset(models) or None,
            frozenset(policies) or None,
            admin,
        )
        if loaded is not None:
            _check_names(rules, loaded)
        key, secret = opened.create(rules)
        described = describe_key(key, opened.now)
    if json:
        print_json({**described, "key": secret})
        return
    sys.stdout.write(secret + "\n")
    console().print(f"Key {key.id} ({name}) is made. Copy it now: it is not shown again.", soft_wrap=True)


@keys.command("list")
def list_keys(config: PoolOption = None, database: DatabaseOption = None, json: JsonOption = False) -> None:
    """Show all keys, with what each has spent this month. No secret is shown.

    Example: eccos keys list
    """
    with _open(config, database) as (opened, _):
        from eccos_core.server.keys.describe import describe_key

        balances, now = opened.balances(), opened.now
        found = [describe_key(key, now, balances) for key in opened.list_keys()]
    if json:
        print_json(found)
    elif found:
        rows = [_row(each) for each in found]
        console(sys.stdout).print(table("Keys", _COLUMNS, rows, numbers=("spent", "budget", "left")))
    else:
        console().print("There is no key. Make one with `eccos keys create NAME`.", soft_wrap=True)


@keys.command("revoke")
def revoke_key(
    key_id: KeyArgument, config: PoolOption = None, database: DatabaseOption = None, json: JsonOption = False
) -> None:
    """Revoke a key. It stops at once in every running server that uses the same database, and for good.

    Example: eccos keys revoke 3f9a1c2b7d4e
    """
    with _open(config, database) as (opened, _):
        from eccos_core.server.keys.describe import describe_key

        described = describe_key(opened.revoke(key_id), opened.now)
    if json:
        print_json(described)
    else:
        console(sys.stdout).print(f"{key_id}: revoked", soft_wrap=True)


@contextmanager
def _open(config: Path | None, database: str | None) -> Iterator[tuple[KeyDatabase, Config | None]]:
    """Open the database of keys, with the configuration if it names the place."""
    require_package("sqlalchemy", "server", "eccos keys")
    from eccos_core.config import load_config
    from eccos_core.server.keys import KeyDatabase
    from eccos_core.server.keys.build import find_database

    path = resolve_config(config) if database is None or config is not None else None
    loaded = None if path is None else load_config(path)
    place: str | Path | None = database
    if place is None:
        assert loaded is not None
        place = find_database(loaded.path, loaded.server)
    opened = KeyDatabase(place)
    try:
        yield opened, loaded
    finally:
        opened.close()


def _check_names(rules: KeyRules, loaded: Config) -> None:
    """Check the tenant, models and policies of a key against the configuration. Raises `InputError`."""
    from eccos_core.routing.named_policies import BUILT_IN

    models = {model.name for model in loaded.models} | {model.deployment for model in loaded.models}
    models |= {entry.name for entry in loaded.embeddings}
    budgets = set(loaded.server.keys.tenants) if loaded.server.keys is not None else set()
    for option, asked, known in (
        ("--model", rules.models or (), models),
        ("--policy", rules.policies or (), {*BUILT_IN, *loaded.policies}),
        # with rules for tenants, the router refuses others. Else any name is a tenant
        ("--tenant", [rules.tenant] if rules.tenant and loaded.tenants else (), {*loaded.tenants}),
        ("--tenant", [rules.tenant] if rules.tenant and budgets and not loaded.tenants else (), budgets),
    ):
        for name in asked:
            if name not in known:
                hint = did_you_mean(str(name), known) or "."
                raise InputError(f"{option} is {name!r}{hint} The configuration has: {', '.join(sorted(known))}")


def _read_end(text: str) -> float:
    after = re.fullmatch(r"(\d{1,6})\s*([hdw])", text.strip())
    if after:
        return time.time() + int(after[1]) * _DAYS[after[2]] * 86_400
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        rule = "a time from now such as 12h, 90d or 8w, or a date such as 2027-01-31"
        raise InputError(f"--expires is {text!r}, must be {rule}") from None
    at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if at <= time.time():
        raise InputError(f"--expires is {text!r}, which is over. Give a later time.")
    return at


def _row(key: dict[str, Any]) -> tuple[str, ...]:
    pace = [
        f"{key[field]:,} {kind}"
        for field, kind in (("requests_per_minute", "requests"), ("tokens_per_minute", "tokens"))
        if key[field]
    ]
    return (
        key["id"],
        key["name"] + (" (admin)" if key["is_admin"] else ""),
        key["status"],
        key["tenant"] or "-",
        f"{key['spent_usd']:.4f}",
        _usd(key["usd_per_month"]),
        _usd(key["left_usd"]),
        ", ".join(pace) or "-",
        (key["expires_at"] or "-")[:16].replace("T", " "),
    )


def _usd(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
