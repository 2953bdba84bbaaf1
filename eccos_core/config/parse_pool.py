"""Parses the pool. Entries of `model_list` with one `model_name` are deployments of one model, as in LiteLLM."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eccos_core.config.context import ParseContext
from eccos_core.config.parse_model import CAPABILITY_KEYS, Entry, SourcedValue, parse_entry
from eccos_core.config.parse_price import Price
from eccos_core.config.problems import Problems
from eccos_core.config.schema import PoolEntry
from eccos_core.config.yaml import describe_yaml
from eccos_core.domain import Capability, Model
from eccos_core.errors import did_you_mean

_PROPERTY_NAMES = {
    "context_window": "context window",
    "max_output_tokens": "longest answer",
    Capability.STREAMING.value: "supports_native_streaming",
    **{capability.value: key for capability, key in CAPABILITY_KEYS.items()},
}


@dataclass(frozen=True, slots=True)
class Pool:
    """The models of the pool, and every name and tag that the file declares. A name counts even with problems."""

    entries: tuple[PoolEntry, ...]
    declared: frozenset[str]
    tags: frozenset[str]


def parse_pool(lists: Sequence[tuple[str, object]], context: ParseContext, default_cap: int | None) -> Pool:
    """Parse one or several `model_list`s, each given with its place in the file."""
    by_name: dict[str, list[Entry]] = {}
    declared: set[str] = set()
    listed = 0
    before = len(context.problems.found)
    for place, raw_list in lists:
        if not isinstance(raw_list, list):
            context.problems.add(place, f"is {describe_yaml(raw_list)}, must be a list of models")
            continue
        listed += len(raw_list)
        for index, raw in enumerate(raw_list):
            before_entry = len(context.problems.found)
            entry = parse_entry(raw, f"{place}[{index}]", context)
            if entry is not None:
                by_name.setdefault(entry.name, []).append(entry)
            if isinstance(raw, dict) and (entry is not None or len(context.problems.found) > before_entry):
                declared.add(str(raw.get("model_name")))
    if lists and len(context.problems.found) == before and not by_name:
        rule = "is empty, must list at least one model" if listed == 0 else "leaves no model that can be routed to"
        context.problems.add(lists[0][0], rule)
    _check_priors(by_name, declared, context.problems)
    entries = [_merge(name, group, context.problems, default_cap) for name, group in by_name.items()]
    tags = frozenset(tag for group in by_name.values() for entry in group for tag in entry.tags)
    return Pool(tuple(entry for entry in entries if entry is not None), frozenset(declared), tags)


def _check_priors(by_name: Mapping[str, list[Entry]], declared: set[str], problems: Problems) -> None:
    for name, group in by_name.items():
        for entry in group:
            place = f"{entry.place}.model_info.assume_like"
            if entry.assume_like is not None and entry.assumed_quality is not None:
                problems.add(place, "stands beside assumed_quality; keep one")
            if entry.assume_like == name:
                problems.add(place, f"is {name!r}, must name another model of the pool")
            elif entry.assume_like is not None and entry.assume_like not in declared:
                meant = did_you_mean(entry.assume_like, declared)
                problems.add(place, f"is {entry.assume_like!r}, must name a model of the pool{meant}")
    for name, group in by_name.items():
        if _goes_in_a_circle(name, by_name):
            problems.add(f"{group[0].place}.model_info.assume_like", "leads back to the model itself; end the circle")


def _goes_in_a_circle(name: str, by_name: Mapping[str, list[Entry]]) -> bool:
    seen = [name]
    while True:
        following = next((entry.assume_like for entry in by_name.get(seen[-1], ()) if entry.assume_like), None)
        if following is None or following == seen[-1]:
            return False
        if following in seen:
            return following == name
        seen.append(following)


def _merge(name: str, group: list[Entry], problems: Problems, default_cap: int | None) -> PoolEntry | None:
    """Merge the deployments of one model.

    It is a problem when the file contradicts itself. Where only LiteLLM's map differs, the model promises what every
    deployment can do, at the highest price.
    """
    first = group[0]
    properties = {key: _merge_property(key, group, problems) for key in _PROPERTY_NAMES}
    price = _merge_prices(group, problems)
    tags = frozenset.intersection(*(entry.tags for entry in group))
    if any(entry.tags != tags for entry in group):
        listed = ", ".join(sorted(tags)) or "none"
        problems.warn(first.place, f"its deployments differ in tags; the model carries those of all: {listed}")
    assume_like = _single("assume_like", group, problems, lambda entry: entry.assume_like)
    assumed_quality = _single("assumed_quality", group, problems, lambda entry: entry.assumed_quality)
    if price is None:
        return None
    return PoolEntry(
        model=Model(
            name=name,
            usd_per_input_token=price.input,
            usd_per_output_token=price.output,
            usd_per_cached_input_token=price.cached_input,
            usd_per_reasoning_token=price.reasoning,
            max_concurrency=_total_cap(group, default_cap),
            context_window=properties["context_window"],
            max_output_tokens=properties["max_output_tokens"],
            capabilities=frozenset(capability for capability in Capability if properties[capability.value]),
            tags=tags,
            provider=", ".join(dict.fromkeys(entry.provider for entry in group if entry.provider)),
        ),
        deployments=tuple(entry.deployment for entry in group),
        assume_like=assume_like,
        assumed_quality=assumed_quality,
        usd_per_gpu_hour=price.usd_per_gpu_hour,
        tokens_per_hour=price.tokens_per_hour,
    )


def _merge_property(key: str, group: list[Entry], problems: Problems) -> Any:
    """Take the least that any deployment promises, or None when nobody says anything."""
    properties = [entry.properties.get(key) for entry in group]
    sourced = [(entry, found) for entry, found in zip(group, properties, strict=True) if found is not None]
    _report_contradiction(_PROPERTY_NAMES[key], [(e.place, f) for e, f in sourced], problems, "the smallest", min)
    if key in {"context_window", "max_output_tokens"}:
        return min((found.value for _, found in sourced), default=None)
    return bool(sourced) and len(sourced) == len(group) and all(found.value for _, found in sourced)


def _report_contradiction(
    name: str,
    sourced: list[tuple[str, SourcedValue]],
    problems: Problems,
    kept: str,
    choose: Callable[[Iterable[Any]], Any],
) -> None:
    if len({found.value for _, found in sourced}) < 2:
        return
    stated = [(place, found) for place, found in sourced if found.stated]
    listed = "; ".join(f"{_show(found.value)} in {place.partition(' ')[0]}" for place, found in sourced)
    if len({found.value for _, found in stated}) > 1:
        rule = f"deployments of one model contradict each other in {name}: {listed}. Make them equal, or two models"
        problems.add(stated[-1][0], rule)
    else:
        value = _show(choose(found.value for _, found in sourced))
        problems.warn(sourced[0][0], f"its deployments differ in {name}: {listed}. Taken: {kept}, {value}")


def _show(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _merge_prices(group: list[Entry], problems: Problems) -> Price | None:
    prices = [(entry.place, entry.price) for entry in group if entry.price is not None]
    if not prices:
        return None
    for side, name in (("input", "price per input token (USD)"), ("output", "price per output token (USD)")):
        sourced = [(place, SourcedValue(getattr(price, side), price.stated)) for place, price in prices]
        _report_contradiction(name, sourced, problems, "the dearest", max)
    known = [price for _, price in prices]
    dearest = max(known, key=lambda price: (price.input + price.output, price.input))
    return Price(
        input=max(price.input for price in known),
        output=max(price.output for price in known),
        cached_input=_dearest([price.cached_input for price in known]),
        reasoning=_dearest([price.reasoning for price in known]),
        usd_per_gpu_hour=dearest.usd_per_gpu_hour,
        tokens_per_hour=dearest.tokens_per_hour,
    )


def _dearest(prices: Sequence[float | None]) -> float | None:
    """Return the highest price, or None when a deployment has no such price and uses the ordinary one."""
    known = [price for price in prices if price is not None]
    return max(known) if len(known) == len(prices) else None


def _single(key: str, group: list[Entry], problems: Problems, read: Callable[[Entry], Any]) -> Any:
    sourced = [(entry.place, SourcedValue(read(entry), stated=True)) for entry in group if read(entry) is not None]
    _report_contradiction(key, sourced, problems, "", min)
    return sourced[0][1].value if sourced else None


def _total_cap(group: list[Entry], default_cap: int | None) -> int | None:
    """Add the caps. Without any, the workload's default counts. When only some have one, there is no cap."""
    caps = [entry.max_concurrency for entry in group if entry.max_concurrency is not None]
    if not caps:
        return default_cap
    return sum(caps) if len(caps) == len(group) else None
