"""The results of a batch so far, a line each, so that a restart does not ask again what has an answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from eccos_core.server.json_text import dump_json, load_json

GROUP_S = 0.25  # results of so long are put on the disk together


class ResultLog:
    """Appends results to a file. Use it within one event loop, and close it at the end.

    `add` hands a result to the operating system before it returns. So a killed process loses none. The disk has it
    `GROUP_S` seconds later, together with others. So a power cut loses the newest ones, and their requests are asked
    again. One `fsync` for each result would cost more than most calls.
    """

    def __init__(self, path: Path) -> None:
        _end_last_line(path)
        self._file = path.open("ab", buffering=0)
        self._added, self._closing = asyncio.Event(), asyncio.Event()
        self._syncing = asyncio.create_task(self._keep_synced(), name="eccos-batch-results")

    def add(self, result: Mapping[str, Any]) -> None:
        """Append the result of one request. Raises `OSError` when the disk is full."""
        line = memoryview(dump_json(result) + b"\n")
        while line:
            line = line[self._file.write(line) :]
        self._added.set()

    async def sync(self) -> None:
        """Put what was added on the disk. Raises `OSError` when the disk did not take it."""
        await asyncio.to_thread(os.fsync, self._file.fileno())

    async def close(self) -> None:
        """Put everything on the disk. Raises `OSError` when the disk did not take it."""
        self._closing.set()
        self._added.set()
        try:
            await self._syncing
        finally:
            self._file.close()

    async def _keep_synced(self) -> None:
        while not self._closing.is_set():
            await self._added.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), GROUP_S)
            self._added.clear()
            await self.sync()


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return the results of a file. A line that was cut off is left out. No file: no results."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(load_json(line))
    return found


def _end_last_line(path: Path) -> None:
    """End a last line that a kill has cut off, so that the next result is a line of its own."""
    with suppress(FileNotFoundError), path.open("rb+") as stream:
        if stream.seek(0, 2) and stream.seek(-1, 2) and stream.read(1) != b"\n":
            stream.write(b"\n")
