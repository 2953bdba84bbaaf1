"""The section `eccos.workload.shared`: the Redis through which several replicas keep limits together."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainValidator, SecretStr, ValidationInfo

from eccos_core.config.context import ParseContext
from eccos_core.config.environment import PREFIX
from eccos_core.config.section_model import Positive, SectionModel, problem

_PLACE = "eccos.workload.shared"
_SCHEMES = ("redis", "rediss", "unix")
_RULE = "redis://host:port/0, rediss:// for TLS, or unix:///path. A password belongs into os.environ/NAME"


def _read_address(value: Any, info: ValidationInfo) -> SecretStr:
    """Fill in `os.environ/NAME`. The result never shows its value."""
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str) or not value.strip():
        raise problem(f"must be {_RULE}")
    text, from_variable = value.strip(), False
    context: ParseContext | None = info.context
    if context is not None and text.startswith(PREFIX):
        filled, _ = context.environment.fill({"url": text}, _PLACE, context.problems)
        # an unset variable goes straight to the list of problems, as it does in model_list
        text, from_variable = str(filled["url"] or "redis://unset"), True
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in _SCHEMES and bool(parts.path if parts.scheme == "unix" else parts.hostname)
        is_address = is_address and (parts.port or 1) > 0
    except ValueError:
        is_address, parts = False, urlsplit("")
    if not is_address:
        raise problem(f"is not the address of a Redis, must be {_RULE}")
    if not from_variable and (parts.password or "password=" in parts.query):
        raise problem("holds a password. Put the address into an environment variable, and write os.environ/NAME")
    return SecretStr(text)


class SharedConfig(SectionModel):
    """The Redis or Valkey through which replicas share slots, rates and circuit breakers."""

    url: Annotated[SecretStr, PlainValidator(_read_address, json_schema_input_type=str)] = Field(
        description="The address: `redis://host:port/0`, `rediss://` for TLS, or `unix:///path`. With a password write "
        "`os.environ/NAME`.",
    )
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$", strict=True)] = Field(
        default="default",
        description="The name of the pool in Redis. Its keys begin with `eccos:{name}`. Replicas of one name share "
        "their limits.",
        json_schema_extra={"patternErrorMessage": "1 to 100 letters, digits, dots, dashes or underscores"},
    )
    when_away: Literal["fail_closed", "local_share"] = Field(
        default="fail_closed",
        description="What a replica does while Redis is away. `fail_closed` sends nothing to models with a cap or a "
        "rate, so requests wait. `local_share` goes on with its part of each limit.",
    )
    lease_s: Annotated[Positive, Field(ge=0.5, le=300)] = Field(
        default=5.0, description="How long the slots of a killed replica stay taken, in seconds."
    )
    timeout_s: Annotated[Positive, Field(le=10)] = Field(
        default=0.5, description="Longest wait for an answer of Redis, in seconds."
    )


SharedField: TypeAlias = Annotated[
    SharedConfig,
    BeforeValidator(
        lambda value: {"url": value} if isinstance(value, str) else value, json_schema_input_type=str | SharedConfig
    ),
]
