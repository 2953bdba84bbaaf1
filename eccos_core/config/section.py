"""Reading one mapping of the file, key by key: types, bounds and unknown keys, each wrong one noted with its place."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from eccos_core.config.yaml import describe_yaml
from eccos_core.errors import Problem, did_you_mean

T = TypeVar("T")

_EXPONENT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")
"""PyYAML reads `1e-6` as text (YAML 1.1 wants `1.0e-6`); everybody means the number."""


class Problems:
    """Every problem and warning found so far."""

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.warnings: list[str] = []

    def add(self, place: str, message: str) -> None:
        """Note a problem once."""
        problem = Problem(place, message)
        if problem not in self.found:
            self.found.append(problem)

    def warn(self, place: str, message: str) -> None:
        """Note what is not wrong but worth knowing, once."""
        warning = f"{place}: {message}"
        if warning not in self.warnings:
            self.warnings.append(warning)


def shown(value: object) -> str:
    """A value as it may stand in a message: scalars in YAML's spelling and cut short, collections only by kind."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case int() | float():
            return repr(value)
        case _:
            return describe_yaml(value)


class Section:
    """A mapping of the file being read. Each method returns the value, or `default` after noting what is wrong.

    `close()` reports every key that nobody asked for. With `lenient`, numbers may be given as text, as LiteLLM
    allows. `hidden` names keys whose values must not be shown, with the reason ("comes from ...").
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        place: str,
        problems: Problems,
        *,
        lenient: bool = False,
        hidden: Mapping[str, str] | None = None,
    ) -> None:
        self.values = values
        self.place = place
        self.problems = problems
        self._lenient = lenient
        self._hidden = hidden or {}
        self._asked: list[str] = []

    def at(self, key: str) -> str:
        """The place of a key."""
        return f"{self.place}.{key}" if self.place else key

    def hidden(self, key: str) -> str | None:
        """The words that stand for the value of `key` in messages, or None when it may be shown."""
        return self._hidden.get(key)

    def wrong(self, key: str, rule: str) -> None:
        """Note that the value of `key` breaks `rule`."""
        told = self.hidden(key) or f"is {shown(self.values.get(key))}"
        self.problems.add(self.at(key), f"{told}, must be {rule}")

    def has(self, key: str) -> bool:
        """Whether the key is there with a value other than null."""
        self._ask(key)
        return self.values.get(key) is not None

    def _ask(self, key: str) -> None:
        if key not in self._asked:
            self._asked.append(key)

    def raw(self, key: str) -> Any:
        """The value as the file has it, or None."""
        self._ask(key)
        return self.values.get(key)

    def number(
        self, key: str, default: T, *, low: float = 0.0, high: float = math.inf, above: bool = False
    ) -> float | T:
        """A finite number in [low, high]; greater than `low` when `above`."""
        value = self.raw(key)
        if value is None:
            return default
        number = self._as_number(value)
        if number is None or not math.isfinite(number) or not low <= number <= high or (above and number == low):
            bound = f"between {low:g} and {high:g}" if high < math.inf else f"{'>' if above else '>='} {low:g}"
            self.wrong(key, f"a number {bound}")
            return default
        return number

    def _as_number(self, value: object) -> float | None:
        if isinstance(value, bool):
            return None
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str) and (self._lenient or _EXPONENT.fullmatch(value.strip())):
            try:
                return float(value)
            except ValueError:
                return None
        return None

    def integer(self, key: str, default: T, *, low: int = 1) -> int | T:
        """A whole number of at least `low`."""
        value = self.raw(key)
        if value is None:
            return default
        number = self._as_number(value)
        if number is None or not math.isfinite(number) or number != int(number) or number < low:
            self.wrong(key, f"a whole number >= {low}")
            return default
        return int(number)

    def boolean(self, key: str, default: T) -> bool | T:
        """True or false."""
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.wrong(key, "true or false")
            return default
        return value

    def text(self, key: str, default: T, rule: str = "text that is not empty") -> str | T:
        """Text that is not empty."""
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, str) or not value.strip():
            self.wrong(key, rule)
            return default
        return value

    def choice(self, key: str, choices: Sequence[str], default: T) -> str | T:
        """One of the given words."""
        value = self.raw(key)
        if value is None:
            return default
        if value not in choices:
            nearest = did_you_mean(value, choices) if isinstance(value, str) else ""
            self.wrong(key, f"one of {', '.join(choices)}{nearest}")
            return default
        return str(value)

    def names(self, key: str, default: T) -> frozenset[str] | T:
        """A list of words."""
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            self.wrong(key, "a list of names")
            return default
        return frozenset(value)

    def path(self, key: str, folder: Path, default: T) -> Path | T:
        """A path; a relative one is seen from `folder`."""
        value = self.text(key, None, rule="a path")
        return default if value is None else resolved(value, folder)

    def section(self, key: str, instead: str = "a mapping") -> Section | None:
        """The mapping under a key, or None when it is absent or is no mapping (noted)."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.problems.add(self.at(key), f"is {describe_yaml(value)}, must be {instead}")
            return None
        return self._inner(value, self.at(key))

    def sections(self, key: str) -> list[Section]:
        """The mappings of a list of mappings; none when it is absent or something else (noted)."""
        value = self.raw(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.problems.add(self.at(key), f"is {describe_yaml(value)}, must be a list")
            return []
        found = []
        for index, item in enumerate(value):
            place = f"{self.at(key)}[{index}]"
            if isinstance(item, dict):
                found.append(self._inner(item, place))
            else:
                self.problems.add(place, f"is {describe_yaml(item)}, must be a mapping")
        return found

    def kind_or_section(self, key: str, kinds: Sequence[str]) -> Section | None:
        """A mapping, or a short word that stands for a mapping with nothing but that `kind`."""
        if isinstance(self.raw(key), str):
            kind = self.choice(key, kinds, None)
            return None if kind is None else self._inner({"kind": kind}, self.at(key))
        return self.section(key, instead=f"{', '.join(kinds)}, or a mapping with one of these as kind")

    def _inner(self, values: Mapping[Any, Any], place: str) -> Section:
        return Section({str(k): v for k, v in values.items()}, place, self.problems, lenient=self._lenient)

    def close(self, also_known: Collection[str] = ()) -> None:
        """Report every key that was not asked for, with the nearest known one."""
        known = [*self._asked, *also_known]
        for key in self.values:
            if key not in known:
                listed = ", ".join(sorted(known))
                self.problems.add(self.at(key), f"unknown key{did_you_mean(key, known)} (known here: {listed})")


def resolved(path: str, folder: Path) -> Path:
    """An absolute path; a relative one is seen from `folder`, `~` is the home folder."""
    return (folder / Path(path).expanduser()).resolve()
