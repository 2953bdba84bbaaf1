"""Uploaded and written files: kept in a folder, each owned by the key that made it, whole or not there at all."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from eccos_core.domain import new_id
from eccos_core.io.files import atomic_writer
from eccos_core.server.errors import ApiError
from eccos_core.server.json_text import dump_json, load_json

LEFT_OVER_S = 3_600.0  # a file that nobody has written to for so long is left over
PURPOSES = ("batch", "batch_output")
_ID = re.compile(r"file-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What is known about a file. `owner` names the key that made it, never the key itself."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    owner: str

    def describe(self) -> dict[str, Any]:
        """Return OpenAI's file object."""
        told = asdict(self)
        del told["owner"]
        return {**told, "object": "file", "status": "processed"}


class FileStore:
    """Files in a folder, with their metadata beside them. Its methods block: call them on a thread.

    `max_files` counts the files of one owner. Raises `ApiError` for what a caller may not do.
    """

    def __init__(self, folder: Path, max_files: int) -> None:
        self._folder, self._max_files = folder, max_files
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(".*"):  # of a write that was cut off, unless another process is at it
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left_over.stat().st_mtime > LEFT_OVER_S:
                    left_over.unlink()

    def add(self, content: IO[bytes], filename: str, purpose: str, owner: str) -> StoredFile:
        """Keep a copy of the content. Raises `ApiError` when the owner has too many files."""
        if sum(1 for _ in self.owned(owner)) >= self._max_files:
            message = f"you have {self._max_files} files, and may not have more. Delete some with DELETE /v1/files/ID."
            raise ApiError("permission", message)
        file_id = f"file-{new_id()}"
        with atomic_writer(self._folder / file_id) as stream:
            shutil.copyfileobj(content, stream)
            size = stream.tell()
        name = "".join(letter for letter in filename if letter.isprintable())[:200] or file_id
        stored = StoredFile(file_id, name, purpose, size, int(time.time()), owner)
        with atomic_writer(self._folder / f"{file_id}.json") as stream:
            stream.write(dump_json(asdict(stored)))
        return stored

    def get(self, file_id: str, owner: str) -> StoredFile:
        """Return a file of this owner. Raises `ApiError` for any other id, without a word about why."""
        if _ID.fullmatch(file_id):
            stored = self._read(self._folder / f"{file_id}.json")
            if stored is not None and stored.owner == owner:
                return stored
        raise ApiError("not_found", f"no file {file_id[:60]!r}. GET /v1/files lists yours.", param="file_id")

    def path(self, stored: StoredFile) -> Path:
        """Return where the content is."""
        return self._folder / stored.id

    def delete(self, file_id: str, owner: str) -> None:
        """Delete a file of this owner. Raises `ApiError` for any other id."""
        stored = self.get(file_id, owner)
        (self._folder / f"{stored.id}.json").unlink(missing_ok=True)
        self.path(stored).unlink(missing_ok=True)

    def owned(self, owner: str) -> Iterator[StoredFile]:
        """Yield the files of an owner, in no order."""
        for place in self._folder.glob("file-*.json"):
            stored = self._read(place)
            if stored is not None and stored.owner == owner:
                yield stored

    def _read(self, place: Path) -> StoredFile | None:
        try:
            return StoredFile(**load_json(place.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None


def paginate(listed: list[dict[str, Any]], after: str | None, limit: object, *, most: int = 100) -> dict[str, Any]:
    """Return one page of objects, newest first, as OpenAI lists them. Raises `ApiError` for an odd limit."""
    try:
        size = int(str(limit))
    except ValueError:
        size = 0
    if not 1 <= size <= most:
        raise ApiError("invalid_request", f"limit must be a whole number from 1 to {most}", param="limit")
    ordered = sorted(listed, key=lambda each: (each["created_at"], each["id"]), reverse=True)
    ids = [each["id"] for each in ordered]
    if after is not None and after not in ids:
        raise ApiError("invalid_request", f"after names nothing of yours: {after[:60]!r}", param="after")
    start = 0 if after is None else ids.index(after) + 1
    page = ordered[start : start + size]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + size < len(ordered),
    }
