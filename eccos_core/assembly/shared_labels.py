"""Take labels of other replicas from the decision log that all share, and say that this replica lives."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from eccos_core.errors import EccosError
from eccos_core.io.stoppable_thread import StoppableThread

if TYPE_CHECKING:
    from eccos_core.decision_log import LoggedDecision, PostgresDecisionLog
    from eccos_core.domain import LabelSource

LOOK_EVERY_S = 1.0
_log = logging.getLogger("eccos.learning")


class SharedLabels:
    """Looks once a second, in a thread of its own, for what other replicas have labelled.

    `log()` returns the log in use, or None where no log is shared. `learn(decision, source)` takes in one label. While
    the database is away the thread goes on looking, and no label is missed.
    """

    def __init__(
        self,
        log: Callable[[], PostgresDecisionLog | None],
        learn: Callable[[LoggedDecision, LabelSource], None],
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._log = weakref.WeakMethod(log)  # a router that nobody uses is not kept
        self._learn = weakref.WeakMethod(learn)
        self._look_every_s = look_every_s
        self._problem: str | None = None
        self._thread = StoppableThread(self._work, "eccos-shared-labels")
        self._thread.start()

    def close(self) -> None:
        """Stop looking. A forked child looks for nothing."""
        self._thread.stop()

    def _work(self) -> None:
        while not self._thread.stopping.is_set():
            read_log = self._log()
            if read_log is None:
                return
            log = read_log()
            del read_log
            if log is not None:
                self._look(log)
            self._thread.stopping.wait(self._look_every_s)

    def _look(self, log: PostgresDecisionLog) -> None:
        try:
            log.beat()
            found = log.new_labels()
        except EccosError as error:
            if self._problem is None:
                _log.warning("labels of other replicas must wait: %s", error)
            self._problem = str(error)
            return
        self._problem = None
        learn = self._learn()
        if learn is None:
            return
        for decision, source in found:
            try:
                learn(decision, source)
            except EccosError as error:
                _log.warning(
                    "the label of decision %s, given to another replica, is not learned: %s", decision.id, error
                )
