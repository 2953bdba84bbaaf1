"""Parses the price of one entry: from the file, else from LiteLLM. A price is never guessed."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eccos_core.config.litellm_prices import PriceMap
from eccos_core.config.own_gpu_price import price_own_gpu
from eccos_core.config.section import Section
from eccos_core.domain import ContextPrice

INPUT = "input_cost_per_token"
OUTPUT = "output_cost_per_token"
CACHED = "cache_read_input_token_cost"
REASONING = "output_cost_per_reasoning_token"
KEYS = (INPUT, OUTPUT, CACHED, REASONING)
PER_SECOND = ("input_cost_per_second", "output_cost_per_second")
_SHORT = 1024.0  # tokens of the context whose price stands where one price per token is asked for
_DEAREST = 0.01
"""USD per token. No model costs more, so a higher number is probably meant per million tokens."""


@dataclass(frozen=True, slots=True)
class Price:
    """Prices in USD per token. `stated`: the file says it. Otherwise it comes from LiteLLM's map."""

    input: float
    output: float
    cached_input: float | None = None
    reasoning: float | None = None
    stated: bool = True
    usd_per_gpu_hour: float | None = None
    tokens_per_hour: float | None = None
    by_context: ContextPrice | None = None


@dataclass(frozen=True, slots=True)
class Unpriced:
    """The file gives no price, and LiteLLM knows none. `advice` says how to price the entry."""

    advice: str


def parse_price(
    params: Section,
    info: Section,
    known: Mapping[str, Any] | None,
    prices: PriceMap,
    folder: Path,
    largest_batch: int | None = None,
) -> Price | Unpriced | None:
    """Parse the price of an entry. Return None after reporting what is wrong.

    `known` is the entry of LiteLLM's price map, if there is one. `folder` is that of the file, and
    `largest_batch` the most calls in flight: both serve the price of a model on your own GPU.
    """
    before = len(info.problems.found)
    stated = {key: _stated(key, params, info) for key in KEYS}
    free = info.boolean("free", False)
    gpu_hour = info.number("usd_per_gpu_hour", None)
    tokens_per_hour = info.number("tokens_per_hour", None, above=True)
    per_second = [_stated(key, params, info) for key in PER_SECOND]
    if len(info.problems.found) > before:
        return None
    ways = {
        "free: true": free,
        "usd_per_gpu_hour": gpu_hour is not None,
        f"{INPUT} and {OUTPUT}": stated[INPUT] is not None or stated[OUTPUT] is not None,
    }
    given = [way for way, used in ways.items() if used]
    if free and not stated[INPUT] and not stated[OUTPUT] and gpu_hour is None:
        return Price(0.0, 0.0, usd_per_gpu_hour=None, tokens_per_hour=tokens_per_hour)
    if len(given) > 1:
        info.problems.add(_entry(info), f"has more than one price ({' and '.join(given)}); keep one")
        return None
    if gpu_hour is not None:
        if tokens_per_hour is None:
            return _price_by_context(price_own_gpu(params, info, folder, gpu_hour, largest_batch), gpu_hour)
        return _price_of_gpu(gpu_hour, tokens_per_hour)
    if given:
        return _price_stated(stated, known)
    if any(per_second):
        return _price_of_seconds(sum(usd or 0.0 for usd in per_second), tokens_per_hour)
    return _price_of_map(params, info, known, prices)


def _entry(info: Section) -> str:
    return info.place.removesuffix(".model_info")


def _stated(key: str, params: Section, info: Section) -> float | None:
    """Read a price from model_info or litellm_params. Report two that differ."""
    in_info, in_params = info.number(key, None), params.number(key, None)
    if in_info is not None and in_params is not None and in_info != in_params:
        rule = f"{key} is {in_info:g} under model_info and {in_params:g} under litellm_params; keep one"
        info.problems.add(_entry(info), rule)
    value = in_info if in_info is not None else in_params
    if value is not None and value > _DEAREST:
        place = info.at(key) if in_info is not None else params.at(key)
        rule = f"{value:g} USD per token is {value * 1e6:,.0f} USD per million tokens; was {value / 1e6:g} meant?"
        info.problems.warn(place, rule)
    return value


def _price_of_gpu(gpu_hour: float, tokens_per_hour: float) -> Price:
    per_token = gpu_hour / tokens_per_hour
    return Price(per_token, per_token, usd_per_gpu_hour=gpu_hour, tokens_per_hour=tokens_per_hour)


