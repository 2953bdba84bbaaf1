"""A digest of our own source code, so that a cache never answers for code that has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # eccos_core


@cache
def digest_code(sources: tuple[str, ...], libraries: tuple[str, ...] = ()) -> str:
    """Return a digest (64 hexadecimal digits) of source files of eccos_core and of the versions of libraries.

    `sources` are files or folders below `eccos_core`. A folder stands for every Python file in it. A library that is
    not installed counts as such.
    """
    total = hashlib.sha256(" ".join(f"{name} {_version(name)}" for name in libraries).encode())
    for path in _files(sources):
        total.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def _files(sources: Iterable[str]) -> Iterable[Path]:
    for source in sources:
        place = ROOT / source
        yield from sorted(place.rglob("*.py")) if place.is_dir() else [place]


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"
