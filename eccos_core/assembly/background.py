"""What runs beside the router of a file: hot reload, labels of other replicas, and refits. Each has a thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from eccos_core.assembly.build import Assembler
from eccos_core.assembly.hot_reload import HotReload
from eccos_core.assembly.refit import BackgroundRefit
from eccos_core.assembly.shared_labels import SharedLabels
from eccos_core.config import load_config

if TYPE_CHECKING:
    from eccos_core.assembly.assembled import Assembled
    from eccos_core.routing.live_pipeline import LivePipeline
    from eccos_core.routing.parts import Parts


class BackgroundServices:
    """Assembles the parts of a file, and runs what keeps them up to date from `start` to `close`.

    With `reload` the parts follow the file. Raises as `Router.from_yaml` does.
    """

    def __init__(self, path: str | Path, *, reload: bool, progress: Callable[[str], None] | None = None) -> None:
        self.hot_reload = HotReload(path, progress) if reload else None
        if self.hot_reload is not None:
            self._assembler = self.hot_reload.assembler
        else:
            self._assembler = Assembler(progress)
            self._assembler.assemble(load_config(path))
        self.refit: BackgroundRefit | None = None
        self.shared_labels: SharedLabels | None = None

    @property
    def assembled(self) -> Assembled:
        """The configuration in use, with its parts."""
        assert self._assembler.current is not None
        return self._assembler.current

    def start(self, live: LivePipeline, swap: Callable[[Parts], None]) -> None:
        """Start the services that the file asks for. `swap` puts parts into use in `live`."""
        if self.hot_reload is not None:
            self.hot_reload.start(swap)
        if self.hot_reload is not None or live.shared_log() is not None:
            self.shared_labels = SharedLabels(live.shared_log, live.take_label)
        learning = self.assembled.config.learning
        if learning is not None and learning.refit_every is not None:
            self.refit = BackgroundRefit(self._assembler, swap)

    def close(self) -> None:
        """Stop all services. The parts stay as they are."""
        for service in (self.refit, self.shared_labels, self.hot_reload):
            if service is not None:
                service.close()
