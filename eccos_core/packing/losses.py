"""How much quality answers lose in a pack, from the outcomes of arms such as `small*4`."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, IntArray, OutcomeTable
from eccos_core.packing.arms import PackArm, parse_arm
from eccos_core.packing.rule import PackingRule
from eccos_core.protocols import Predictor

LEAST_ANSWERS = 30  # graded answers of an arm that its loss is measured on


class GrowingHistory(Protocol):
    """The part of a history that losses are read from, see `OnlineHistory`."""

    def changes(self, since: int) -> tuple[int, IntArray]:
        """Return (a version number, the rows written since then)."""
        ...

    def some(self, rows: IntArray) -> tuple[OutcomeTable, Float32Array]:
        """Return the chosen rows."""
        ...


@dataclass(frozen=True, slots=True)
class PackLoss:
    """What an answer of an arm loses against its model asked alone, in [0, 1], and the standard error of that.

    `answers` were graded. 0 says that the loss is assumed.
    """

    quality: float
    standard_error: float = 0.0
    answers: int = 0


class PackLosses:
    """Differences between answers in packs and alone, question by question. Safe to use from several threads."""

    def __init__(self) -> None:
        self._differences: dict[PackArm, dict[int, float]] = {}
        self._version = 0
        self._lock = threading.Lock()

    def read(self, history: object, predictor: Predictor) -> None:
        """Take in what the history has learned since the last time. A history that cannot say what changed is not read.

        An answer of an arm is compared with the graded answer of its model to the same question. Where there is none,
        it is compared with the model's forecast.
        """
        if not hasattr(history, "changes"):
            return
        growing: GrowingHistory = history  # type: ignore[assignment]
        with self._lock:
            version, rows = growing.changes(self._version)
            if len(rows):
                self._add(rows, *growing.some(rows), predictor)
            self._version = version

    def add(self, arm: PackArm, question: int, difference: float) -> None:
        """Take in one difference: quality in a pack minus quality alone, in [-1, 1]. A later one replaces it."""
        self._differences.setdefault(arm, {})[question] = difference

    def measured(self, arm: PackArm) -> PackLoss | None:
        """Return the loss of an arm with at least 30 graded answers, else None.

        It is the mean plus one standard error, as if two more answers had differed, one each way. So 30 answers
        without a difference still stand for a loss of three points (Agresti and Min 2005, for matched pairs).
        """
        found = np.array(list(self._differences.get(arm, {}).values()))
        if len(found) < LEAST_ANSWERS:
            return None
        count = len(found) + 2
        mean = float(found.sum()) / count
        error = math.sqrt(max((float((found**2).sum()) + 1) / count - mean**2, 0.0) / count)
        return PackLoss(min(max(0.0, error - mean), 1.0), error, len(found))

    def of(self, models: Sequence[str], rule: PackingRule) -> Mapping[PackArm, PackLoss]:
        """Return the loss of every arm that may be used. A larger pack never loses less than a smaller one.

        An arm without enough answers takes the loss of a larger one that has them, or else what the rule assumes.
        """
        known: dict[PackArm, PackLoss] = {}
        assumed = None if rule.assume_quality_loss is None else PackLoss(rule.assume_quality_loss)
        for model in models:
            above: PackLoss | None = None
            guesses: dict[int, PackLoss] = {}
            for size in reversed(rule.sizes):
                above = self.measured(PackArm(model, size)) or above
                if (guess := above or assumed) is not None:
                    guesses[size] = guess
            worst: PackLoss | None = None
            for size in sorted(guesses):
                if worst is None or guesses[size].quality > worst.quality:
                    worst = guesses[size]
                known[PackArm(model, size)] = worst
        return known

    def _add(self, rows: IntArray, table: OutcomeTable, vectors: Float32Array, predictor: Predictor) -> None:
        for column, name in enumerate(table.models):
            arm = parse_arm(name)
            if arm is None or arm.model not in predictor.models:
                continue
            own = table.quality[:, column]
            graded = np.flatnonzero(~np.isnan(own))
            alone = _alone(table, vectors, arm.model, predictor, graded)
            for place, difference in zip(graded.tolist(), (own[graded] - alone).tolist(), strict=True):
                self.add(arm, int(rows[place]), difference)


def _alone(
    table: OutcomeTable, vectors: Float32Array, model: str, predictor: Predictor, chosen: IntArray
) -> FloatArray:
    """Return the quality (K,) of a model asked the K chosen questions alone: graded, or else forecast."""
    known = np.full(len(chosen), np.nan)
    if model in table.models:
        known = table.quality[chosen, table.models.index(model)].copy()
    missing = np.flatnonzero(np.isnan(known))
    if len(missing):
        forecast = predictor.predict(vectors[chosen[missing]], np.full(len(missing), np.nan))
        known[missing] = forecast.quality[:, predictor.models.index(model)]
    return known
