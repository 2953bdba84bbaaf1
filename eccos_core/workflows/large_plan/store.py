"""The forecast of a shard on disk: float32 arrays, written whole or not at all, found again by content."""

from __future__ import annotations

import contextlib
import errno
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from eccos_core.domain import BoolArray, Float32Array
from eccos_core.errors import DataError, InputError
from eccos_core.io.files import atomic_writer
from eccos_core.optimizer.sharded import ShardArrays


@contextlib.contextmanager
def shard_writer(path: Path) -> Iterator[IO[bytes]]:
    """An `atomic_writer` that says what to do when the disk is full. What other shards wrote stays."""
    try:
        with atomic_writer(path) as stream:
            yield stream
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"no space is left for {path} ({error.strerror}). Free some, or name another folder with --output. "
            "Finished shards are kept, so the same command goes on from here"
        ) from error


def write_forecast(
    path: Path,
    quality: Float32Array,
    cost_usd: Float32Array,
    eligible: BoolArray,
    min_quality: Float32Array,
    familiarity: Float32Array,
    ids: npt.NDArray[np.str_],
) -> None:
    """Write the forecast of a shard of r requests: quality, cost_usd and eligible (r, M), the others (r,)."""
    with shard_writer(path) as stream:
        np.savez(
            stream,
            quality=quality,
            cost_usd=cost_usd,
            eligible=eligible,
            min_quality=min_quality,
            familiarity=familiarity,
            ids=ids,
        )


def read_arrays(path: Path, index: int, start: int) -> ShardArrays:
    """Read what the optimizer needs of a shard. Raises `DataError` for a file that is damaged."""
    with _opened(path) as arrays:
        asked = arrays["min_quality"]
        return ShardArrays(
            index,
            start,
            arrays["quality"],
            arrays["cost_usd"],
            arrays["eligible"],
            asked if asked.any() else None,
        )


def read_labels(path: Path) -> tuple[npt.NDArray[np.str_], Float32Array]:
    """Return the ids (r,) and the familiarity (r,) of a shard. Raises `DataError` for a file that is damaged."""
    with _opened(path) as arrays:
        return arrays["ids"], arrays["familiarity"]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            str(path), f"this forecast of a shard cannot be read ({error}). Delete the file and run again"
        ) from error
