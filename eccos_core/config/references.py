"""Names in `eccos:` must exist in the pool: the models of groups, tenants and judges, and their tags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from eccos_core.backends.litellm.continuation import can_continue
from eccos_core.config.parse_pool import Pool
from eccos_core.config.problems import Problems
from eccos_core.errors import did_you_mean

if TYPE_CHECKING:
    from eccos_core.config.sections import StopEarlyConfig


def check_references(section: object, pool: Pool, problems: Problems) -> None:
    """Report every model and every tag that no entry of the pool declares.

    `section` is the `eccos:` section as the file has it, so that names are checked beside other problems.
    """
    for place, key, names in _find_names(section):
        if key in {"model", "models", "allow", "deny"}:
            _check_models(names, f"{place}.{key}", pool, problems)
            if key == "model" or place == "eccos.shadow":
                _check_efforts(names, f"{place}.{key}", pool, problems)
        else:
            _check_tags(names, f"{place}.{key}", pool, problems)


def check_stop_early(section: StopEarlyConfig | None, pool: Pool, problems: Problems) -> None:
    """Report models whose thinking cannot be stopped early, and chat templates that are no files."""
    if section is None:
        return
    place = "eccos.stop_early.templates"
    _check_models(section.templates, place, pool, problems)
    for name, path in section.templates.items():
        ways = [way for entry in pool.entries if entry.model.is_named_in({name}) for way in entry.deployments]
        cannot = [way for way in ways if not can_continue(way.litellm_model, way.parameters)]
        if cannot:
            problems.add(
                f"{place}.{name}",
                "names a model that cannot continue raw text. Its litellm_params need a server of your own with "
                "/v1/completions: a model such as hosted_vllm/NAME or openai/NAME, and an api_base",
            )
        if not path.exists():
            problems.add(f"{place}.{name}", f"is {str(path)!r}, which does not exist. Give a Jinja file or a folder")


def _find_names(section: object) -> Iterator[tuple[str, str, list[str]]]:
    """Find the lists of names: their place, key and names. A list that is wrong has been reported elsewhere."""
    if not isinstance(section, Mapping):
        return
    groups, tenants, policy = section.get("groups"), section.get("tenants"), section.get("policy")
    gap = policy.get("within_points_of") if isinstance(policy, Mapping) else None
    if isinstance(gap, Mapping) and isinstance(gap.get("model"), str):
        yield "eccos.policy.within_points_of", "model", [gap["model"]]
    labels, shadow = section.get("labels"), section.get("shadow")
    judge = labels.get("judge") if isinstance(labels, Mapping) else None
    if isinstance(judge, Mapping) and isinstance(judge.get("model"), str):
        yield "eccos.labels.judge", "model", [judge["model"]]
    yield from _names_of(shadow, "eccos.shadow", ("models",))
    if isinstance(groups, list):
        for index, group in enumerate(groups):
            yield from _names_of(group, f"eccos.groups[{index}]", ("models", "tags"))
    if isinstance(tenants, Mapping):
        for name, tenant in tenants.items():
            yield from _names_of(tenant, f"eccos.tenants.{name}", ("allow", "deny", "required_tags"))


def _names_of(mapping: Any, place: str, keys: tuple[str, ...]) -> Iterator[tuple[str, str, list[str]]]:
    if not isinstance(mapping, Mapping):
        return
    for key in keys:
        names = mapping.get(key)
        if isinstance(names, list):
            yield place, key, [name for name in names if isinstance(name, str)]


def _check_models(names: Iterable[str], place: str, pool: Pool, problems: Problems) -> None:
    for name in sorted(set(names) - pool.declared):
        if reason := problems.left_out.get(name):
            problems.add(place, f"names {name!r}, which is left out of the pool: {reason}")
            continue
        listed = ", ".join(sorted(pool.declared)) or "none"
        meant = did_you_mean(name, pool.declared)
        problems.add(place, f"names {name!r}, must name models of the pool ({listed}){meant}")


def _check_efforts(names: Iterable[str], place: str, pool: Pool, problems: Problems) -> None:
    """Report a model that has efforts where one of them is wanted."""
    for name in sorted(set(names) & pool.efforts.keys()):
        problems.add(place, f"names {name!r}, which has efforts; name one of them: {', '.join(pool.efforts[name])}")


def _check_tags(tags: Iterable[str], place: str, pool: Pool, problems: Problems) -> None:
    for tag in sorted(set(tags) - pool.tags):
        listed = ", ".join(sorted(pool.tags)) or "none"
        meant = did_you_mean(tag, pool.tags)
        problems.add(place, f"names the tag {tag!r}, which no model carries (carried: {listed}){meant}")
