"""The base of every section model, and the types of its keys.

pydantic checks a section. `SectionModel` turns what pydantic finds into messages for people. A message takes its rule
from the JSON schema of the key, so that rule, schema and reference page cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from eccos_core.config.problems import resolve_path, show_value
from eccos_core.config.renamed import RENAMED_KEYS, RENAMED_VALUES
from eccos_core.config.yaml import describe_yaml
from eccos_core.errors import did_you_mean

PROBLEM = "eccos_problem"
"""The pydantic error type of a message that is ready for people."""

_EXPONENT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")
_Location: TypeAlias = tuple[int | str, ...]
Found: TypeAlias = tuple[_Location, str]


# ----------------------------------------------------------------------------- the types of keys


def _read_exponent(value: object) -> object:
    """Read `1e-6` as a number: PyYAML takes it for text, because YAML 1.1 wants `1.0e-6`."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value.strip()) else value


def _read_whole(value: object) -> object:
    number = _read_exponent(value)
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _read_path(value: object, info: ValidationInfo) -> object:
    """Make a path absolute, seen from the folder of the file. Without a file it stays as it is."""
    if not isinstance(value, str | Path) or not str(value).strip():
        raise problem(f"is {show_value(value)}, must be a path")
    return Path(value) if info.context is None else resolve_path(value, info.context.folder)


def _read_text(value: object) -> object:
    if not isinstance(value, str) or not value.strip():
        raise problem(f"is {show_value(value)}, must be text that is not empty")
    return value


_FINITE = Field(strict=True, allow_inf_nan=False)
Positive: TypeAlias = Annotated[float, Field(gt=0), _FINITE, BeforeValidator(_read_exponent)]
NotNegative: TypeAlias = Annotated[float, Field(ge=0), _FINITE, BeforeValidator(_read_exponent)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1), _FINITE, BeforeValidator(_read_exponent)]
Fraction: TypeAlias = Annotated[float, Field(gt=0, lt=1), _FINITE, BeforeValidator(_read_exponent)]
WindowMs: TypeAlias = Annotated[float, Field(ge=0, le=50), _FINITE, BeforeValidator(_read_exponent)]
Count: TypeAlias = Annotated[int, Field(ge=1, strict=True), BeforeValidator(_read_whole)]
PackSize: TypeAlias = Annotated[int, Field(ge=2, le=64, strict=True), BeforeValidator(_read_whole)]
CountOrZero: TypeAlias = Annotated[int, Field(ge=0, strict=True), BeforeValidator(_read_whole)]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
Text: TypeAlias = Annotated[str, Field(min_length=1), BeforeValidator(_read_text)]
Names: TypeAlias = frozenset[Annotated[str, Field(min_length=1, strict=True)]]
ConfigPath: TypeAlias = Annotated[Path, BeforeValidator(_read_path)]


# ----------------------------------------------------------------------------- problems


def problem(message: str) -> PydanticCustomError:
    """Make the error of a validator. Its message is shown as it is."""
    return PydanticCustomError(PROBLEM, "{message}", {"message": message})


def problems_at(found: Sequence[Found]) -> ValidationError:
    """Make one error of several messages, each with its location below the value being checked."""
    details = [InitErrorDetails(type=problem(message), loc=location, input=None) for location, message in found]
    return ValidationError.from_exception_data("eccos", details)


def unknown_key(key: str, known: Sequence[str], value: object = None) -> str:
    """Say that a key is unknown, or what it is called now."""
    new = RENAMED_KEYS.get(key)
    if new is not None and new in known:
        new_value = RENAMED_VALUES.get(new, {}).get(value) if isinstance(value, str) else None
        return f"is called {new} now" + (f", and its value {value!r} is called {new_value!r}" if new_value else "")
    return f"unknown key{did_you_mean(key, known)} (known here: {', '.join(sorted(known))})"


def read_mapping(value: Any) -> dict[str, Any] | None:
    """Return a copy of the mapping without empty keys, or None when the value is no mapping."""
    return {str(key): item for key, item in value.items() if item is not None} if isinstance(value, Mapping) else None


