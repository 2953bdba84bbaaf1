"""Cut a file of requests into shards: places in a JSON Lines file, each with a digest of its lines."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eccos_core.errors import DataError, InputError
from eccos_core.io.files import atomic_writer
from eccos_core.io.optional import needs_extra

_PARQUET_ROWS = 10_000  # read at once


@dataclass(frozen=True, slots=True)
class ShardPlace:
    """Where a shard lies in its file: `length` bytes from `offset`. Its first line is number `line`, counted from 1.

    `start` is the place of its first request in the batch, `requests` how many it has. `digest` is of its bytes.
    """

    index: int
    file: str
    offset: int
    length: int
    line: int
    start: int
    requests: int
    digest: str


def as_json_lines(requests: Path, folder: Path) -> Path:
    """Return the requests as a plain JSON Lines file. What is gzip or Parquet is written to `folder` as such first.

    Raises `DataError` for a file that cannot be read.
    """
    try:
        with requests.open("rb") as stream:
            head = stream.read(4)
    except OSError as error:
        raise DataError(str(requests), f"cannot be read ({error.strerror or error})") from error
    plain = folder / "input.jsonl"
    if head[:2] == b"\x1f\x8b":
        try:
            with gzip.open(requests, "rb") as packed, atomic_writer(plain) as stream:
                shutil.copyfileobj(packed, stream)
        except (gzip.BadGzipFile, EOFError) as error:
            raise DataError(str(requests), f"the gzip data is damaged ({error}); copy or compress it again") from error
        return plain
    if head == b"PAR1":
        _write_parquet_lines(requests, plain)
        return plain
    return requests


def _write_parquet_lines(requests: Path, plain: Path) -> None:
    with needs_extra("parquet", "reading requests from Parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        table = pq.ParquetFile(requests)
        with atomic_writer(plain) as stream:
            for batch in table.iter_batches(batch_size=_PARQUET_ROWS):
                for row in batch.to_pylist():
                    known = {name: value for name, value in row.items() if value is not None}
                    stream.write(json.dumps(known, ensure_ascii=False, default=str).encode() + b"\n")
    except pa.ArrowInvalid as error:
        raise DataError(str(requests), f"the Parquet data is damaged ({error}); copy or write it again") from error


def cut(requests: Path, rows: int) -> list[ShardPlace]:
    """Cut a JSON Lines file into shards of `rows` requests. Blank lines count for nothing. Nothing is parsed yet.

    Raises `DataError` for an empty file, `InputError` for `rows` below 1.
    """
    if rows < 1:
        raise InputError(f"a shard has {rows} requests, must be at least 1")
    places = list(_places(requests, rows))
    if not places:
        raise DataError(
            str(requests), "the file holds no requests. Write one JSON object per line, with query or messages."
        )
    return places


def _places(requests: Path, rows: int) -> Iterator[ShardPlace]:
    index, offset, length, first, start, count = 0, 0, 0, 1, 0, 0
    digest = hashlib.sha256()
    with requests.open("rb") as stream:
        for line, raw in enumerate(stream, start=1):
            digest.update(raw)
            length += len(raw)
            count += bool(raw.strip())
            if count == rows:
                yield ShardPlace(index, str(requests), offset, length, first, start, count, digest.hexdigest())
                index, offset, length, first, start, count = index + 1, offset + length, 0, line + 1, start + count, 0
                digest = hashlib.sha256()
    if count:
        yield ShardPlace(index, str(requests), offset, length, first, start, count, digest.hexdigest())


def read_shard(place: ShardPlace) -> Iterator[tuple[int, bytes]]:
    """(line number, bytes) of every line of a shard that is not blank."""
    with Path(place.file).open("rb") as stream:
        stream.seek(place.offset)
        lines = stream.read(place.length).split(b"\n")
    for number, raw in enumerate(lines, start=place.line):
        if raw.strip():
            yield number, raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
