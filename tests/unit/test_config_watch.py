"""Hot reload: a change is a new configuration or an error, and nothing else is a change."""

import threading
from pathlib import Path

import pytest

from eccos_core.config import Config, config_changes
from eccos_core.errors import ConfigError

ENTRY = "model_list: [{{model_name: {name}, litellm_params: {{model: gpt-4o}}}}]\n"


def test_valid_changes_arrive_invalid_ones_are_reported_and_touching_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "eccos.yaml"
    file.write_text(ENTRY.format(name="first"))
    stop = threading.Event()
    seen: list[Config | ConfigError] = []
    arrived = threading.Semaphore(0)

    changes = config_changes(file, stop)

    def watch() -> None:
        for change in changes:
            seen.append(change)
            arrived.release()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        file.write_text(ENTRY.format(name="second"))
        assert arrived.acquire(timeout=30)
        file.write_text("model_list: []")
        assert arrived.acquire(timeout=30)
        file.touch()
        (tmp_path / "notes.txt").write_text("not a configuration")
        replacement = tmp_path / "new"
        replacement.write_text(ENTRY.format(name="third"))
        replacement.rename(file)
        assert arrived.acquire(timeout=30)
    finally:
        stop.set()
        thread.join(timeout=30)

    assert not thread.is_alive()
    assert len(seen) == 3
    second, empty, third = seen
    assert isinstance(second, Config)
    assert second.models[0].name == "second"
    assert isinstance(empty, ConfigError)
    assert "is empty, must list at least one model" in str(empty)
    assert isinstance(third, Config)
    assert third.models[0].name == "third"


def test_a_file_that_disappears_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "eccos.yaml"
    file.write_text(ENTRY.format(name="first"))
    stop = threading.Event()
    changes = config_changes(file, stop)
    remover = threading.Timer(1.0, file.unlink)
    remover.start()
    try:
        gone = next(changes)
    finally:
        stop.set()
        remover.join()
    with pytest.raises(ConfigError, match="the file does not exist"):
        raise gone if isinstance(gone, ConfigError) else AssertionError(gone)
