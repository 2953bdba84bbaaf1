"""The embedding models of `model_list`: they answer no questions, but `eccos serve` embeds with them."""

from __future__ import annotations

from collections.abc import Sequence

from eccos_core.config.parse_model import Entry
from eccos_core.config.parse_price import Price, Unpriced
from eccos_core.config.problems import Problems
from eccos_core.config.schema import EmbeddingEntry
from eccos_core.config.unpriced import UnpricedRule

_SERVED = "`eccos serve` embeds with it at /v1/embeddings"


def settle_embeddings(entries: Sequence[Entry], rule: UnpricedRule, problems: Problems) -> tuple[EmbeddingEntry, ...]:
    """Return the embedding models among the entries, and say of each that it is not in the pool.

    Entries of one name are deployments of one model, at the highest price. An entry without a price follows `rule` as
    a chat model does. One whose variables are not set is not served, because it could not be called.
    """
    questions = [entry for entry in entries if entry.embeds is None]
    if rule == "leave_out" and not any(isinstance(entry.price, Price) for entry in questions):
        rule = "free"  # no cost of the pool is known, so there is nothing to compare
    taken = {entry.name for entry in questions}
    found: dict[str, list[tuple[Entry, Price]]] = {}
    for entry in entries:
        if entry.embeds is None:
            continue
        price = _settle_price(entry, rule, problems)
        why = _why_not_served(entry, price, taken)
        told = _SERVED if why is None else f"/v1/embeddings does not serve it: {why}"
        problems.leave_out(entry.place, entry.name, f"{entry.embeds}. {told}")
        if why is None and price is not None:
            found.setdefault(entry.name, []).append((entry, price))
    return tuple(
        EmbeddingEntry(
            name,
            tuple(entry.deployment for entry, _ in group),
            max(price.input for _, price in group),
        )
        for name, group in found.items()
    )


def _settle_price(entry: Entry, rule: UnpricedRule, problems: Problems) -> Price | None:
    if not isinstance(entry.price, Unpriced):
        return entry.price
    if rule == "error":
        problems.add(entry.place, entry.price.advice)
    return Price(0.0, 0.0) if rule == "free" else None


def _why_not_served(entry: Entry, price: Price | None, taken: set[str]) -> str | None:
    if entry.name in taken:
        return "a model of the pool has this name"
    if entry.unset.found:
        return "; ".join(f"{each.place.rpartition('.')[2]} {each.message}" for each in entry.unset.found)
    if price is None:
        return entry.price.advice if isinstance(entry.price, Unpriced) else "its price is wrong"
    return None
