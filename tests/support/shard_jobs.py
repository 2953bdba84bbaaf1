"""Jobs that a worker cannot finish. Workers import them from here."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from eccos_core.errors import DataError


@dataclass(frozen=True)
class DieOnce:
    """Kills its own process the first time, as the kernel does when memory is short."""

    mark: Path

    def run(self) -> str:
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"


@dataclass(frozen=True)
class AlwaysDie:
    def run(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return "never"


@dataclass(frozen=True)
class Fail:
    def run(self) -> str:
        raise DataError("requests.jsonl", "not JSON", 7)
