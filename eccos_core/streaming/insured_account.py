"""Compute the least quality of the next answer that keeps every window, whatever requests follow.

The promise covers every window of W requests, and the run from its W-th request on. The mean of each is at least the
floor less the tolerance t. Where the floor is not attainable, it is at least the best attainable mean less t.

Take a window with k answers so far, of total quality Q. The best open models would have reached B. The next request is
still to come, whose best model reaches b, and after it W - 1 - k others. Suppose the best models reach a total of F on
these, and get to answer them. With q the quality of the next answer, the promise is

    Q + q + F >= min(W floor, B + b + F) - W t

F is unknown. If it is at least L, the promise holds for every such F exactly if

    q >= min(W (floor - t) - Q - L,  b + (B - Q) - W t)

In words: either the floor is safe already, or at most W t was lost against the best models. The required quality is the
maximum over all open windows. The best model always meets it, so with L = 0 the promise holds for any order of
requests. The run is a window of unknown end. Its most demanding end is where the floor is just attainable at L.

So L is the level of protection: what the best models reach on the hardest requests ahead. `FloorTarget.floor_insurance`
sets it.
"""

from __future__ import annotations

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.streaming.quality_account import HorizonAccount, QualityAccount, RequiredQuality, WindowAccount
from eccos_core.streaming.targets import FloorTarget

HARDEST_SHARE = 1 / 8  # of the history: a window of the hardest requests is as hard as these
_USABLE_TOLERANCE = 1 - 1e-7  # share of the tolerance; the rest absorbs rounding


def open_account(target: FloorTarget, best_quality: FloatArray | None, now_s: float) -> QualityAccount:
    """Open the account that the target's promise needs. best_quality (N,): of the best model on each past request."""
    if target.promise == "mean":
        return HorizonAccount(target, now_s)
    return WindowAccount(target) if target.floor_insurance == "none" else InsuredAccount(target, best_quality)


def worst_case_totals(target: FloorTarget, best_quality: FloatArray | None) -> FloatArray:
    """Return the least total quality (W + 1,) that the best models reach on the next 0 ... W requests.

    best_quality (N,): of the best model on each request of the history. None means unknown, and counts as zero.
    With insurance "history", a window is as hard as the hardest eighth of the history, and its hardest come last.
    """
    steps = np.arange(target.window + 1, dtype=np.float64)
    if not isinstance(target.floor_insurance, str):
        return steps * target.floor_insurance
    if best_quality is None or not len(best_quality):
        return np.zeros(target.window + 1)
    totals = np.concatenate([[0.0], np.cumsum(np.sort(best_quality))])
    rows_per_request = HARDEST_SHARE * len(best_quality) / target.window
    at_steps: FloatArray = np.interp(steps * rows_per_request, np.arange(len(totals)), totals)
    return at_steps / rows_per_request


def compute_insured_floor(target: FloorTarget, best_quality: FloatArray | None) -> float:
    """Return the mean quality at which a stream like the history keeps its promise without guarding.

    best_quality (N,): of the best model on each request of the history. Let b be their mean, h the worst-case mean, and
    f the floor. After W (f - h) / (b - h) requests of a window the floor is just attainable. These requests may lose
    W t against the best models in total, so each may lose t (b - h) / (f - h). Without insurance it is the floor.
    """
    floor = target.alpha
    if target.floor_insurance == "none" or best_quality is None or not len(best_quality):
        return floor
    mean, worst = float(best_quality.mean()), float(worst_case_totals(target, best_quality)[-1]) / target.window
    if worst >= floor:
        return floor
    return min(1.0, max(floor, mean - target.tolerance * (mean - worst) / (floor - worst)))


class InsuredAccount(WindowAccount):
    """Track every open window, and the run. `need` takes a few numpy operations on W numbers."""

    def __init__(self, target: FloorTarget, best_quality: FloatArray | None = None) -> None:
        super().__init__(target)
        self.assume(best_quality)

    def assume(self, best_quality: FloatArray | None) -> None:
        """See `QualityAccount`."""
        totals = worst_case_totals(self.target, best_quality)
        self._worst_mean = float(totals[-1]) / self.target.window
        self._ahead = totals[: self.target.window]  # entry j: of the j requests after the next

    def need(self, best: float, now_s: float = 0.0) -> RequiredQuality:
        """See `QualityAccount`."""
        floor, window = self.target.alpha, self.target.window
        tolerance = self.target.tolerance * _USABLE_TOLERANCE
        passed = min(self.count, window - 1)
        back = slice(self._at - passed, self._at + 1)  # oldest window first, which has the fewest requests to come
        chosen = self._chosen[back] - self._chosen[self._at]
        chosen -= self._ahead[window - 1 - passed :]
        chosen += window * (floor - tolerance)
        lost = self._lost[self._at] - self._lost[back]
        lost += best - window * tolerance
        needed = max(float(np.minimum(chosen, lost).max()), self._need_of_run(best, tolerance))
        slack = (best - needed) / (window * tolerance)
        if self.count >= window - 1:
            length = window - 1
            attainable = self._last(self._chosen, length) + self._last(self._lost, length) + best
            if attainable < window * floor:
                needed = best
        return RequiredQuality(min(needed, best), slack)

    def _need_of_run(self, best: float, tolerance: float) -> float:
        """Return what the running mean requires, at the most demanding length of the run."""
        floor, count = self.target.alpha, self.count + 1
        chosen = self._before_chosen + float(self._chosen[self._at])
        lost = self._before_lost + float(self._lost[self._at])
        more = max(0.0, self.target.window - count)
        if self._worst_mean < floor - tolerance:
            more = max(more, (chosen + lost + best - count * floor) / (floor - self._worst_mean))
        length = count + more
        return min(length * (floor - tolerance) - chosen - more * self._worst_mean, best + lost - length * tolerance)
