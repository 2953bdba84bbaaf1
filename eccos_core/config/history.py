"""The history: one class of config for each kind of store, and the short form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, PlainValidator, ValidationInfo, field_validator

from eccos_core.config.context import ParseContext
from eccos_core.config.redacted import RedactedMapping
from eccos_core.config.section_model import (
    ConfigPath,
    SectionModel,
    Text,
    problem,
    problems_at,
    read_mapping,
    unknown_key,
)
from eccos_core.config.yaml import describe_yaml

HISTORY_PLACES = ("path", "url", "outcomes")
DEFAULT_HISTORY = ".eccos/history"
_COLLECTION = r"^[A-Za-z0-9][A-Za-z0-9._-]{1,510}[A-Za-z0-9]$"

Collection: TypeAlias = Annotated[
    str,
    Field(
        pattern=_COLLECTION,
        json_schema_extra={"patternErrorMessage": "3 to 512 letters, digits, dots, dashes or underscores"},
    ),
]


class ChromaPersistentConfig(SectionModel):
    """A Chroma store in a folder. This is the default."""

    path: ConfigPath = Field(description="The folder of the store.")
    collection: Collection = Field(default="eccos", description="The name of the collection in the store.")


def _parse_headers(value: Any, info: ValidationInfo) -> RedactedMapping:
    """Fill in `os.environ/NAME`. The result never shows its values."""
    if isinstance(value, RedactedMapping):
        return value
    mapping = read_mapping(value)
    if mapping is None:
        raise problem(f"is {describe_yaml(value)}, must be a mapping")
    context: ParseContext | None = info.context
    hidden: Mapping[str, str] = {}
    if context is not None:
        # an unset variable goes straight to the list of problems, as it does in model_list
        mapping, hidden = context.environment.fill(mapping, "eccos.history.headers", context.problems)
    found = [
        ((name,), f"is {describe_yaml(item)}, must be text")
        for name, item in mapping.items()
        if item is not None and not isinstance(item, str)
    ]
    if found:
        raise problems_at(found)
    return RedactedMapping(mapping, frozenset(hidden))


class ChromaServerConfig(SectionModel):
    """A Chroma server."""

    url: Text = Field(description="The address, `http://host:port` or `https://host:port`. A password is refused here.")
    collection: Collection = Field(default="eccos", description="The name of the collection on the server.")
    headers: Annotated[Mapping[str, str], PlainValidator(_parse_headers, json_schema_input_type=dict[str, str])] = (
        Field(
            default_factory=lambda: RedactedMapping({}),
            description="HTTP headers with the credentials of the server. Write `os.environ/NAME`.",
        )
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            plain = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            plain, parts = False, urlsplit("")
        if not plain or parts.username or parts.password or parts.query:
            rule = "http://host:port or https://host:port; credentials belong under headers, as os.environ/NAME"
            raise problem(f"is not the address of a server, must be {rule}")
        return url


class InMemoryConfig(SectionModel):
    """A history that is gone when the process ends."""

    model_config = ConfigDict(json_schema_extra={"required": ["outcomes"]})

    outcomes: ConfigPath | None = Field(default=None, description="The outcomes file that the history begins with.")


HistoryConfig: TypeAlias = ChromaPersistentConfig | ChromaServerConfig | InMemoryConfig
_HISTORY_CLASSES: Mapping[str, type[ChromaPersistentConfig | ChromaServerConfig | InMemoryConfig]] = {
    "path": ChromaPersistentConfig,
    "url": ChromaServerConfig,
    "outcomes": InMemoryConfig,
}


def parse_history(value: Any, info: ValidationInfo) -> HistoryConfig:
    """Parse `in_memory`, or a mapping with a `path`, a `url` or `outcomes`."""
    if isinstance(value, SectionModel):
        return cast(HistoryConfig, type(value).model_validate(value, context=info.context))
    if value == "in_memory":
        return InMemoryConfig()
    mapping = read_mapping(value)
    if mapping is None:
        raise problem(f"is {describe_yaml(value)}, must be in_memory, or a mapping with a path, a url or outcomes")
    given = [key for key in HISTORY_PLACES if key in mapping]
    if len(given) == 1:
        if given != ["url"] and "headers" in mapping:
            raise problems_at([(("headers",), "are sent to a server only; leave them out, or give a url")])
        return _HISTORY_CLASSES[given[0]].model_validate(mapping, context=info.context)
    start = f"has {' and '.join(given)}" if given else "names no place"
    known = [*HISTORY_PLACES, "collection", "headers"]
    found = [((key,), unknown_key(key, known)) for key in mapping if key not in known]
    raise problems_at([*found, ((), f"{start}; give exactly one of {', '.join(HISTORY_PLACES)}")])


HistoryField: TypeAlias = Annotated[
    HistoryConfig,
    PlainValidator(
        parse_history,
        json_schema_input_type=Literal["in_memory"] | ChromaPersistentConfig | ChromaServerConfig | InMemoryConfig,
    ),
]


def default_history() -> HistoryConfig:
    """Return the history of a file that names none."""
    return ChromaPersistentConfig(path=Path(DEFAULT_HISTORY))
