"""Let replicas keep the targets of their streams together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eccos_core.streaming import StreamController

if TYPE_CHECKING:
    from eccos_core.config import Config
    from eccos_core.routing.parts import Parts


def share_streams(config: Config, parts: Parts) -> None:
    """Share each stream of these parts with the replicas that ask the same of it.

    What the file says identifies a stream. What is fitted to a history may differ a little between replicas.
    """
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
