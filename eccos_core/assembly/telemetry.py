"""Builds the telemetry that a configuration asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eccos_core.telemetry.base import NO_TELEMETRY, Telemetry

if TYPE_CHECKING:
    from eccos_core.assembly.assembled import Assembled
    from eccos_core.config import Config


def reuse_or_build_telemetry(config: Config, current: Assembled | None) -> Telemetry:
    """Return the telemetry of the pool. The instruments in use go on."""
    from eccos_core.telemetry import OpenTelemetry

    if not config.telemetry.enabled:
        return NO_TELEMETRY
    before = current.parts.telemetry if current is not None else None
    if isinstance(before, OpenTelemetry):
        return before.for_pool(config.models, log_prompts=config.telemetry.log_prompts)
    return OpenTelemetry(config.models, log_prompts=config.telemetry.log_prompts)
