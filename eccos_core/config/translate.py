"""Translates LiteLLM's settings: into parameters of each entry, other names of models, and keys of `eccos:`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from eccos_core.config.context import ParseContext
from eccos_core.config.litellm_settings import report_parameters
from eccos_core.config.problems import show_value
from eccos_core.config.schema import EccosSection, PoolEntry
from eccos_core.config.section import Section
from eccos_core.config.section_model import SectionModel
from eccos_core.config.yaml import describe_yaml
from eccos_core.errors import did_you_mean

ROUTER: Final = "router_settings"
LITELLM: Final = "litellm_settings"
CREDENTIALS: Final = "credential_list"

S = TypeVar("S", bound=SectionModel)


@dataclass(frozen=True, slots=True)
class Inherited:
    """What the entries of `model_list` take from other sections. An entry's own parameters win."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    credentials: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def complete(self, params: Section) -> dict[str, Any]:
        """Return the parameters of an entry with all that it inherits. Warn of a credential that the file lacks."""
        name = params.values.get("litellm_credential_name")
        if isinstance(name, str) and name not in self.credentials:
            rule = f"not used, because {CREDENTIALS} has no {name!r}{did_you_mean(name, self.credentials)}"
            params.problems.warn(params.at("litellm_credential_name"), rule)
        credential = self.credentials.get(name, {}) if isinstance(name, str) else {}
        own = {key: value for key, value in params.values.items() if value is not None}
        return {**self.parameters, **credential, **own}


def read_inherited(sections: Mapping[str, Any], context: ParseContext) -> Inherited:
    """Read what the entries inherit."""
    router, litellm = (_section(sections, name, context) for name in (ROUTER, LITELLM))
    defaults = router.section("default_litellm_params") or Section({}, "", context.problems)
    report_parameters(defaults, context.problems)
    parameters = {
        "timeout": router.raw("timeout") or litellm.raw("request_timeout"),
        "stream_timeout": router.raw("stream_timeout"),
        "max_parallel_requests": router.raw("default_max_parallel_requests"),
        "drop_params": litellm.boolean("drop_params", None),
        **defaults.values,
    }
    given = {key: value for key, value in parameters.items() if value is not None}
    return Inherited(given, _read_credentials(sections.get(CREDENTIALS), context))


def _read_credentials(listed: object, context: ParseContext) -> dict[str, Mapping[str, Any]]:
    if listed is None:
        return {}
    if not isinstance(listed, list):
        context.problems.add(CREDENTIALS, f"is {describe_yaml(listed)}, must be a list of credentials")
        return {}
    credentials: dict[str, Mapping[str, Any]] = {}
    for index, raw in enumerate(listed):
        entry = Section(raw if isinstance(raw, dict) else {}, f"{CREDENTIALS}[{index}]", context.problems)
        name = entry.text("credential_name", None)
        values = entry.section("credential_values")
        if name is None or values is None:
            context.problems.add(entry.place, "must have a credential_name and a mapping credential_values")
        else:
            credentials[name] = values.values
    return credentials


def read_aliases(sections: Mapping[str, Any], context: ParseContext) -> dict[str, str | None]:
    """Read `model_group_alias`: from another name of a model to its name in the pool."""
    given = _section(sections, ROUTER, context).section("model_group_alias")
    named = (given.values if given is not None else {}).items()
    models = ((alias, model.get("model") if isinstance(model, dict) else model) for alias, model in named)
    return {alias: model if isinstance(model, str) else None for alias, model in models}


def check_aliases(aliases: Mapping[str, str | None], models: Iterable[str], context: ParseContext) -> dict[str, str]:
    """Return the aliases of models of the pool. Warn of the others, and of an alias that is a model's own name."""
    pool = set(models)
    for alias, model in aliases.items():
        place = f"{ROUTER}.model_group_alias.{alias}"
        if model not in pool:
            context.problems.warn(place, f"not used, because the pool has no model {show_value(model)}")
        elif alias in pool:
            context.problems.warn(place, "not used, because a model of the pool has this name")
    return {alias: str(model) for alias, model in aliases.items() if model in pool and alias not in pool}


def translate_settings(
    section: EccosSection, sections: Mapping[str, Any], pool: Sequence[PoolEntry], context: ParseContext
) -> EccosSection:
    """Return the `eccos:` section with LiteLLM's retries, fallbacks and cooldowns where it has none of its own.

    The deadline of all calls together is at least the longest timeout of one call, so that the timeout can hold.
    """
    longest_s = max((way.parameters.get("timeout", 0.0) for entry in pool for way in entry.deployments), default=0.0)
    router, litellm = (_section(sections, name, context) for name in (ROUTER, LITELLM))
    retries, fails = (_first(key, router, litellm) for key in ("num_retries", "allowed_fails"))
    return section.model_copy(
        update={
            "retries": _fill(
                section.retries,
                attempts=None if retries is None else 1 + retries,
                fallbacks=router.integer("max_fallbacks", None, low=0),
                deadline_s=longest_s if longest_s > section.retries.deadline_s else None,
            ),
            "workload": _fill(
                section.workload,
                breaker_failures=None if fails is None else 1 + fails,
                breaker_open_s=router.number("cooldown_time", None) or None,
            ),
        }
    )


def _section(sections: Mapping[str, Any], name: str, context: ParseContext) -> Section:
    """Read one of LiteLLM's sections, with its environment variables filled in at the top."""
    found = Section(sections, "", context.problems).section(name)
    values = found.values if found is not None else {}
    wanted = {key: value for key, value in values.items() if key in _READ and not isinstance(value, dict)}
    filled, hidden = context.environment.fill(wanted, name, context.problems)
    return Section({**values, **filled}, name, context.problems, hidden=hidden)


_READ: Final = frozenset({"num_retries", "allowed_fails", "cooldown_time", "max_fallbacks", "drop_params"})
"""The settings whose values are needed here. Others may name variables that only a proxy needs."""


def _first(key: str, *sections: Section) -> int | None:
    """Read a whole number from the first section that has it."""
    return next((found for section in sections if (found := section.integer(key, None, low=0)) is not None), None)


def _fill(model: S, **values: float | None) -> S:
    """Return the section with these values where the file sets none."""
    missing = {key: value for key, value in values.items() if value is not None and key not in model.model_fields_set}
    return model.model_copy(update=missing)
