"""Parses `model_info.efforts`: each effort of a deployment is a model of the pool, as in `large@low`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eccos_core.backends.efforts import OUTPUT_LIMITS, effort_level
from eccos_core.backends.litellm.backend import DECIDED_HERE
from eccos_core.backends.litellm.call_parameters import is_call_parameter
from eccos_core.backends.local.registry import ENGINE_OPTIONS
from eccos_core.config.problems import Problems, show_value
from eccos_core.config.section import Section
from eccos_core.config.yaml import describe_yaml

SEPARATOR: Final = "@"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_WHERE: Final = re.compile(r"^(api_|base_url$|organization$|custom_llm_provider$|litellm_|timeout$|stream_timeout$)")


@dataclass(frozen=True, slots=True)
class Effort:
    """One effort of a deployment: its name (`low`), and the call parameters that ask for it."""

    name: str
    parameters: Mapping[str, Any]

    @property
    def level(self) -> float | None:
        """How much of its longest answer the model may think, in [0, 1]. None where the parameters do not say."""
        return effort_level(self.parameters)

    @property
    def output_limit(self) -> int | None:
        """The most tokens of one answer at this effort. None where the parameters do not say."""
        limits = [self.parameters[name] for name in OUTPUT_LIMITS if self.parameters.get(name) is not None]
        return min(limits, default=None)


def parse_efforts(info: Section) -> tuple[Effort, ...]:
    """Parse `model_info.efforts`, from least to most effort. Empty where the entry has none."""
    listed = info.section("efforts")
    if listed is None:
        return ()
    if not listed.values:
        info.problems.add(info.at("efforts"), "is empty, must list at least one effort, or be left out")
    found = [effort for name in listed.values if (effort := _parse_effort(name, listed)) is not None]
    if all(effort.level is not None for effort in found):
        found.sort(key=lambda effort: effort.level or 0.0)
    return tuple(found)


def _parse_effort(name: str, listed: Section) -> Effort | None:
    place, values, problems = listed.at(name), listed.values[name], listed.problems
    before = len(problems.found)
    if not _NAME.fullmatch(name):
        rule = f"{show_value(name)} must be letters, digits, dots, dashes and underscores, such as 'low'"
        problems.add(listed.place, f"the name of the effort {rule}")
    if values is None:
        values = {}
    if not isinstance(values, dict):
        rule = f"is {describe_yaml(values)}, must be a mapping of call parameters, such as {{reasoning_effort: low}}"
        problems.add(place, rule)
        return None
    parameters = {str(key): value for key, value in values.items() if value is not None}
    for key, value in parameters.items():
        if key in DECIDED_HERE or not is_call_parameter(key) or _WHERE.search(key) or key in ENGINE_OPTIONS:
            problems.add(
                f"{place}.{key}",
                "is no parameter of an effort: all efforts of a model are calls of the same deployment. Keep it in "
                "litellm_params, or make this a model of its own",
            )
        elif key in OUTPUT_LIMITS and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            problems.add(f"{place}.{key}", f"is {show_value(value)}, must be a whole number >= 1")
    effort = parameters.get("reasoning_effort")
    if effort is not None and not isinstance(effort, str | dict):
        rule = f"is {show_value(effort)}, must be a text such as 'low'"
        hint = " (YAML reads a bare off, on, yes and no as true or false: write it in quotes)"
        problems.add(f"{place}.reasoning_effort", rule + (hint if isinstance(effort, bool) else ""))
    return Effort(name, parameters) if len(problems.found) == before else None


def single_efforts(groups: Sequence[tuple[str, tuple[Effort, ...]]], problems: Problems) -> tuple[Effort, ...]:
    """Return the efforts that the deployments of one model have in common; `groups` holds (place, efforts)."""
    stated = [(place, efforts) for place, efforts in groups if efforts]
    if any(efforts != stated[0][1] for _, efforts in stated):
        place = next(place for place, efforts in stated if efforts != stated[0][1])
        first = stated[0][0].partition(" ")[0]
        rule = "All deployments of a model have the same efforts: make them equal, or write them once"
        problems.add(f"{place}.model_info.efforts", f"differs from that in {first}. {rule}")
    return stated[0][1] if stated else ()


def effort_names(model: str, efforts: Iterable[Effort]) -> tuple[str, ...]:
    """Name the models of the pool that the efforts of a deployment make."""
    return tuple(f"{model}{SEPARATOR}{effort.name}" for effort in efforts)


def middle_effort(efforts: Sequence[Effort]) -> Effort:
    """Return the effort that stands for the deployment where nothing tells them apart: the middle one."""
    return efforts[(len(efforts) - 1) // 2]
