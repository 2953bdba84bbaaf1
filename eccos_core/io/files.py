"""Files, read with errors for people and written whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from eccos_core.errors import DataError, InputError


def read_json_lines(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, JSON object) of every line that is not blank, of a JSON Lines file, plain or gzip.

    Raises `DataError` for a file that cannot be read, damaged gzip, UTF-8 or JSON, and lines that are no objects.
    """
    for number, raw in read_byte_lines(path):
        if raw.strip():
            yield number, parse_object(raw, str(path), number)


def read_byte_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, bytes) of every line of a file, plain or gzip, without a byte order mark.

    Raises `DataError` for a file that cannot be read and for damaged gzip.
    """
    name, number = str(path), 0
    try:
        with _open_binary(Path(path)) as stream:
            for number, raw in enumerate(stream, start=1):
                yield number, raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
    except FileNotFoundError as error:
        raise DataError(name, "no such file") from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(name, f"the gzip data is damaged ({error}); copy or compress it again", number + 1) from error
    except OSError as error:
        raise DataError(name, f"cannot be read ({error.strerror or error})") from error


def _open_binary(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed when it is called .gz or starts like gzip."""
    with path.open("rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
    if compressed or (path.suffix == ".gz" and path.stat().st_size):
        return io.BufferedReader(gzip.open(path, "rb"))
    return path.open("rb")


def parse_object(raw: bytes, file: str, line: int | None) -> dict[str, Any]:
    """The JSON object that the bytes are. Raises `DataError` for everything else."""
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(file, f"not UTF-8 (byte {raw[error.start]:#04x} at column {error.start + 1})", line) from error
    except json.JSONDecodeError as error:
        raise DataError(file, f"not JSON ({error.msg} at column {error.colno})", line) from error
    except (RecursionError, ValueError) as error:
        raise DataError(file, f"not JSON that can be read ({error})", line) from error
    if not isinstance(value, dict):
        raise DataError(file, f"must be one JSON object, this is {describe(value)}", line)
    return value


def describe(value: Any) -> str:
    """A value as an error shows it: short, and with its type where that is what is wrong."""
    shown = json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace").decode()
    if len(shown) > 60:
        shown = shown[:57] + "..."
    names = {dict: "an object", list: "a list", str: "the text", bool: "the truth value", type(None): ""}
    return f"{names.get(type(value), 'the number')} {shown}".strip()


@contextlib.contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` when the block ends well, and vanishes when it does not.

    Raises `InputError` where `path` is a folder.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder, so nothing can be written to it. Name a file in it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_sibling(place: Path) -> Path:
    """A fresh name beside a file or folder, for what takes its place when it is whole."""
    return place.with_name(f".{place.name}.{uuid.uuid4().hex}")


def replace_atomically(fresh: Path, place: Path) -> None:
    """Puts a file or folder where another may be; a folder is moved aside for the moment in between."""
    if not place.is_dir():
        fresh.replace(place)
        return
    old = place.with_name(f".{place.name}.old.{uuid.uuid4().hex}")
    place.rename(old)
    try:
        fresh.rename(place)
    except OSError:
        old.rename(place)
        raise
    shutil.rmtree(old)


def cache_folder() -> Path:
    """Where what can be made again is kept: `ECCOS_CACHE_DIR`, else `eccos` in `XDG_CACHE_HOME` or `~/.cache`."""
    if folder := os.environ.get("ECCOS_CACHE_DIR"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "eccos"
