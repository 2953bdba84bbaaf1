"""Loads one YAML file: you get a checked `Config`, or every problem at once."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from eccos_core.config.context import ParseContext
from eccos_core.config.document import ECCOS, MODEL_LIST, read_document
from eccos_core.config.environment import Environment
from eccos_core.config.litellm_prices import PriceMap
from eccos_core.config.litellm_settings import report_settings
from eccos_core.config.parse_eccos import parse_eccos_section
from eccos_core.config.parse_pool import parse_pool
from eccos_core.config.problems import Problems
from eccos_core.config.references import check_references, check_stop_early
from eccos_core.config.schema import Config, EccosSection
from eccos_core.config.translate import translate_settings
from eccos_core.errors import ConfigError

_log = logging.getLogger("eccos.config")


def load_config(
    path: str | Path, *, environment: Mapping[str, str] | None = None, prices: PriceMap | None = None
) -> Config:
    """Load the configuration in a YAML file.

    `environment` holds the variables for `os.environ/NAME`, by default those of the process. `prices` is where model
    prices are looked up, by default LiteLLM's price map. Raises `ConfigError` with every problem found. It never
    returns half a configuration.
    """
    file = Path(path).expanduser()
    problems = Problems()
    document = read_document(file, problems)
    process = os.environ if environment is None else environment
    context = ParseContext(
        folder=file.resolve().parent,
        environment=Environment(process, document.sections.get("environment_variables")),
        prices=prices or PriceMap(),
        problems=problems,
    )
    section = parse_eccos_section(document.sections.get(ECCOS), context)
    if not document.model_lists and not problems.found:
        problems.add(MODEL_LIST, "is missing; list at least one model as LiteLLM does (model_name, litellm_params)")
    pool = parse_pool(document, context, section or EccosSection())
    check_references(document.sections.get(ECCOS), pool, problems)
    check_stop_early(section.stop_early if section is not None else None, pool, problems)
    report_settings(document.sections, problems)
    if unread := context.environment.unread:
        rule = "not used, because eccos sets no variables of the process. Export what a provider needs"
        problems.warn("environment_variables", f"{rule}: {', '.join(unread)}")
    if section is not None and section.policy.escalation is not None and len(pool.entries) == 1:
        problems.warn("eccos.policy.escalate", "asks nobody else, because the pool has one model. Add another one")
    section = translate_settings(section or EccosSection(), document.sections, pool.entries, context)
    if problems.found:
        raise ConfigError(str(file), problems.found)
    settings = dict(section)
    policy = settings.pop("policy")
    return Config(
        path=file,
        policy=policy.target,
        latency=policy.latency,
        escalation=policy.escalation,
        pool=pool.entries,
        aliases=pool.aliases,
        not_applied=tuple(problems.not_applied),
        warnings=tuple(problems.warnings),
        translated=tuple(problems.translated),
        embeddings=pool.embeddings,
        **settings,
    )


def log_warnings(config: Config) -> None:
    """Log what a configuration's reader should know when a router starts: rules that do not hold, then the rest."""
    for rule in config.not_applied:
        _log.error("%s: NOT APPLIED: %s", config.path, rule)
    for warning in config.warnings:
        _log.warning("%s: %s", config.path, warning)
