"""The one place that knows every concrete class: it builds what a configuration names, and imports it late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eccos_core.config import (
    ChromaPersistentConfig,
    ChromaServerConfig,
    ConcatenatedConfig,
    EncoderConfig,
    HistoryConfig,
    InMemoryConfig,
    OptimizerConfig,
    SentenceTransformerConfig,
    StaticConfig,
)

if TYPE_CHECKING:
    from eccos_core.protocols import Encoder, HistoryStore, Optimizer


def build_encoder(config: EncoderConfig) -> Encoder:
    """The encoder that `eccos.encoder` names."""
    from eccos_core import encoders

    match config:
        case SentenceTransformerConfig(model=model, device=device, threads=threads):
            return encoders.SentenceTransformerEncoder(model, device=device, threads=threads)
        case StaticConfig(model=model, dimensions=dimensions):
            return encoders.StaticEncoder(model, dimensions=dimensions)
        case ConcatenatedConfig(encoders=parts):
            return encoders.ConcatenatedEncoder([build_encoder(part) for part in parts])


def build_history(config: HistoryConfig, encoder: Encoder) -> HistoryStore:
    """The history that `eccos.history` names; refused when it was made with another encoder."""
    from eccos_core import history

    match config:
        case ChromaPersistentConfig(path=path, collection=collection):
            return history.ChromaHistory.persistent(path, encoder.name, encoder.dimensions, collection=collection)
        case ChromaServerConfig(url=url, collection=collection):
            return history.ChromaHistory.server(url, encoder.name, encoder.dimensions, collection=collection)
        case InMemoryConfig():
            return history.MemoryHistory(encoder.name, encoder.dimensions)


def build_optimizer(config: OptimizerConfig) -> Optimizer:
    """The optimizer that `eccos.optimizer` names."""
    from eccos_core import optimizer

    match config.kind:
        case "dual":
            return optimizer.DualOptimizer()
        case "exact":
            return optimizer.ExactOptimizer(time_limit_s=config.time_limit_s)
        case "greedy":
            return optimizer.GreedyOptimizer()
