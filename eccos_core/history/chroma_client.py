"""Getting at Chroma: clients, collections, and its errors in our words."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from eccos_core.errors import HistoryError
from eccos_core.io.optional import needs_extra

FORMAT = 1
SEARCH_WIDTH = 256  # HNSW's ef_search: recall 0.999 of the 64 nearest among 9,000
NEVER = 2_000_000_000
"""HNSW's sync_threshold, rows between two writes of the index to disk. Chroma writes those files in place: a process
killed within these milliseconds leaves an index that does not open ("Failed to apply logs to the hnsw segment writer";
10 of 12 kills aimed at it). So it is never written: Chroma keeps the whole log in SQLite, which is safe to kill, and
builds the index from it when the collection is opened (1.8 s of CPU for 9,000 rows of 384)."""
Result = TypeVar("Result")


def client_in_folder(path: str | Path) -> tuple[Any, str]:
    """A client of the store in a folder, and the place's name for messages."""
    chromadb, settings = _chromadb()
    place = f"history {path}"
    return translated(place, lambda: chromadb.PersistentClient(str(path), settings=settings)), place


def client_of_server(url: str, headers: Mapping[str, str] | None = None) -> tuple[Any, str]:
    """A client of a server, `http://host:port` or `https://...`, and its name for messages: never a password.

    `headers` are sent with every call (a token, say) and never stand in a message.
    """
    chromadb, settings = _chromadb()
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise HistoryError(f"the address of the history server is damaged: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise HistoryError("the address of the history server is not one; write http://host:port or https://host")
    secure = parts.scheme == "https"
    port = port or (443 if secure else 8000)
    place = f"history server {parts.scheme}://{parts.hostname}:{port}"
    client = translated(
        place,
        lambda: chromadb.HttpClient(
            host=parts.hostname, port=port, ssl=secure, headers=dict(headers or {}), settings=settings
        ),
    )
    return client, place


def client_in_memory() -> tuple[Any, str]:
    """A client of the store that all clients in memory of this process share."""
    chromadb, settings = _chromadb()
    place = "history in memory"
    return translated(place, lambda: chromadb.EphemeralClient(settings=settings)), place


def open_collection(client: Any, name: str, encoder: str, dimensions: int) -> Any:
    """The collection, made where there is none; two who make it at once get the same one."""
    with needs_extra("chroma", "a history in Chroma"):
        from chromadb.errors import NotFoundError

    try:
        return client.get_collection(name, embedding_function=None)
    except NotFoundError:
        return client.get_or_create_collection(
            name,
            embedding_function=None,  # Chroma's own would download a model
            configuration={"hnsw": {"space": "cosine", "ef_search": SEARCH_WIDTH, "sync_threshold": NEVER}},
            metadata={"eccos_format": FORMAT, "encoder": encoder, "dimensions": dimensions},
        )


def _chromadb() -> tuple[Any, Any]:
    """The package, imported late, and settings that tell nobody anything."""
    with needs_extra("chroma", "a history in Chroma"):
        import chromadb
        from chromadb.config import Settings
    return chromadb, Settings(anonymized_telemetry=False)


def translated(place: str, question: Callable[[], Result]) -> Result:
    """The answer of Chroma, its errors as `HistoryError`."""
    import httpx

    with needs_extra("chroma", "a history in Chroma"):
        from chromadb.errors import ChromaError

    try:
        return question()
    except HistoryError:
        raise
    except httpx.HTTPError as error:
        raise HistoryError(f"{place} does not answer ({type(error).__name__}: {error})") from error
    except (ChromaError, ValueError, OSError, RuntimeError) as error:
        raise HistoryError(f"{place}: {error}") from error


def searched(place: str, question: Callable[[], Result]) -> Result:
    """The answer to a query, asked again where it met the very first write to its collection.

    Chroma 1.5 answers such a query now and then with "Nothing found on disk" (chroma-core/chroma issue 4212; seen in
    one of 40 fresh collections under six threads) and is right the next time.
    """
    for wait_s in (0.01, 0.05, 0.2, 0.5):
        try:
            return translated(place, question)
        except HistoryError as error:
            if "Nothing found on disk" not in str(error):
                raise
            time.sleep(wait_s)
    return translated(place, question)
