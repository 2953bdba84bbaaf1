"""Loads one YAML file: you get a checked `Config`, or every problem at once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eccos_core.config.context import ParseContext
from eccos_core.config.environment import Environment
from eccos_core.config.litellm_prices import PriceMap
from eccos_core.config.parse_eccos import ECCOS, parse_eccos_section
from eccos_core.config.parse_pool import parse_pool
from eccos_core.config.problems import Problems, resolve_path
from eccos_core.config.redacted import RedactedMapping
from eccos_core.config.references import check_references
from eccos_core.config.schema import Config
from eccos_core.config.yaml import read_yaml
from eccos_core.errors import ConfigError

MODEL_LIST = "model_list"
INCLUDE = "include"


def load_config(
    path: str | Path, *, environment: Mapping[str, str] | None = None, prices: PriceMap | None = None
) -> Config:
    """Load the configuration in a YAML file.

    `environment` holds the variables for `os.environ/NAME`, by default those of the process. `prices` is where model
    prices are looked up, by default LiteLLM's price map. Raises `ConfigError` with every problem found. It never
    returns half a configuration.
    """
    file = Path(path).expanduser()
    document, repeated = read_yaml(file)
    problems = Problems()
    problems.found.extend(repeated)
    process = os.environ if environment is None else environment
    context = ParseContext(
        folder=file.resolve().parent,
        environment=Environment(process, document.get("environment_variables")),
        prices=prices or PriceMap(),
        problems=problems,
    )
    _report_misspelt_sections(document, problems)
    section = parse_eccos_section(document.get(ECCOS), context)
    lists = _model_lists(document, context.folder, problems)
    pool = parse_pool(lists, context, section.workload.default_max_concurrency if section is not None else None)
    check_references(document.get(ECCOS), pool, problems)
    if section is None or problems.found:
        raise ConfigError(str(file), problems.found)
    litellm = {key: value for key, value in document.items() if key not in {ECCOS, MODEL_LIST, INCLUDE}}
    return Config(
        path=file,
        pool=pool.entries,
        warnings=tuple(problems.warnings),
        litellm_sections=RedactedMapping(litellm),
        **dict(section),
    )


def _report_misspelt_sections(document: Mapping[str, Any], problems: Problems) -> None:
    """Report a section that looks like a misspelt one of ours. LiteLLM has many sections, so others are its own."""
    for key in document:
        if key not in {ECCOS, MODEL_LIST} and (meant := _meant(key)):
            problems.add(key, f"unknown section; did you mean {meant!r}?")


def _meant(key: str) -> str | None:
    close = difflib.get_close_matches(key, (ECCOS, MODEL_LIST), n=1, cutoff=0.8)
    return close[0] if close else None


def _model_lists(document: Mapping[str, Any], folder: Path, problems: Problems) -> list[tuple[str, object]]:
    """Collect the file's own `model_list` and those of the files that it includes, each with its place."""
    lists: list[tuple[str, object]] = []
    if document.get(MODEL_LIST) is not None:
        lists.append((MODEL_LIST, document[MODEL_LIST]))
    found_before = len(problems.found)
    included = document.get(INCLUDE)
    if included is not None and not (isinstance(included, list) and all(isinstance(name, str) for name in included)):
        problems.add(INCLUDE, "must be a list of YAML files")
    elif included is not None:
        for index, name in enumerate(included):
            try:
                more, wrong = read_yaml(resolve_path(name, folder))
            except ConfigError as error:
                more, wrong = {}, list(error.problems)
            for problem in wrong:
                problems.add(f"{INCLUDE}[{index}] {name!r}", str(problem))
            if more.get(MODEL_LIST) is not None:
                lists.append((f"{name}: {MODEL_LIST}", more[MODEL_LIST]))
    misspelt = any(_meant(key) == MODEL_LIST for key in document)
    if not lists and not misspelt and len(problems.found) == found_before:
        problems.add(MODEL_LIST, "is missing; list at least one model as LiteLLM does (model_name, litellm_params)")
    return lists
