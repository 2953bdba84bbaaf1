"""Parses the pool. Entries of `model_list` with one `model_name` are deployments of one model, as in LiteLLM."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eccos_core.config.batch_offers import check_batch_names
from eccos_core.config.context import ParseContext
from eccos_core.config.document import Document
from eccos_core.config.efforts import SEPARATOR, Effort, effort_names, middle_effort, single_efforts
from eccos_core.config.embedding_entries import settle_embeddings
from eccos_core.config.parse_model import CAPABILITY_KEYS, Entry, SourcedValue, parse_entry
from eccos_core.config.parse_price import Price
from eccos_core.config.problems import Problems
from eccos_core.config.redacted import RedactedMapping
from eccos_core.config.schema import EccosSection, EmbeddingEntry, PoolEntry
from eccos_core.config.translate import check_aliases, read_aliases, read_inherited
from eccos_core.config.unpriced import settle_prices
from eccos_core.config.yaml import describe_yaml
from eccos_core.domain import Capability, Model
from eccos_core.errors import did_you_mean

_PROPERTY_NAMES = {
    "context_window": "context window",
    "max_output_tokens": "longest answer",
    "cache_lifetime_s": "cache_lifetime_s",
    Capability.STREAMING.value: "supports_native_streaming",
    **{capability.value: key for capability, key in CAPABILITY_KEYS.items()},
}


@dataclass(frozen=True, slots=True)
class Pool:
    """The models of the pool, and every name and tag that the file declares. A name counts even with problems.

    `aliases` maps other names to models of the pool. `efforts` maps a model that has efforts to the names of these.
    `embeddings` are models beside the pool.
    """

    entries: tuple[PoolEntry, ...]
    declared: frozenset[str]
    tags: frozenset[str]
    aliases: Mapping[str, str]
    efforts: Mapping[str, tuple[str, ...]]
    embeddings: tuple[EmbeddingEntry, ...]


def parse_pool(document: Document, context: ParseContext, section: EccosSection) -> Pool:
    """Parse every `model_list` of the files. `section` says what to do with entries that have no price."""
    problems = context.problems
    before = len(problems.found)
    parsed, declared = _parse_entries(document, context)
    entries = [entry for entry in parsed if entry.embeds is None]
    embeddings = settle_embeddings(parsed, section.unpriced, problems)
    kept = settle_prices(entries, section.unpriced, problems)
    for entry in kept:
        problems.add_all(entry.unset)
    by_name: dict[str, list[Entry]] = {}
    for entry in kept:
        by_name.setdefault(entry.name, []).append(entry)
    if document.model_lists and not kept and len(problems.found) == before:
        problems.add(document.model_lists[0][0], _why_empty(document, problems.left_out))
    declared |= by_name.keys()
    aliases = check_aliases(read_aliases(document.sections, context), declared, context)
    efforts = {
        name: single_efforts([(entry.place, entry.efforts) for entry in group], problems)
        for name, group in by_name.items()
    }
    named = {name: effort_names(name, found) for name, found in efforts.items() if found}
    _check_effort_names(by_name, named, problems)
    declared |= {arm for names in named.values() for arm in names}
    for name, group in by_name.items():
        for entry in group:
            if entry.batch is not None:
                place = f"{entry.place}.model_info.batch"
                check_batch_names(name, place, efforts[name], frozenset(declared), problems)
    _check_priors(by_name, declared, named, problems)
    default_cap = section.workload.default_max_concurrency
    merged = [_merge(name, group, problems, default_cap) for name, group in by_name.items()]
    pool = [one for each in merged if each is not None for one in _split_into_efforts(each, efforts[each.model.name])]
    stands_for = {name: f"{name}{SEPARATOR}{middle_effort(found).name}" for name, found in efforts.items() if found}
    pool = [replace(entry, assume_like=stands_for.get(entry.assume_like or "", entry.assume_like)) for entry in pool]
    tags = frozenset(tag for entry in kept for tag in entry.tags)
    return Pool(tuple(pool), frozenset(declared), tags, aliases, named, embeddings)


def _parse_entries(document: Document, context: ParseContext) -> tuple[list[Entry], set[str]]:
    """Parse the entries. Return those that can be read, and the names of the others."""
    inherited = read_inherited(document.sections, context)
    entries: list[Entry] = []
    wrong: set[str] = set()
    for place, listed in document.model_lists:
        for index, raw in enumerate(_read_list(listed, place, context.problems)):
            before = len(context.problems.found)
            entry = parse_entry(raw, f"{place}[{index}]", context, inherited)
            if entry is not None:
                entries.append(entry)
            elif isinstance(raw, dict) and len(context.problems.found) > before:
                wrong.add(str(raw.get("model_name")))
    return entries, wrong


def _read_list(listed: object, place: str, problems: Problems) -> list[object]:
    if isinstance(listed, list):
        return listed
    if listed is not None:
        problems.add(place, f"is {describe_yaml(listed)}, must be a list of models")
    return []


def _why_empty(document: Document, left_out: Mapping[str, str]) -> str:
    if left_out:
        reasons = "; ".join(f"{name!r}: {reason}" for name, reason in list(left_out.items())[:3])
        more = f"; and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        return f"leaves no model that can be routed to ({reasons}{more})"
    rule = "is empty, must list at least one model (model_name, litellm_params)"
    general = document.sections.get("general_settings")
    if isinstance(general, Mapping) and general.get("store_model_in_db"):
        return f"{rule}; models that LiteLLM keeps in its database are not read"
    return f"{rule}; are all its entries commented out?"


def _check_effort_names(
    by_name: Mapping[str, list[Entry]], named: Mapping[str, tuple[str, ...]], problems: Problems
) -> None:
    for name, arms in named.items():
        for arm in arms:
            if arm in by_name:
                place = f"{by_name[arm][0].place}.model_name"
                problems.add(place, f"is also the name of an effort of {name!r}; rename one of them")


def _check_priors(
    by_name: Mapping[str, list[Entry]],
    declared: set[str],
    efforts: Mapping[str, tuple[str, ...]],
    problems: Problems,
) -> None:
    model_of = {arm: name for name, arms in efforts.items() for arm in arms}
    for name, group in by_name.items():
        for entry in group:
            place = f"{entry.place}.model_info.assume_like"
            if entry.assume_like is not None and entry.assumed_quality is not None:
                problems.add(place, "stands beside assumed_quality; keep one")
            if model_of.get(entry.assume_like or "", entry.assume_like) == name:
                problems.add(place, f"is {name!r}, must name another model of the pool")
            elif entry.assume_like is not None and entry.assume_like not in declared:
                meant = did_you_mean(entry.assume_like, declared)
                problems.add(place, f"is {entry.assume_like!r}, must name a model of the pool{meant}")
    for name, group in by_name.items():
        if _goes_in_a_circle(name, by_name, model_of):
            problems.add(f"{group[0].place}.model_info.assume_like", "leads back to the model itself; end the circle")


def _goes_in_a_circle(name: str, by_name: Mapping[str, list[Entry]], model_of: Mapping[str, str]) -> bool:
    seen = [name]
    while True:
        following = next((entry.assume_like for entry in by_name.get(seen[-1], ()) if entry.assume_like), None)
        following = model_of.get(following or "", following)
        if following is None or following == seen[-1]:
            return False
        if following in seen:
            return following == name
        seen.append(following)


def _merge(name: str, group: list[Entry], problems: Problems, default_cap: int | None) -> PoolEntry | None:
    """Merge the deployments of one model.

    Where they differ, the model promises what every deployment can do, at the highest price.
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
            context_price=price.by_context,
            cache_lifetime_s=properties["cache_lifetime_s"],
        ),
        deployments=tuple(entry.deployment for entry in group),
        assume_like=assume_like,
        assumed_quality=assumed_quality,
        usd_per_gpu_hour=price.usd_per_gpu_hour,
        tokens_per_hour=price.tokens_per_hour,
        batch=next(((entry.batch, entry.deployment) for entry in group if entry.batch is not None), None),
    )


