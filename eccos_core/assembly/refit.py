"""Fit the predictor again in the background, and put it into use where it forecasts better."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from eccos_core.assembly.finetuned import is_fine_tuned
from eccos_core.assembly.predictor import TrainingData, fit_from_config, is_online, load_or_fit
from eccos_core.config import Config, PriorConfig
from eccos_core.errors import EccosError
from eccos_core.io.outcomes import is_test
from eccos_core.io.stoppable_thread import StoppableThread

if TYPE_CHECKING:
    from eccos_core.assembly.build import Assembler
    from eccos_core.protocols import Predictor
    from eccos_core.routing.parts import Parts

LOOK_EVERY_S = 1.0
MIN_HELD_OUT = 30  # outcomes, with fewer of them nothing can win
_log = logging.getLogger("eccos.learning")


class BackgroundRefit:
    """Counts labels in a thread of its own, and refits after every `eccos.learning.refit_every` of them.

    A new predictor is fitted on seven in ten questions of the history. It wins if it forecasts the outcomes of the
    other three better than the predictor in use, by more than one standard error of the difference. Then one that was
    fitted on all of them is put into use. The predictor in use may have seen these outcomes, so a draw is no win.

    A certified router, a fine-tuned predictor and one that reads the history at every decision are never refitted.
    """

    def __init__(self, assembler: Assembler, swap: Callable[[Parts], None], look_every_s: float = LOOK_EVERY_S) -> None:
        self.refits = self.wins = 0
        self._assembler = assembler
        self._swap = weakref.WeakMethod(swap)  # a router that nobody uses is not kept
        self._look_every_s = look_every_s
        self._thread = StoppableThread(self._work, "eccos-refit")
        self._thread.start()

    def close(self) -> None:
        """Stop after the fit that is under way. A forked child has none."""
        self._thread.stop()

    def _work(self) -> None:
        seen = self._labels()
        while not self._thread.stopping.wait(self._look_every_s):
            current, labels = self._assembler.current, self._labels()
            seen = min(seen, labels)  # a reload can begin a new count
            asked = current.config.learning if current is not None else None
            if asked is None or asked.refit_every is None or labels - seen < asked.refit_every:
                continue
            seen = labels
            try:
                self._refit()
            except (EccosError, OSError, ImportError) as error:
                _log.warning("the predictor could not be fitted again, and the old one goes on: %s", error)

    def _labels(self) -> int:
        current = self._assembler.current
        return 0 if current is None else current.parts.decision_store.labelled

    def _refit(self) -> None:
        current = self._assembler.current
        assert current is not None
        config, parts = current.config, current.parts
        if not _can_refit(config) or parts.certificate is not None:
            return
        data = TrainingData.of(current.history)
        self.refits += 1
        if not wins(config, data, parts.predictor):
            _log.info("a new predictor forecasts no better than the one in use")
            return
        predictor = load_or_fit(config, current.encoder, data)
        swap = self._swap()
        if swap is None or self._thread.stopping.is_set():
            return
        with self._assembler.changing:
            if self._assembler.current is current:
                swap(self._assembler.use_predictor(predictor))
                self.wins += 1
                extra = {"eccos": {"event": "refitted", "questions": len(data.table)}}
                _log.info("a predictor of %d questions is in use", len(data.table), extra=extra)


def wins(config: Config, data: TrainingData, incumbent: Predictor) -> bool:
    """Whether a predictor fitted on some questions of the data forecasts the others better than the incumbent."""
    held_out = np.array([is_test(question) for question in data.table.question_ids], dtype=np.bool_)
    known = ~np.isnan(data.table.quality[held_out])
    if known.sum() < MIN_HELD_OUT or held_out.all():
        return False
    candidate = fit_from_config(config, TrainingData(data.table.rows(~held_out), data.vectors[~held_out]))
    tested = TrainingData(data.table.rows(held_out), data.vectors[held_out])
    errors = [
        (each.predict(tested.vectors, tested.input_tokens).quality - tested.table.quality)[known] ** 2
        for each in (incumbent, candidate)
    ]
    gain = errors[0] - errors[1]
    return bool(gain.mean() > gain.std() / np.sqrt(len(gain)))


def _can_refit(config: Config) -> bool:
    return not (is_fine_tuned(config) or is_online(config) or isinstance(config.predictor, PriorConfig))
