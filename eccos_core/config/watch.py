"""Watches a YAML file. Each change gives a new `Config`, or a `ConfigError` that changes nothing."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

from eccos_core.config.load import load_config
from eccos_core.config.schema import Config
from eccos_core.errors import ConfigError


def config_changes(path: str | Path, stop: threading.Event | None = None) -> Iterator[Config | ConfigError]:
    """Yield each change from this call on: the new configuration, or what is wrong with it.

    The iterator blocks between changes, so give it a thread of its own. Set `stop` to end it. The YAML files beside the
    file are watched too, because it may include them. Environment variables are not watched. A change that leaves the
    content as it was does not count.
    """
    file = Path(path).expanduser().resolve()
    return _changes(file, _fingerprint(file), stop)


def _changes(file: Path, last: str, stop: threading.Event | None) -> Iterator[Config | ConfigError]:
    from watchfiles import watch

    # the folder is watched, not the file: editors and Kubernetes replace files, and a replaced file is another one
    for _ in watch(
        file.parent, stop_event=stop, recursive=False, debounce=200, rust_timeout=500, yield_on_timeout=True
    ):
        now = _fingerprint(file)
        if now == last:
            continue
        last = now
        try:
            yield load_config(file)
        except ConfigError as error:
            yield error


def _fingerprint(file: Path) -> str:
    """Hash the file and the other YAML files of its folder, which it may include."""
    digest = hashlib.sha256()
    for one in sorted({file, *file.parent.glob("*.yaml"), *file.parent.glob("*.yml")}):
        try:
            content = one.read_bytes()
        except OSError:
            content = b""
        digest.update(f"{one.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