class SectionModel(BaseModel):
    """A mapping of the `eccos:` section, checked and frozen. All its problems are found at once.

    Raises `pydantic.ValidationError`, whose messages are ready for people and never hold a collection's content.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def check_keys(cls, given: frozenset[str]) -> str | None:
        """Return what is wrong with the combination of keys given, or None."""
        return None

    def check_values(self) -> Iterator[Found]:
        """Yield what is wrong with the values beside each other: a location below this section, and a message."""
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, value: Any, handler: Any, info: ValidationInfo) -> Any:
        if isinstance(value, cls):  # a default, whose paths are not resolved yet
            return value if info.context is None else handler(dict(iter(value)))  # a key may be called `keys`
        if not isinstance(value, Mapping):
            shown = "empty" if value is None else describe_yaml(value)
            raise problem(f"is {shown}, must be a mapping")
        values = {str(key): item for key, item in value.items() if item is not None or info.context is None}
        checked: Any = None
        try:
            checked = handler(values)
            found = list(checked.check_values())
        except ValidationError as error:
            found = list(dict.fromkeys(cls._translate(error, values)))
            found += cls._check_rest(handler, values, found)
        message = cls.check_keys(frozenset(values))
        if message is not None:
            found.append(((), message))
        if found:
            raise problems_at(found) from None
        return checked

    @classmethod
    def _check_rest(cls, handler: Any, values: Mapping[str, Any], found: Sequence[Found]) -> list[Found]:
        """Compare the values that are right with each other, and the defaults in place of the wrong ones."""
        wrong = {location[0] for location, _ in found if location}
        try:
            rest = handler({key: item for key, item in values.items() if key not in wrong})
        except ValidationError:  # a required key is wrong, which is reported already
            return []
        return list(rest.check_values())

    @classmethod
    def _translate(cls, error: ValidationError, values: Mapping[str, Any]) -> Iterator[Found]:
        for each in error.errors(include_url=False):
            location, key = each["loc"], str(each["loc"][0]) if each["loc"] else ""
            match each["type"]:
                case "eccos_problem":
                    yield location, each["msg"]
                case "default_factory_not_called":
                    continue  # another key of the same section has the problem
                case "extra_forbidden":
                    yield location, unknown_key(key, list(cls.model_fields), values[key])
                case "missing":
                    yield location, "is missing"
                case _:
                    rule = cls.model_json_schema()["properties"][key]
                    yield (key,), _broken_rule(key, values.get(key), rule)


def _broken_rule(key: str, value: object, rule: Mapping[str, Any]) -> str:
    renamed = RENAMED_VALUES.get(key, {}).get(value) if isinstance(value, str) else None
    if renamed is not None:
        return f"{value!r} is called {renamed!r} now"
    kinds = {option.get("type") for option in _options(rule)}
    holds_mappings = "object" in kinds or any("$ref" in option.get("items", {}) for option in _options(rule))
    shown = describe_yaml(value) if holds_mappings else show_value(value)
    choices = [choice for option in _options(rule) for choice in option.get("enum", ())]
    meant = did_you_mean(value, choices) if isinstance(value, str) else ""
    return f"is {shown}, must be {describe_rule(rule)}{meant}"


def _options(rule: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [option for option in rule.get("anyOf", [rule]) if option.get("type") != "null"]


def describe_rule(rule: Mapping[str, Any]) -> str:
    """Say in words what a key's JSON schema allows: `a whole number >= 1`."""
    if "patternErrorMessage" in rule:
        return str(rule["patternErrorMessage"])
    return ", or ".join(_describe_option(option) for option in _options(rule))


def _describe_option(option: Mapping[str, Any]) -> str:
    if "enum" in option:
        return f"one of {', '.join(option['enum'])}"
    if "const" in option:
        return str(option["const"])
    match option.get("type"):
        case "number" | "integer" as kind:
            return ("a whole number" if kind == "integer" else "a number") + _describe_bounds(option)
        case "boolean":
            return "true or false"
        case "array":
            return "a list" if "$ref" in option.get("items", {}) else "a list of names"
        case "string":
            return "a path" if option.get("format") == "path" else "text that is not empty"
        case _:
            return "a mapping"


def _describe_bounds(option: Mapping[str, Any]) -> str:
    if "minimum" in option and "maximum" in option:
        return f" between {option['minimum']:g} and {option['maximum']:g}"
    if "exclusiveMinimum" in option:
        return f" > {option['exclusiveMinimum']:g}"
    return f" >= {option['minimum']:g}" if "minimum" in option else ""
