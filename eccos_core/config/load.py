"""`load_config`: one YAML file in, one checked `Config` out, or every problem at once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from eccos_core.config.environment import Environment
from eccos_core.config.litellm_prices import PriceMap
from eccos_core.config.parse_eccos import read_our_section
from eccos_core.config.parse_model import ParseContext
from eccos_core.config.parse_pool import read_pool
from eccos_core.config.redacted import RedactedMapping
from eccos_core.config.references import check_names
from eccos_core.config.schema import Config
from eccos_core.config.section import Problems, Section, resolved
from eccos_core.config.yaml import describe_yaml, read_yaml
from eccos_core.errors import ConfigError

OUR_SECTION = "eccos"
MODEL_LIST = "model_list"
INCLUDE = "include"


def load_config(
    path: str | Path, *, environment: Mapping[str, str] | None = None, prices: PriceMap | None = None
) -> Config:
    """The configuration in a YAML file.

    `environment`: variables for `os.environ/NAME` (the process's own by default); `prices`: where model prices are
    looked up (LiteLLM's map by default). Raises `ConfigError` with every problem found; never returns half a
    configuration.
    """
    file = Path(path).expanduser()
    document, repeated = read_yaml(file)
    problems = Problems()
    problems.found.extend(repeated)
    process = os.environ if environment is None else environment
    around = ParseContext(
        folder=file.resolve().parent,
        environment=Environment(process, document.get("environment_variables")),
        prices=prices or PriceMap(),
        problems=problems,
    )
    _report_misspelt_sections(document, problems)
    config = read_our_section(_our_section(document, problems), file, around)
    lists = _model_lists(document, around.folder, problems)
    pool = read_pool(lists, around, config.workload.default_max_concurrency)
    check_names(config, pool, problems)
    if problems.found:
        raise ConfigError(str(file), problems.found)
    litellm = {key: value for key, value in document.items() if key not in {OUR_SECTION, MODEL_LIST, INCLUDE}}
    return replace(
        config, pool=pool.entries, warnings=tuple(problems.warnings), litellm_sections=RedactedMapping(litellm)
    )


def _our_section(document: Mapping[str, Any], problems: Problems) -> Section:
    ours = document.get(OUR_SECTION)
    if ours is not None and not isinstance(ours, dict):
        problems.add(OUR_SECTION, f"is {describe_yaml(ours)}, must be a mapping")
    return Section({str(k): v for k, v in ours.items()} if isinstance(ours, dict) else {}, OUR_SECTION, problems)


def _report_misspelt_sections(document: Mapping[str, Any], problems: Problems) -> None:
    """LiteLLM has many sections and gains more, so an unknown one is its own; but ours must not be lost to a typo."""
    for key in document:
        if key not in {OUR_SECTION, MODEL_LIST} and (meant := _meant(key)):
            problems.add(key, f"unknown section; did you mean {meant!r}?")


def _meant(key: str) -> str | None:
    close = difflib.get_close_matches(key, (OUR_SECTION, MODEL_LIST), n=1, cutoff=0.8)
    return close[0] if close else None


def _model_lists(document: Mapping[str, Any], folder: Path, problems: Problems) -> list[tuple[str, object]]:
    """The file's own `model_list` and those of the files that it includes, each with its place."""
    lists: list[tuple[str, object]] = []
    if document.get(MODEL_LIST) is not None:
        lists.append((MODEL_LIST, document[MODEL_LIST]))
    noted_before = len(problems.found)
    included = document.get(INCLUDE)
    if included is not None and not (isinstance(included, list) and all(isinstance(name, str) for name in included)):
        problems.add(INCLUDE, "must be a list of YAML files")
    elif included is not None:
        for index, name in enumerate(included):
            try:
                more, noted = read_yaml(resolved(name, folder))
            except ConfigError as error:
                more, noted = {}, list(error.problems)
            for problem in noted:
                problems.add(f"{INCLUDE}[{index}] {name!r}", str(problem))
            if more.get(MODEL_LIST) is not None:
                lists.append((f"{name}: {MODEL_LIST}", more[MODEL_LIST]))
    misspelt = any(_meant(key) == MODEL_LIST for key in document)
    if not lists and not misspelt and len(problems.found) == noted_before:
        problems.add(MODEL_LIST, "is missing; list at least one model as LiteLLM does (model_name, litellm_params)")
    return lists