def _price_by_context(found: ContextPrice | None, gpu_hour: float) -> Price | None:
    """Price a model whose tokens cost what their context costs. The price per token is that of a short one."""
    if found is None:
        return None
    prompt, answer = (float(found.input_usd(_SHORT)) / _SHORT, float(found.output_usd(_SHORT, 1.0)))
    return Price(prompt, answer, usd_per_gpu_hour=gpu_hour, by_context=found)


def _price_of_seconds(usd: float, tokens_per_hour: float | None) -> Price | Unpriced:
    """Price a server that costs `usd` per second of answering, as LiteLLM charges it."""
    if tokens_per_hour is None:
        return Unpriced(f"its price is per second: add model_info.tokens_per_hour beside it, or {_BOTH}")
    gpu_hour = 3600 * usd
    per_token = gpu_hour / tokens_per_hour
    return Price(per_token, per_token, usd_per_gpu_hour=gpu_hour, tokens_per_hour=tokens_per_hour)


def _price_stated(stated: Mapping[str, float | None], known: Mapping[str, Any] | None) -> Price | Unpriced:
    """Take the stated price. As in LiteLLM, the price map adds a side that is missing."""
    for missing, present in ((INPUT, OUTPUT), (OUTPUT, INPUT)):
        if stated[missing] is None:
            usd = _usd(known, missing)
            if usd is None:
                return Unpriced(f"{missing} is missing beside {present}: give both in USD per token (0 if it is free)")
            stated = {**stated, missing: usd}
    return Price(stated[INPUT] or 0.0, stated[OUTPUT] or 0.0, stated[CACHED], stated[REASONING])


def _price_of_map(
    params: Section, info: Section, known: Mapping[str, Any] | None, prices: PriceMap
) -> Price | Unpriced:
    per_input, per_output = (_usd(known, key) for key in (INPUT, OUTPUT))
    if per_input is None or per_output is None:
        return Unpriced(_how_to_price(params, known, prices))
    if per_input == per_output == 0:
        rule = "LiteLLM's price map says it costs nothing; state its price, or model_info.free: true if that is so"
        info.problems.warn(_entry(info), rule)
    return Price(per_input, per_output, _usd(known, CACHED), _usd(known, REASONING), stated=False)


def _usd(known: Mapping[str, Any] | None, key: str) -> float | None:
    value = (known or {}).get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


_BOTH = f"{INPUT} and {OUTPUT} (USD per token) under model_info"
_FREE = "model_info.free: true if it costs nothing"
_GPU = "usd_per_gpu_hour with tokens_per_hour"


def _how_to_price(params: Section, known: Mapping[str, Any] | None, prices: PriceMap) -> str:
    if params.hidden("model"):
        return f"no price is known for the model, which {params.hidden('model')}: add {_BOTH}, or {_FREE}"
    model = str(params.raw("model"))
    if model.startswith("eccos-local/"):
        return f"no price is given for {model!r}: add {_FREE}, {_GPU}, or {_BOTH}"
    if is_private(model, params.raw("api_base") or params.raw("base_url")):
        return f"no price is known for {model!r}, which runs on your own machines: add model_info.{_GPU}, or {_FREE}"
    if known is not None:
        return f"LiteLLM's price map has no price per token for {model!r}: add {_BOTH}, or {_FREE}"
    nearest = prices.nearest(model)
    meant = f" (did you mean {nearest!r}?)" if nearest else ""
    base = "model_info.base_model if the price map knows it by another name"
    return f"no price is known for {model!r}{meant}: add {_BOTH}, {base}, or {_FREE}"


_OWN_SERVERS = frozenset({"ollama", "ollama_chat", "hosted_vllm", "vllm", "lm_studio", "llamafile", "xinference"})
_PRIVATE_NAMES = ("localhost", ".local", ".internal", ".lan", ".svc", ".cluster", ".home.arpa")


def is_private(model: str, address: object) -> bool:
    """Tell whether a model runs on your own machines: by the kind of server, or by an address of a private network."""
    if model.partition("/")[0] in _OWN_SERVERS:
        return True
    if not isinstance(address, str):
        return False
    try:
        host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
    except ValueError:
        return False
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:  # a name, not a number
        return "." not in host or host.endswith(_PRIVATE_NAMES)
