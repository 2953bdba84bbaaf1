"""Builds what counts requests in flight: in this process, or shared with other replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eccos_core.errors import InputError

if TYPE_CHECKING:
    from eccos_core.assembly.assembled import Assembled
    from eccos_core.config import Config
    from eccos_core.routing.parts import Parts
    from eccos_core.workload import WorkloadTracker
    from eccos_core.workload.shared import SharedSettings


def reconfigure_workload(config: Config, current: Assembled | None) -> WorkloadTracker:
    """Return the workload with the caps of this configuration. The next version changes the same tracker.

    Its new caps hold at once. Raises `InputError` where the workload would move, and `SharedStateError`.
    """
    from eccos_core.workload import BreakerSettings, WorkloadTracker

    if current is not None and current.config.workload.shared != config.workload.shared:
        raise InputError(
            "eccos.workload.shared has changed. Requests hold slots of the old place. Restart to change it"
        )
    workload = _new_workload(config) if current is None else current.parts.workload
    assert isinstance(workload, WorkloadTracker)
    requests = {entry.model.name: entry.requests_per_minute for entry in config.pool}
    tokens = {entry.model.name: entry.tokens_per_minute for entry in config.pool}
    workload.reconfigure(
        config.models,
        requests_per_minute={name: limit for name, limit in requests.items() if limit is not None},
        tokens_per_minute={name: limit for name, limit in tokens.items() if limit is not None},
        breaker=BreakerSettings(
            failures=config.workload.breaker_failures,
            open_s=config.workload.breaker_open_s,
            warm_up_s=config.workload.warm_up_s,
        ),
        queue_length=config.workload.queue_length,
    )
    return workload


def share_streams(config: Config, parts: Parts) -> None:
    """Let replicas keep the targets of these parts' streams together.

    What the file says identifies a stream. What is fitted to a history may differ a little between replicas.
    """
    from eccos_core.streaming import StreamController
    from eccos_core.workload.shared import SharedWorkload

    workload = parts.workload
    assert isinstance(workload, SharedWorkload)
    streams = {f"default {config.policy}": parts.steering}
    streams |= {f"tenant {name} {config.tenants[name].policy}": each for name, each in parts.tenant_steering.items()}
    streams |= {f"policy {name} {each.policy}": each.steering for name, each in parts.policies.items()}
    workload.share_streams(
        {
            f"{name} {config.stream!r}": steering.share(workload.wake)
            for name, steering in streams.items()
            if isinstance(steering, StreamController)
        }
    )


def _new_workload(config: Config) -> WorkloadTracker:
    """The workload of this process, or that of one replica of several. Raises `SharedStateError`."""
    from eccos_core.workload import WorkloadTracker

    settings = shared_settings(config)
    if settings is None:
        return WorkloadTracker(config.models)
    from eccos_core.workload.shared import SharedWorkload

    return SharedWorkload(config.models, settings)


def shared_settings(config: Config) -> SharedSettings | None:
    """Return where replicas share their limits. None for a process that shares nothing."""
    shared = config.workload.shared
    if shared is None:
        return None
    from eccos_core.workload.shared import SharedSettings

    url = shared.url.get_secret_value()
    return SharedSettings(url, shared.name, shared.when_away, shared.lease_s, shared.timeout_s)
