"""The pipeline that a router uses now, and the decision stores of those that it used before."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eccos_core.domain import LabelSource
from eccos_core.errors import InputError, UnknownDecisionError, did_you_mean
from eccos_core.io.forks import ProcessGuard
from eccos_core.routing.parts import Parts
from eccos_core.routing.pipeline import Pipeline

if TYPE_CHECKING:
    from eccos_core.decision_log import LoggedDecision, PostgresDecisionLog
    from eccos_core.routing.decision_store import DecisionStore

EARLIER_STORES = 4  # decision stores from before a swap, whose decisions can still be labelled


class LivePipeline:
    """Holds the pipeline in use. A swap replaces it, and labels still find the decisions of earlier ones."""

    def __init__(self, parts: Parts) -> None:
        self._guard = ProcessGuard("this router")
        self._current = Pipeline(parts)
        self._earlier: deque[DecisionStore] = deque(maxlen=EARLIER_STORES)

    @property
    def current(self) -> Pipeline:
        """The pipeline in use now. Raises `ForkedProcessError` in a forked child."""
        self._guard.check()
        return self._current

    @property
    def is_forked(self) -> bool:
        """Whether this is a forked child of the process that built the router."""
        return self._guard.is_forked

    # ---------------------------------------------------------------- change, close

    def swap(self, parts: Parts) -> None:
        """Use other parts from now on. Requests in flight end on theirs. Raises `InputError`, and changes nothing."""
        earlier = self.current
        self._current = earlier.successor = Pipeline(parts)
        if parts.decision_store is not earlier.parts.decision_store:
            self._earlier.append(earlier.parts.decision_store)

    def flush(self) -> None:
        """Write the decision logs."""
        for store in self._stores():
            store.flush()

    def close(self) -> None:
        """Stop labelling answers, write the decision logs, and close logs, histories and backend."""
        parts = self.current.parts
        if parts.answer_observer is not None:
            parts.answer_observer.close()
        if parts.learner is not None:
            parts.learner.budget.close()
        self.flush()
        stores = self._stores()
        for part in _distinct([*(store.log for store in stores), *(store.history for store in stores), parts.backend]):
            close = getattr(part, "close", None)
            if close is not None:
                close()

    def _stores(self) -> list[DecisionStore]:
        return [*self._earlier, self.current.parts.decision_store]

    # ---------------------------------------------------------------- labels

    def record(self, decision_id: str, quality: float, source: LabelSource) -> None:
        """Label the answer of a decision that any of the pipelines made. See `Router.record`."""
        for store in reversed(self._stores()):
            try:
                labelled = store.label(decision_id, quality, source)
            except UnknownDecisionError:
                continue
            if labelled is not None:
                self.current.learn(labelled)
            return
        raise UnknownDecisionError(decision_id)

    def quality_of_signal(self, name: str) -> float:
        """Return the label that a signal gives. Raises `InputError` for an unknown one."""
        signals = self.current.parts.signals
        quality = signals.get(name)
        if quality is None:
            known = ", ".join(signals) or "none, name them in eccos.labels.signals"
            raise InputError(f"unknown signal {name!r}{did_you_mean(name, signals)}. There are: {known}")
        return quality

    def take_label(self, decision: LoggedDecision, source: LabelSource) -> None:
        """Learn from a label that another replica was given."""
        pipeline = self.current
        pipeline.learn(pipeline.parts.decision_store.take_label(decision, source))

    def shared_log(self) -> PostgresDecisionLog | None:
        """Return the decision log that this replica shares with others. None without one."""
        from eccos_core.decision_log import PostgresDecisionLog

        log = self.current.parts.decision_store.log
        return log if isinstance(log, PostgresDecisionLog) else None


def _distinct(objects: Sequence[object]) -> list[object]:
    """Return each object once, in order."""
    return list({id(each): each for each in objects}.values())
