"""Reads one mapping of LiteLLM's `model_list`, key by key. Each wrong value becomes a problem with its place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from eccos_core.config.problems import Problems, show_value
from eccos_core.config.yaml import describe_yaml

T = TypeVar("T")


class Section:
    """A mapping of a `model_list` entry. Each method returns the value, or `default` after adding a problem.

    Numbers and booleans may be text, as LiteLLM allows. `hidden` names keys whose values must not be shown, with the
    words that stand for the value ("comes from ...").
    """

    def __init__(
        self, values: Mapping[str, Any], place: str, problems: Problems, *, hidden: Mapping[str, str] | None = None
    ) -> None:
        self.values = values
        self.place = place
        self.problems = problems
        self._hidden = hidden or {}

    def at(self, key: str) -> str:
        """Return the place of a key."""
        return f"{self.place}.{key}" if self.place else key

    @property
    def hidden_keys(self) -> frozenset[str]:
        """The keys whose values must not be shown."""
        return frozenset(self._hidden)

    def hidden(self, key: str) -> str | None:
        """Return the words that stand for the value of `key` in messages, or None when it may be shown."""
        return self._hidden.get(key)

    def report(self, key: str, rule: str) -> None:
        """Add the problem that the value of `key` breaks `rule`."""
        value = self.hidden(key) or f"is {show_value(self.values.get(key))}"
        self.problems.add(self.at(key), f"{value}, must be {rule}")

    def has(self, key: str) -> bool:
        """Tell whether the key has a value other than null."""
        return self.values.get(key) is not None

    def raw(self, key: str) -> Any:
        """Return the value as the file has it, or None."""
        return self.values.get(key)

    def number(
        self, key: str, default: T, *, low: float = 0.0, high: float = math.inf, above: bool = False
    ) -> float | T:
        """Read a finite number in [low, high]. With `above` it must be greater than `low`."""
        value = self.raw(key)
        if value is None:
            return default
        number = _read_number(value)
        if number is None or not math.isfinite(number) or not low <= number <= high or (above and number == low):
            bound = f"between {low:g} and {high:g}" if high < math.inf else f"{'>' if above else '>='} {low:g}"
            self.report(key, f"a number {bound}")
            return default
        return number

    def integer(self, key: str, default: T, *, low: int = 1) -> int | T:
        """Read a whole number of at least `low`."""
        value = self.raw(key)
        if value is None:
            return default
        number = _read_number(value)
        if number is None or not math.isfinite(number) or number != int(number) or number < low:
            self.report(key, f"a whole number >= {low}")
            return default
        return int(number)

    def boolean(self, key: str, default: T) -> bool | T:
        """Read true or false."""
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, str):
            value = {"true": True, "false": False}.get(value.lower(), value)
        if not isinstance(value, bool):
            self.report(key, "true or false")
            return default
        return value

    def text(self, key: str, default: T) -> str | T:
        """Read text that is not empty."""
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, str) or not value.strip():
            self.report(key, "text that is not empty")
            return default
        return value

    def names(self, key: str, default: T) -> frozenset[str] | T:
        """Read a list of names."""
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            self.report(key, "a list of names")
            return default
        return frozenset(value)

    def section(self, key: str) -> Section | None:
        """Read the mapping under a key. Return None when it is absent, or is no mapping (a problem)."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.problems.add(self.at(key), f"is {describe_yaml(value)}, must be a mapping")
            return None
        return Section({str(k): v for k, v in value.items()}, self.at(key), self.problems)


def _read_number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
