"""The section `eccos.server`: where `eccos serve` listens, and what its keys may spend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainValidator, SecretStr, ValidationInfo

from eccos_core.config.database_address import read_database
from eccos_core.config.section_model import NotNegative, Positive, SectionModel, Text, problem

DEFAULT_KEYS = ".eccos/keys.sqlite"
_PLACE = "eccos.server.keys"


def _read_database(value: Any, info: ValidationInfo) -> SecretStr:
    """Fill in `os.environ/NAME`, and make a file's path absolute. The result never shows its value."""
    return read_database(value, info, _PLACE, DEFAULT_KEYS)


class TenantBudgetConfig(SectionModel):
    """What all keys of one tenant may spend together."""

    usd_per_month: NotNegative | None = Field(
        default=None, description="Most USD of a calendar month (UTC). Left out, only the keys have budgets."
    )


class KeysConfig(SectionModel):
    """The virtual keys of the server. A section that is written is on: no request passes without a key."""

    database: Annotated[SecretStr, PlainValidator(_read_database, json_schema_input_type=str)] = Field(
        default=SecretStr(DEFAULT_KEYS),
        validate_default=True,
        description="Where keys and budgets are kept: a SQLite file for one process, or `postgresql://user@host/name` "
        "for several. With a password write `os.environ/NAME`.",
        json_schema_extra={"default": DEFAULT_KEYS},
    )
    near_limit: Literal["step_down", "refuse"] = Field(
        default="step_down",
        description="What happens to a request that the budget cannot pay. `step_down` asks only models that it can "
        "still pay, under the policy `cheap`. `refuse` answers 402.",
    )
    wrong_keys_per_minute: Annotated[int, Field(ge=1, strict=True)] = Field(
        default=30,
        description="How many wrong keys one client address may send in a minute. More of them get 429. Right keys "
        "from the same address pass.",
    )
    tenants: dict[str, TenantBudgetConfig] = Field(
        default_factory=dict, description="Budgets of tenants, by the tenant's name. All keys of a tenant share one."
    )

    def budgets(self) -> Mapping[str, float | None]:
        """Return the budget of each tenant in USD a month."""
        return {name: tenant.usd_per_month for name, tenant in self.tenants.items()}


def _read_origins(value: Any) -> Any:
    if isinstance(value, list | tuple):
        for each in value:
            parts = urlsplit(each) if isinstance(each, str) else None
            if parts is None or parts.scheme not in {"http", "https"} or not parts.netloc or parts.path:
                raise problem(f"has {each!r}, must be web addresses such as https://app.example, and no *")
    return value


class ServerConfig(SectionModel):
    """Where `eccos serve` listens, what it refuses, and its keys. Options of the command win."""

    host: Text = Field(default="127.0.0.1", description="The address to listen on. Others than 127.0.0.1 need `keys`.")
    port: Annotated[int, Field(ge=0, le=65535, strict=True)] = Field(
        default=8484, description="The port. 0 takes a free one."
    )
    max_body_mb: Positive = Field(default=20.0, description="The largest request body, in megabytes.")
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_read_origins)] = Field(
        default=(), description="Web pages that may call the server, such as `https://app.example`. None by default."
    )
    keys: KeysConfig | None = Field(
        default=None, description="Virtual keys with budgets and rate limits. A section that is written is on."
    )
