"""Parses `model_info.batch` and the section `eccos.provider_batches`: what batch APIs of providers offer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from eccos_core.config.efforts import Effort
from eccos_core.config.problems import Problems
from eccos_core.config.section import Section
from eccos_core.config.section_model import ConfigPath, Positive, SectionModel
from eccos_core.domain import BATCH_ARM, BatchOffer

_PROVIDERS: Final = ("openai", "anthropic")
_KEYS: Final = ("discount", "within_s")


class ProviderBatchesConfig(SectionModel):
    """How batches at providers are kept and watched, for `complete_batch(..., patience_s=...)`."""

    folder: ConfigPath = Field(
        default=Path(".eccos/provider_batches"),
        description="Where open batches are kept, so that a process that was killed finds them again. No text, no "
        "answer and no key is in it.",
        validate_default=True,
    )
    poll_s: Positive = Field(default=15.0, description="Seconds until a batch is looked at for the first time.")
    max_poll_s: Positive = Field(default=300.0, description="Longest pause between two looks, in seconds.")


def parse_batch_offer(info: Section, provider: str) -> BatchOffer | None:
    """Parse `model_info.batch`. None where the entry has none, or `false`."""
    if info.raw("batch") in (None, False):
        return None
    section = Section({}, info.at("batch"), info.problems) if info.raw("batch") is True else info.section("batch")
    if section is None:
        return None
    before = len(info.problems.found)
    for key in section.values:
        if key not in _KEYS:
            info.problems.add(section.at(key), f"is unknown; a batch has {' and '.join(_KEYS)}")
    if provider not in _PROVIDERS:
        owner = provider or "an unknown provider"
        rule = f"stands at a model of {owner!r}; eccos speaks the batch APIs of openai and anthropic"
        info.problems.add(info.at("batch"), rule)
    discount: Any = section.number("discount", 0.5, high=1.0)
    within_s: Any = section.number("within_s", 86_400.0, above=True)
    if discount == 1.0:
        section.report("discount", "below 1, as nobody gives answers away")
    return BatchOffer(discount, within_s) if len(info.problems.found) == before else None


def check_batch_names(
    name: str, place: str, efforts: Sequence[Effort], names: frozenset[str], problems: Problems
) -> None:
    """Report a model of the pool, or an effort, that has the name of a batch API."""
    arm = f"{name}{BATCH_ARM}"
    if arm in names or any(f"@{effort.name}" == BATCH_ARM for effort in efforts):
        rule = f"gives {name!r} a batch API, which is called {arm!r}. A model or an effort has this name: rename it"
        problems.add(place, rule)
