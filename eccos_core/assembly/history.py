"""Opens the history that a configuration names, and the one that labels join."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eccos_core.assembly.finetuned import ReencodedHistory, is_fine_tuned
from eccos_core.assembly.predictor import cached_encoder
from eccos_core.config import ChromaPersistentConfig, ChromaServerConfig, Config, HistoryConfig, InMemoryConfig
from eccos_core.history.ingest import ingest

if TYPE_CHECKING:
    from eccos_core.assembly.assembled import Assembled
    from eccos_core.protocols import Encoder, OnlineHistory


def reuse_or_build_history(config: Config, encoder: Encoder, current: Assembled | None) -> OnlineHistory:
    """Return the history in use where encoder and settings stay, else open the one that is named now."""
    if current is not None and current.encoder is encoder and current.config.history == config.history:
        return current.history
    return build_history(config.history, encoder)


def build_history(config: HistoryConfig, encoder: Encoder) -> OnlineHistory:
    """Open the history that `eccos.history` names. Raises `HistoryError` when another encoder made it."""
    from eccos_core import history

    name, dimensions = encoder.name, encoder.dimensions
    match config:
        case ChromaPersistentConfig(path=path, collection=collection):
            return history.ChromaHistory.persistent(path, name, dimensions, collection=collection)
        case ChromaServerConfig(url=url, collection=collection, headers=headers):
            return history.ChromaHistory.server(url, name, dimensions, collection=collection, headers=headers)
        case InMemoryConfig(outcomes=outcomes):
            store = history.MemoryHistory(name, dimensions)
            if outcomes is not None:
                ingest(outcomes, store, cached_encoder(encoder))
            return store


def labelled_history(
    config: Config, encoder: Encoder, history: OnlineHistory, current: Assembled | None
) -> OnlineHistory:
    """Return the history that labels join. Under a fine-tuned encoder it encodes again what is added."""
    if not is_fine_tuned(config):
        return history
    kept = current.parts.decision_store.history if current is not None else None
    if isinstance(kept, ReencodedHistory) and kept.history is history:
        return kept
    return ReencodedHistory(history, encoder)
