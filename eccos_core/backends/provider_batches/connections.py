"""What is open towards the batch APIs of a pool's models: the translation of rows, the API, and its HTTP client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eccos_core.backends.litellm.load_balancer import DeploymentLike
from eccos_core.backends.litellm.provider import provider_of
from eccos_core.backends.provider_batches.anthropic_api import AnthropicBatchApi
from eccos_core.backends.provider_batches.api import BatchApi
from eccos_core.backends.provider_batches.client import BatchClient
from eccos_core.backends.provider_batches.openai_api import OpenAIBatchApi
from eccos_core.backends.provider_batches.rows import BatchRows
from eccos_core.domain import BatchOffer, Model
from eccos_core.errors import UnknownModelError
from eccos_core.io.tokens import text_key


@dataclass(frozen=True, slots=True)
class BatchDeployment:
    """A model of the pool whose deployment offers a batch API. `effort` are its call parameters, if it is an effort."""

    model: Model
    deployment: DeploymentLike
    offer: BatchOffer
    effort: Mapping[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """A digest of where the deployment is. A batch belongs to it, whatever the model is called in the pool."""
        given = self.deployment.parameters
        return text_key(f"{self.deployment.litellm_model} {given.get('api_base') or given.get('base_url') or ''}")[:16]


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """What is open towards one model's batch API. Rows are written and read one at a time, under `lock`."""

    rows: BatchRows
    place: str
    api: BatchApi
    client: BatchClient
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Connections:
    """Connections to the batch APIs of models, opened when they are needed. Close them at the end."""

    def __init__(self, models: Mapping[str, BatchDeployment]) -> None:
        self._models = models
        self._open: dict[str, Connection] = {}

    async def get(self, model: str) -> Connection:
        """Return the connection of a model. Raises `UnknownModelError`, and `BackendError` where its key is missing."""
        known = self._models.get(model)
        if known is None:
            raise UnknownModelError(model, self._models)
        if model not in self._open:
            rows = BatchRows(known.model, known.deployment, known.offer, known.effort)
            url, headers = await rows.address()
            client = BatchClient(model, url, headers)
            api = AnthropicBatchApi(client) if provider_of(known.deployment) == "anthropic" else OpenAIBatchApi(client)
            self._open[model] = Connection(rows, known.place, api, client)
        return self._open[model]

    async def close(self) -> None:
        """Close what is open."""
        while self._open:
            _, connection = self._open.popitem()
            await connection.client.close()
