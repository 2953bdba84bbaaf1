"""Builds the backend of a pool: local models in this process, all others through LiteLLM, retries around both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eccos_core.assembly.effort_backends import with_efforts, with_stop_early
from eccos_core.telemetry.base import NO_TELEMETRY, Telemetry

if TYPE_CHECKING:
    from eccos_core.assembly.assembled import Assembled
    from eccos_core.config import Config, PoolEntry
    from eccos_core.protocols import Backend


def reuse_or_build_backend(config: Config, telemetry: Telemetry, current: Assembled | None) -> Backend:
    """Return the backend in use where nothing of it changes. So connections and local models stay."""
    if current is not None and _settings(current.config) == _settings(config):
        return current.parts.backend
    return build_backend(config, telemetry)


def build_backend(config: Config, telemetry: Telemetry = NO_TELEMETRY) -> Backend:
    """Build the backend that calls every model of the pool. `telemetry` sees every call, retries included."""
    from eccos_core.backends.retrying import RetryingBackend, RetryPolicy
    from eccos_core.telemetry import OpenTelemetry, TracedBackend

    backend = with_efforts(config, _calling_backend(config))
    if isinstance(telemetry, OpenTelemetry):
        backend = TracedBackend(backend, telemetry)
    retries = config.retries
    return RetryingBackend(
        backend, RetryPolicy(retries.attempts, retries.initial_backoff_s, retries.max_backoff_s, retries.deadline_s)
    )


def needs_litellm(config: Config) -> bool:
    """Whether some model of the pool is called through LiteLLM, which takes seconds to import."""
    return not all(map(_runs_here, config.pool))


def _calling_backend(config: Config) -> Backend:
    """Local models are called in this process, all others through LiteLLM."""
    from eccos_core.backends import LiteLLMBackend, LocalBackend, PerModelBackend
    from eccos_core.backends.litellm.backend import DECIDED_HERE
    from eccos_core.backends.local.registry import LOCAL_PREFIX

    # a price by context is charged as it is decided by, and not by the speed of the moment
    gpu_hours = {
        entry.model.name: entry.usd_per_gpu_hour
        for entry in config.pool
        if entry.usd_per_gpu_hour is not None and entry.model.context_price is None
    }
    here = {entry.model.name: entry.deployments[0] for entry in config.pool if _runs_here(entry)}
    elsewhere = {entry.model.name: entry.deployments for entry in config.pool if not _runs_here(entry)}
    if not here:
        return with_stop_early(config, LiteLLMBackend(elsewhere, config.models, usd_per_gpu_hour=gpu_hours))
    local = LocalBackend(
        {name: way.litellm_model.removeprefix(LOCAL_PREFIX) for name, way in here.items()},
        config.models,
        parameters={
            name: {key: value for key, value in way.parameters.items() if key not in DECIDED_HERE}
            for name, way in here.items()
        },
        usd_per_gpu_hour=gpu_hours,
    )
    if not elsewhere:
        return local
    through_litellm = with_stop_early(config, LiteLLMBackend(elsewhere, config.models, usd_per_gpu_hour=gpu_hours))
    return PerModelBackend({**dict.fromkeys(here, local), **dict.fromkeys(elsewhere, through_litellm)})


def _runs_here(entry: PoolEntry) -> bool:
    """Whether a model is local, and reached in one way. LiteLLM balances several ways."""
    from eccos_core.backends.local.registry import LOCAL_PREFIX

    return len(entry.deployments) == 1 and entry.deployments[0].litellm_model.startswith(LOCAL_PREFIX)


def _settings(config: Config) -> tuple[object, ...]:
    """Return all that a backend is made of."""
    return config.pool, config.retries, config.telemetry, config.stop_early
