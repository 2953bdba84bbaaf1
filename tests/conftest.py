"""What every test gets: no network beyond this machine, no hub, one torch thread, caches and settings of its own."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# before anything imports litellm, transformers or chromadb
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

TESTS = Path(__file__).resolve().parent
WITHOUT_SOCKETS = ("architecture", "property", "unit")
SHARED = TESTS.parent.parent / "shared"


@pytest.fixture(scope="session", autouse=True)
def _own_cache() -> Iterator[None]:
    """Embeddings and fitted predictors of the tests are kept in one folder of this machine, not in the user's cache."""
    folder = Path(tempfile.gettempdir()) / "eccos-tests-cache"
    before = os.environ.get("ECCOS_CACHE_DIR")
    os.environ["ECCOS_CACHE_DIR"] = str(folder)
    yield
    if before is None:
        del os.environ["ECCOS_CACHE_DIR"]
    else:
        os.environ["ECCOS_CACHE_DIR"] = before


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Forbid sockets where a test needs none, and skip tests of data that is not here.

    Unit, property and architecture tests may open no socket at all. pyproject.toml keeps all others on loopback. Tests
    marked `data` are skipped, by name, where `../shared/data` does not exist.
    """
    absent = pytest.mark.skip(reason=f"needs {SHARED / 'data'}, which is not here")
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if folder in WITHOUT_SOCKETS:
            item.add_marker(pytest.mark.disable_socket)
        if "data" in item.keywords and not (SHARED / "data").is_dir():
            item.add_marker(absent)
