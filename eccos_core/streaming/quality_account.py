"""Compute the least quality of the next answer that keeps the floor, whatever requests follow.

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

import math
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.streaming.targets import FloorTarget

HARDEST_SHARE = 1 / 8  # of the history: a window of the hardest requests is as hard as these
_ROUNDING = 1e-9  # of mean quality: error of floating-point sums
_USABLE_TOLERANCE = 1 - 1e-7  # share of the tolerance; the rest absorbs rounding
_REPORT_FROM = 0.1  # share of a window before which an unattainable floor is not reported

# The rest is for floor_insurance="none", which extrapolates the last requests.
# Share of the tolerance that stays unused, because an extrapolation may be wrong: usually, and on a falling trend.
_RESERVE, _RESERVE_FALLING = 0.5, 0.25
# Level: the least mean of the last n best qualities, after adding z standard errors to each, as (n, z). Short means see
# a sudden change at once, long means see a small change reliably.
_LEVELS = ((10, 1.5), (20, 1.0), (50, 0.5), (100, 0.0))
# Trend: the steepest fall over a share of the window, after adding z standard errors to each, as (share, z).
_TRENDS = ((1.0, 1.5), (0.2, 2.5), (0.05, 3.0))


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


def compute_insured_floor(target: FloorTarget, best_quality: FloatArray) -> float:
    """Return the mean quality at which a stream like the history keeps its promise without guarding.

    best_quality (N,): of the best model on each request of the history. Let b be their mean, h the worst-case mean, and
    f the floor. After W (f - h) / (b - h) requests of a window the floor is just attainable. These requests may lose
    W t against the best models in total, so each may lose t (b - h) / (f - h).
    """
    floor, mean = target.alpha, float(best_quality.mean())
    plain = floor + target.tolerance / 2
    worst = float(worst_case_totals(target, best_quality)[-1]) / target.window
    if target.floor_insurance == "none" or worst >= floor:
        return min(1.0, plain)
    return min(1.0, max(plain, mean - target.tolerance * (mean - worst) / (floor - worst)))


@dataclass(frozen=True, slots=True)
class RequiredQuality:
    """The least quality of the next answer that keeps the promise, at most that of the best model.

    slack: the quality that may still be lost against the best models, as a share of what a window may lose. Negative
    if the promise is broken, which happens only when requests are harder than assumed.
    """

    quality: float
    slack: float


class QualityAccount:
    """Track the quality of a stream's answers and of the best models, over the run and the last window.

    `need` takes a few numpy operations on W numbers, and `add` is O(1).
    """

    def __init__(self, target: FloorTarget, best_quality: FloatArray | None = None) -> None:
        self.target = target
        window = target.window
        # Cumulative sums since an origin: chosen quality, and lost quality (best less chosen). Moved back when full.
        self._chosen, self._lost = np.zeros(4 * window), np.zeros(4 * window)
        self._jumps = np.zeros(4 * window)  # squared differences of successive best qualities
        self._at = 0
        self._newest = 0.0
        self._before_chosen = self._before_lost = 0.0  # totals of the run before the origin
        self.falling = False  # whether the best quality was falling significantly at the last `need`
        self.count = 0
        self.assume(best_quality)

    def assume(self, best_quality: FloatArray | None) -> None:
        """Use this history from now on, best_quality (N,), to judge how hard requests can be."""
        totals = worst_case_totals(self.target, best_quality)
        self._worst_mean = float(totals[-1]) / self.target.window
        self._steps = np.arange(self.target.window)
        self._ahead = totals[: self.target.window]  # entry j: of the j requests after the next

    @property
    def running_mean(self) -> float:
        """Mean predicted quality since the start."""
        return (self._before_chosen + float(self._chosen[self._at])) / max(self.count, 1)

    def window_mean(self) -> float:
        """Return the mean predicted quality of the last window, or of all answers if there are fewer."""
        length = min(self.count, self.target.window)
        return self._last(self._chosen, length) / max(length, 1)

    def need(self, best: float) -> RequiredQuality:
        """Return what the next answer must reach. best: the quality of the best open model."""
        floor, window = self.target.alpha, self.target.window
        tolerance, ahead = self.target.tolerance * _USABLE_TOLERANCE, self._ahead
        if self.target.floor_insurance == "none":
            level, slope = self._extrapolate(best)
            self.falling = slope < 0
            tolerance *= 1 - (_RESERVE_FALLING if self.falling else _RESERVE)
            ahead = self._steps * np.maximum(level + slope / 2 * (self._steps + 1), 0.0)
        passed = min(self.count, window - 1)
        back = slice(self._at - passed, self._at + 1)  # oldest window first, which has the fewest requests to come
        chosen = self._chosen[back] - self._chosen[self._at]
        chosen -= ahead[window - 1 - passed :]
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
        if self.target.floor_insurance == "none":
            if more:
                return 0.0
        elif self._worst_mean < floor - tolerance:
            more = max(more, (chosen + lost + best - count * floor) / (floor - self._worst_mean))
        length = count + more
        return min(length * (floor - tolerance) - chosen - more * self._worst_mean, best + lost - length * tolerance)

    def add(self, quality: float, best: float) -> None:
        """Enter an answer of predicted `quality`. best: the quality of the best open model."""
        if self._at + 1 == len(self._chosen):
            self._move_back()
        jump = best - self._newest if self.count else 0.0
        self._newest = best
        now, self._at = self._at, self._at + 1
        self._chosen[now + 1] = self._chosen[now] + quality
        self._lost[now + 1] = self._lost[now] + (best - quality)
        self._jumps[now + 1] = self._jumps[now] + jump * jump
        self.count += 1

    def _move_back(self) -> None:
        """Keep only the last window, counted from its start. This frees space, and sums stay small and exact."""
        window = self.target.window
        origin = self._at - window
        self._before_chosen += float(self._chosen[origin])
        self._before_lost += float(self._lost[origin])
        for totals in (self._chosen, self._lost, self._jumps):
            totals[: window + 1] = totals[origin : self._at + 1] - totals[origin]
        self._at = window

    def unmet(self) -> str:
        """Return why the last window or the run is below the floor, or an empty string."""
        target = self.target
        if self.count < _REPORT_FROM * target.window:
            return ""
        length = min(self.count, target.window)
        chosen = self._last(self._chosen, length) / length
        window = ("last", length, chosen, chosen + self._last(self._lost, length) / length)
        lost = (self._before_lost + float(self._lost[self._at])) / self.count
        run = ("first", self.count, self.running_mean, self.running_mean + lost)
        for which, requests, reached, attainable in (window, run):
            means = f"over the {which} {requests} requests the best open models average {attainable:.4f}, "
            means += f"and {reached:.4f} was reached"
            if attainable < target.alpha - _ROUNDING:
                return f"the floor {target.alpha:.4g} is not attainable: {means}"
            if requests >= target.window and reached < target.alpha - target.tolerance:
                return f"the floor {target.alpha:.4g} was missed: {means}"
        return ""

    def _last(self, totals: FloatArray, length: int) -> float:
        return float(totals[self._at] - totals[self._at - length])

    def _extrapolate(self, best: float) -> tuple[float, float]:
        """Estimate the best quality of the next requests: its level, and its change per request.

        The noise is estimated from successive differences, which a trend does not inflate (von Neumann 1941).
        """
        length = min(self.count, self.target.window)
        if length < _LEVELS[0][0]:
            return best, 0.0
        noise = math.sqrt(self._last(self._jumps, length) / (2 * length))
        level = min(self._last_best(n) / n + z * noise / math.sqrt(n) for n, z in _LEVELS if n <= length)
        slope = 0.0
        for share, z in _TRENDS:
            half = int(share * self.target.window) // 2
            if 2 <= half <= length // 2:
                fall = (2 * self._last_best(half) - self._last_best(2 * half)) / half**2
                slope = min(slope, fall + z * noise * math.sqrt(2 / half) / half)
        return level, slope

    def _last_best(self, length: int) -> float:
        return self._last(self._chosen, length) + self._last(self._lost, length)
