"""What happens to entries of `model_list` without a price: left out, free, or an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from eccos_core.config.parse_model import Entry
from eccos_core.config.parse_price import Price, Unpriced
from eccos_core.config.problems import Problems

UnpricedRule: TypeAlias = Literal["leave_out", "free", "error"]


def settle_prices(entries: Sequence[Entry], rule: UnpricedRule, problems: Problems) -> list[Entry]:
    """Return the entries that join the pool, after the rule for those without a price.

    Where no entry at all has a price, there is no cost to compare. Then `leave_out` lets all of them count as free.
    """
    unpriced = [(entry, entry.price.advice) for entry in entries if isinstance(entry.price, Unpriced)]
    all_are_free = rule == "leave_out" and bool(unpriced) and len(unpriced) == len(entries)
    for entry, advice in unpriced:
        if rule == "error":
            problems.add(entry.place, advice)
        elif all_are_free:
            problems.warn(entry.place, f"counts as free: {advice}")
        elif rule == "leave_out":
            problems.leave_out(entry.place, entry.name, advice)
    if all_are_free:
        rule_broken = "no model has a price, so eccos cannot compare costs and all count as free: 0 USD is reported"
        problems.not_apply("model_list", f"{rule_broken}, and no budget binds. Give each a price, see the warnings")
    keeps_all = rule == "free" or all_are_free
    return [
        replace(entry, price=Price(0.0, 0.0)) if isinstance(entry.price, Unpriced) else entry
        for entry in entries
        if keeps_all or rule == "error" or not isinstance(entry.price, Unpriced)
    ]
