"""The embedding models that the server passes requests on to. A reload of the configuration replaces them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eccos_core.backends.litellm.embedder import LiteLLMEmbedder
from eccos_core.backends.retrying import RetryPolicy
from eccos_core.config import Config, EmbeddingEntry


@dataclass(frozen=True, slots=True)
class EmbeddingService:
    """What calls the models, and the price of each in USD per input token. It stays as it is through a request."""

    embedder: LiteLLMEmbedder
    usd_per_token: Mapping[str, float] = field(default_factory=dict)


class EmbeddingModels:
    """The embedding models of one server. Requests in flight end on the models that they began with."""

    def __init__(self, entries: Sequence[EmbeddingEntry] = (), retries: RetryPolicy | None = None) -> None:
        self._made_of: tuple[tuple[EmbeddingEntry, ...], RetryPolicy | None] = tuple(entries), retries
        self.current = _build(*self._made_of)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models."""
        return tuple(self.current.usd_per_token)

    def follow(self, config: Config) -> None:
        """Put the models of another version of the configuration into use. The same models keep their connections."""
        made_of = config.embeddings, _retries_of(config)
        if made_of != self._made_of:
            self._made_of, self.current = made_of, _build(*made_of)


def _build(entries: Sequence[EmbeddingEntry], retries: RetryPolicy | None) -> EmbeddingService:
    embedder = LiteLLMEmbedder({entry.name: entry.deployments for entry in entries}, retries)
    return EmbeddingService(embedder, {entry.name: entry.usd_per_input_token for entry in entries})


def _retries_of(config: Config) -> RetryPolicy:
    said = config.retries
    return RetryPolicy(said.attempts, said.initial_backoff_s, said.max_backoff_s, said.deadline_s)