def _merge_property(key: str, group: list[Entry], problems: Problems) -> Any:
    """Take the least that any deployment promises, or None when nobody says anything."""
    properties = [entry.properties.get(key) for entry in group]
    sourced = [(entry, found) for entry, found in zip(group, properties, strict=True) if found is not None]
    _warn_of_difference(_PROPERTY_NAMES[key], [(e.place, f) for e, f in sourced], problems, "the smallest", min)
    if key in {"context_window", "max_output_tokens", "cache_lifetime_s"}:
        return min((found.value for _, found in sourced), default=None)
    return bool(sourced) and len(sourced) == len(group) and all(found.value for _, found in sourced)


def _warn_of_difference(
    name: str,
    sourced: list[tuple[str, SourcedValue]],
    problems: Problems,
    kept: str,
    choose: Callable[[Iterable[Any]], Any],
) -> None:
    if len({found.value for _, found in sourced}) < 2:
        return
    listed = "; ".join(f"{_show(found.value)} in {place.partition(' ')[0]}" for place, found in sourced)
    taken = _show(choose(found.value for _, found in sourced))
    problems.warn(sourced[0][0], f"its deployments differ in {name}: {listed}. Taken: {kept}, {taken}")


def _show(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _merge_prices(group: list[Entry], problems: Problems) -> Price | None:
    prices = [(entry.place, entry.price) for entry in group if isinstance(entry.price, Price)]
    if not prices:
        return None
    for side, name in (("input", "price per input token (USD)"), ("output", "price per output token (USD)")):
        sourced = [(place, SourcedValue(getattr(price, side), price.stated)) for place, price in prices]
        _warn_of_difference(name, sourced, problems, "the dearest", max)
    known = [price for _, price in prices]
    by_context = [price.by_context for price in known if price.by_context is not None]
    if by_context and len(by_context) < len(known):
        rule = "has deployments with a price by context and others without; price all alike, or make them two models"
        problems.add(group[0].place, rule)
    dearest = max(known, key=lambda price: (price.input + price.output, price.input))
    return Price(
        input=max(price.input for price in known),
        output=max(price.output for price in known),
        cached_input=_dearest([price.cached_input for price in known]),
        reasoning=_dearest([price.reasoning for price in known]),
        usd_per_gpu_hour=dearest.usd_per_gpu_hour,
        tokens_per_hour=dearest.tokens_per_hour,
        by_context=max(by_context, key=lambda price: price.usd_per_output_token[-1], default=None),
    )


def _dearest(prices: Sequence[float | None]) -> float | None:
    """Return the highest price, or None when a deployment has no such price and uses the ordinary one."""
    known = [price for price in prices if price is not None]
    return max(known) if len(known) == len(prices) else None


def _single(key: str, group: list[Entry], problems: Problems, read: Callable[[Entry], Any]) -> Any:
    """Read what all deployments of a model have in common. Two values are a problem."""
    stated = [(entry.place, read(entry)) for entry in group if read(entry) is not None]
    if len({value for _, value in stated}) > 1:
        listed = "; ".join(f"{_show(value)} in {place.partition(' ')[0]}" for place, value in stated)
        rule = f"deployments of one model contradict each other in {key}: {listed}. Make them equal, or two models"
        problems.add(stated[-1][0], rule)
    return stated[0][1] if stated else None


def _total_cap(group: list[Entry], default_cap: int | None) -> int | None:
    """Add the caps. Without any, the workload's default counts. When only some have one, there is no cap."""
    caps = [entry.max_concurrency for entry in group if entry.max_concurrency is not None]
    if not caps:
        return default_cap
    return sum(caps) if len(caps) == len(group) else None


def _split_into_efforts(entry: PoolEntry, efforts: Sequence[Effort]) -> tuple[PoolEntry, ...]:
    """Return one entry for each effort, all with the deployments of the model. Without efforts, the entry itself."""
    return tuple(_at_effort(entry, effort) for effort in efforts) or (entry,)


def _at_effort(entry: PoolEntry, effort: Effort) -> PoolEntry:
    model = entry.model
    limits = [limit for limit in (model.max_output_tokens, effort.output_limit) if limit is not None]
    named = replace(
        model,
        name=f"{model.name}{SEPARATOR}{effort.name}",
        effort_of=model.name,
        max_output_tokens=min(limits, default=None),
    )
    shown = Effort(effort.name, RedactedMapping(dict(effort.parameters), frozenset()))
    return replace(entry, model=named, effort=shown)
