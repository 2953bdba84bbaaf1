"""A running server follows its configuration file: budgets, what happens near a limit, and embedding models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from eccos_core.config import Config, KeysConfig, ServerConfig
from eccos_core.router import Router
from eccos_core.server.embedding_models import EmbeddingModels
from eccos_core.server.gate import Gate
from eccos_core.server.keys.build import find_database
from eccos_core.server.keys.gate import KeyGate

_log = logging.getLogger("eccos.server")


def follow_file(
    router: Router,
    path: Path,
    gate: Gate,
    embeddings: EmbeddingModels,
    began_with: ServerConfig,
    with_options: Callable[[ServerConfig], ServerConfig] = lambda server: server,
) -> None:
    """Put each version of the file into use that the router uses, for the requests that come from then on.

    `began_with` is what the server listens with. `with_options` puts options of the command line in place of what the
    file says. What was spent stays in the database of keys. What needs a restart is logged as a warning.
    """

    def apply(config: Config) -> None:
        embeddings.follow(config)
        said = with_options(config.server)
        if isinstance(gate, KeyGate):
            keys = said.keys or KeysConfig()
            gate.follow(keys.near_limit, keys.budgets(), keys.wrong_keys_per_minute)
        for name in _need_restart(path, gate, began_with, said):
            _log.warning("%s: eccos.server.%s has changed. It takes effect when you restart the server.", path, name)

    router.listen(apply)


def _need_restart(path: Path, gate: Gate, before: ServerConfig, now: ServerConfig) -> Iterator[str]:
    for name in ("host", "port", "max_body_mb", "cors_origins"):
        if getattr(before, name) != getattr(now, name):
            yield name
    if not isinstance(gate, KeyGate):
        if now.keys is not None:
            yield "keys"
    elif find_database(path, before) != find_database(path, now):
        yield "keys.database"
