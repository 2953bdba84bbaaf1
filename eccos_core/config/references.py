"""Names that `eccos:` uses must exist in the pool: models of groups and tenants, and tags."""

from __future__ import annotations

from collections.abc import Iterable

from eccos_core.config.parse_pool import Pool
from eccos_core.config.schema import Config
from eccos_core.config.section import Problems
from eccos_core.errors import did_you_mean


def check_names(config: Config, pool: Pool, problems: Problems) -> None:
    """Note every model and every tag that no entry of the pool declares."""
    for index, group in enumerate(config.groups):
        place = f"eccos.groups[{index}]"
        _check_models(group.models, f"{place}.models", pool, problems)
        _check_tags(group.tags, f"{place}.tags", pool, problems)
    for name, tenant in config.tenants.items():
        place = f"eccos.tenants.{name}"
        _check_models(tenant.allow or (), f"{place}.allow", pool, problems)
        _check_models(tenant.deny, f"{place}.deny", pool, problems)
        _check_tags(tenant.required_tags, f"{place}.required_tags", pool, problems)


def _check_models(names: Iterable[str], place: str, pool: Pool, problems: Problems) -> None:
    for name in sorted(set(names) - pool.declared):
        listed = ", ".join(sorted(pool.declared)) or "none"
        meant = did_you_mean(name, pool.declared)
        problems.add(place, f"names {name!r}, must name models of the pool ({listed}){meant}")


def _check_tags(tags: Iterable[str], place: str, pool: Pool, problems: Problems) -> None:
    for tag in sorted(set(tags) - pool.tags):
        listed = ", ".join(sorted(pool.tags)) or "none"
        meant = did_you_mean(tag, pool.tags)
        problems.add(place, f"names the tag {tag!r}, which no model carries (carried: {listed}){meant}")
