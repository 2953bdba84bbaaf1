"""Builds what calls the batch APIs of providers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eccos_core.config import Config

if TYPE_CHECKING:
    from eccos_core.backends.provider_batches.provider import ProviderBatches


def build_provider_batches(config: Config) -> ProviderBatches | None:
    """Build the batch APIs of the pool. None if no model has one."""
    offered = [(entry, entry.batch) for entry in config.pool if entry.batch is not None]
    if not offered:
        return None
    from eccos_core.backends.provider_batches.connections import BatchDeployment
    from eccos_core.backends.provider_batches.provider import ProviderBatches
    from eccos_core.backends.provider_batches.state import ProviderBatchFolder

    asked = config.provider_batches
    return ProviderBatches(
        [
            BatchDeployment(entry.model, deployment, offer, {} if entry.effort is None else entry.effort.parameters)
            for entry, (offer, deployment) in offered
        ],
        ProviderBatchFolder(asked.folder),
        poll_s=asked.poll_s,
        max_poll_s=asked.max_poll_s,
    )
