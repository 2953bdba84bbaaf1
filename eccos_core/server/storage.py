"""Where the server keeps files and batches: the folder that you gave, or one for this run only."""

from __future__ import annotations

import tempfile
from pathlib import Path

from eccos_core.server.batch_record import BatchFolder
from eccos_core.server.batches import Batches
from eccos_core.server.files import FileStore
from eccos_core.server.serving import Serving


class Storage:
    """Files and batches of one server. Nothing is written before the first file comes."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._opened: tuple[FileStore, Batches] | None = None

    @property
    def files(self) -> FileStore:
        """The files."""
        return self._open()[0]

    @property
    def batches(self) -> Batches:
        """The batches."""
        return self._open()[1]

    async def start(self) -> None:
        """Take up the batches of an earlier run."""
        if self._serving.settings.files_dir is not None:
            await self.batches.resume()

    async def stop(self) -> None:
        """Stop the batches, and remove a folder that was for this run only."""
        if self._opened is not None:
            await self._opened[1].stop()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = self._opened = None

    def _open(self) -> tuple[FileStore, Batches]:
        if self._opened is None:
            settings = self._serving.settings
            folder = settings.files_dir
            if folder is None:
                self._temporary = tempfile.TemporaryDirectory(prefix="eccos-serve-")
                folder = Path(self._temporary.name)
            files = FileStore(folder / "files", settings.max_files)
            self._opened = files, Batches(self._serving, files, BatchFolder(folder / "batches"))
        return self._opened
