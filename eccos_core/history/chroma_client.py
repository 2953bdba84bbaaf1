"""Connect to Chroma, open collections, and translate its errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from eccos_core.errors import HistoryError
from eccos_core.io.forks import ProcessGuard
from eccos_core.io.optional import needs_extra

FORMAT = 1
SEARCH_WIDTH = 256  # HNSW's ef_search: recall 0.999 of the 64 nearest among 9,000
NEVER_SYNC = 2_000_000_000
"""HNSW's sync_threshold: the number of rows between two writes of the index to disk.

Chroma writes the index files in place. A kill during a write leaves an index that does not open ("Failed to apply logs
to the hnsw segment writer", 10 of 12 kills aimed at it). So the index is never written. Chroma keeps the whole log in
SQLite, which survives a kill, and builds the index from it when the collection is opened. That takes 1.8 s of CPU for
9,000 rows of 384 dimensions.
"""
Result = TypeVar("Result")
_embedded: ProcessGuard | None = None  # of the first store that this process or its parent has opened


def client_in_folder(path: str | Path) -> tuple[Any, str]:
    """Return a client of the store in a folder, and the store's name for messages."""
    place = f"history {path}"
    chromadb, settings = _embedded_chroma(place)
    return call_chroma(place, lambda: chromadb.PersistentClient(str(path), settings=settings)), place


def client_of_server(url: str, headers: Mapping[str, str] | None = None) -> tuple[Any, str]:
    """Return a client of a server (`http://host:port` or `https://...`) and its name for messages, without a password.

    `headers`, for example a token, go with every call and never into a message.
    """
    chromadb, settings = _chromadb()
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise HistoryError(f"the address of the history server is not valid: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise HistoryError("the address of the history server is not valid. Write http://host:port or https://host.")
    secure = parts.scheme == "https"
    port = port or (443 if secure else 8000)
    place = f"history server {parts.scheme}://{parts.hostname}:{port}"
    client = call_chroma(
        place,
        lambda: chromadb.HttpClient(
            host=parts.hostname, port=port, ssl=secure, headers=dict(headers or {}), settings=settings
        ),
    )
    return client, place


def client_in_memory() -> tuple[Any, str]:
    """Return a client of the store in memory, which all such clients of this process share."""
    place = "history in memory"
    chromadb, settings = _embedded_chroma(place)
    return call_chroma(place, lambda: chromadb.EphemeralClient(settings=settings)), place


def open_collection(client: Any, name: str, encoder: str, dimensions: int) -> Any:
    """Open the collection and create it if there is none. Two processes that create it at once get the same one."""
    with needs_extra("chroma", "a history in Chroma"):
        from chromadb.errors import NotFoundError

    try:
        return client.get_collection(name, embedding_function=None)
    except NotFoundError:
        return client.get_or_create_collection(
            name,
            embedding_function=None,  # Chroma's own would download a model
            configuration={"hnsw": {"space": "cosine", "ef_search": SEARCH_WIDTH, "sync_threshold": NEVER_SYNC}},
            metadata={"eccos_format": FORMAT, "encoder": encoder, "dimensions": dimensions},
        )


def _embedded_chroma(place: str) -> tuple[Any, Any]:
    """Import chromadb for a store in this process. Refuses a forked child of a process that has opened one.

    Chroma's threads do not exist in the child, and every call there would wait for ever.
    """
    global _embedded
    if _embedded is None:
        _embedded = ProcessGuard(place)
    _embedded.check()
    return _chromadb()


def _chromadb() -> tuple[Any, Any]:
    """Import chromadb late. Returns the package and settings without telemetry."""
    with needs_extra("chroma", "a history in Chroma"):
        import chromadb
        from chromadb.config import Settings
    return chromadb, Settings(anonymized_telemetry=False)


def call_chroma(place: str, call: Callable[[], Result]) -> Result:
    """Call Chroma and translate its errors into `HistoryError`."""
    import httpx

    with needs_extra("chroma", "a history in Chroma"):
        from chromadb.errors import ChromaError

    try:
        return call()
    except HistoryError:
        raise
    except httpx.HTTPError as error:
        raise HistoryError(f"{place} does not answer ({type(error).__name__}: {error})") from error
    except (ChromaError, ValueError, OSError, RuntimeError) as error:
        raise HistoryError(f"{place}: {error}") from error


def query_with_retry(place: str, call: Callable[[], Result]) -> Result:
    """Query Chroma, and retry if the query met the very first write to its collection.

    Chroma 1.5 sometimes fails such a query with "Nothing found on disk" and answers it the next time. See chroma-core
    issue 4212. It happened in one of 40 new collections under six threads.
    """
    for wait_s in (0.01, 0.05, 0.2, 0.5):
        try:
            return call_chroma(place, call)
        except HistoryError as error:
            if "Nothing found on disk" not in str(error):
                raise
            time.sleep(wait_s)
    return call_chroma(place, call)
