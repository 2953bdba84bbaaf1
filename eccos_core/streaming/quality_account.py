"""The floor, guarded: the least quality that the next answer must have, whatever comes after it.

What is promised of every window of W requests, and of the run from its W-th request on: its mean is at least the floor
or, where that is not attainable, the best attainable mean, less the tolerance t. Of a window that k answers have
entered, with total quality Q where the best open models would have given B, the next request (best b) and W - 1 - k
later ones are still to come. If the later ones reach F in all at best, and are given their best, the promise is

    Q + q + F >= min(W floor, B + b + F) - W t

for the quality q of the next answer. Nobody knows F; if it is at least L, this holds for every such F exactly when

    q >= min(W (floor - t) - Q - L,  b + (B - Q) - W t)

that is, when either the floor is safe already, or no more than W t has been lost against the best. The need is the
greatest of these over all windows that are open; giving the best always meets the need and never raises the next one
above its best, so with L = 0 the promise holds against any order whatever. The run is a window whose end is not known:
of all ends the most demanding is the one at which the floor is just attainable if only L comes from now on.

So the level of protection is L, what the hardest stretch ahead can reach: `FloorTarget.floor_insurance`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.streaming.targets import FloorTarget

HARDEST_SHARE = 1 / 8  # a window of the hardest requests: as hard as this share of the history
_ROUNDING = 1e-9  # of mean quality: what adding up floats may lose
_GUARDED = 1 - 1e-7  # share of the tolerance that is given away; the rest is for that rounding
_OPENING = 0.1  # share of a window after which a floor that is not attainable is spoken of

# Level "none". Guarded is the floor less this share of the tolerance; the rest covers what a trend cannot know.
_SPARE, _SPARE_FALLING = 0.5, 0.25
# What the next requests can reach: the least of the means of the last n best qualities, each n with so many standard
# errors to spare. The short ones see a sudden change at once, the long one a small change surely.
_RECENT = ((10, 1.5), (20, 1.0), (50, 0.5), (100, 0.0))
# How fast that falls: the steepest of the trends over these shares of a window, each less so many standard errors.
_TRENDS = ((1.0, 1.5), (0.2, 2.5), (0.05, 3.0))


def worst_case_totals(target: FloorTarget, best_quality: FloatArray | None) -> FloatArray:
    """(W + 1,): the least total quality that the best models reach on the next 0 ... W requests.

    best_quality (N,): what the best model reaches on each request of the history; None where nothing is known, which
    is taken for the worst. "history": the hardest `HARDEST_SHARE` of the history, its hardest last.
    """
    steps = np.arange(target.window + 1, dtype=np.float64)
    if not isinstance(target.floor_insurance, str):
        return steps * target.floor_insurance
    if best_quality is None or not len(best_quality):
        return np.zeros(target.window + 1)
    totals = np.concatenate([[0.0], np.cumsum(np.sort(best_quality))])
    # How many requests of the history stand for one request ahead.
    each = HARDEST_SHARE * len(best_quality) / target.window
    found: FloatArray = np.interp(steps * each, np.arange(len(totals)), totals) / each
    return found


def compute_insured_floor(target: FloorTarget, best_quality: FloatArray) -> float:
    """The mean quality at which a stream like the history, best qualities (N,), keeps its promise unguarded.

    At a mean best quality b and a worst of h, the floor f is just attainable in a window of which W (f - h) / (b - h)
    requests have passed: these together may lose W t against the best, each t (b - h) / (f - h).
    """
    floor, mean = target.alpha, float(best_quality.mean())
    plain = floor + target.tolerance / 2
    worst = float(worst_case_totals(target, best_quality)[-1]) / target.window
    if target.floor_insurance == "none" or worst >= floor:
        return min(1.0, plain)
    return min(1.0, max(plain, mean - target.tolerance * (mean - worst) / (floor - worst)))


@dataclass(frozen=True, slots=True)
class RequiredQuality:
    """The least quality that the next answer must have, never more than the best can give.

    room: what may be lost against the best, now, as a share of what a window may lose; negative where the promise is
    broken already (which only a worse future than was assumed can do).
    """

    quality: float
    room: float


class QualityAccount:
    """What the answers of a stream reached, and what the best could have: of the run, and of the last window.

    One `need` is a few numpy operations on W numbers, one `add` is O(1).
    """

    def __init__(self, target: FloorTarget, best_quality: FloatArray | None = None) -> None:
        self.target = target
        window = target.window
        # Totals after each request since some origin, chosen and lost (best less chosen); moved back when full.
        self._chosen, self._lost = np.zeros(4 * window), np.zeros(4 * window)
        self._jumps = np.zeros(4 * window)  # ... of the squares of the differences between neighbouring best qualities
        self._at = 0
        self._newest = 0.0
        self._before_chosen = self._before_lost = 0.0  # of the run, before that origin
        self.falling = False  # whether the attainable quality is surely falling, as of the last `need`
        self.count = 0
        self.assume(best_quality)

    def assume(self, best_quality: FloatArray | None) -> None:
        """From now on the worst that may come is judged by this history, (N,) best qualities."""
        least = worst_case_totals(self.target, best_quality)
        self._long_run = float(least[-1]) / self.target.window
        self._steps = np.arange(self.target.window)
        self._ahead = least[: self.target.window]  # entry j: a window with j requests to come after the next

    @property
    def running_mean(self) -> float:
        """Mean predicted quality since the start."""
        return (self._before_chosen + float(self._chosen[self._at])) / max(self.count, 1)

    def window_mean(self) -> float:
        """Mean predicted quality of the last window (or of all, when there are fewer)."""
        length = min(self.count, self.target.window)
        return self._last(self._chosen, length) / max(length, 1)

    def need(self, best: float) -> RequiredQuality:
        """What the next answer must reach, when the best open model reaches `best`."""
        floor, window = self.target.alpha, self.target.window
        tolerance, ahead = self.target.tolerance * _GUARDED, self._ahead
        if self.target.floor_insurance == "none":
            level, slope = self._projection(best)
            self.falling = slope < 0
            tolerance *= 1 - (_SPARE_FALLING if self.falling else _SPARE)
            ahead = self._steps * np.maximum(level + slope / 2 * (self._steps + 1), 0.0)
        passed = min(self.count, window - 1)
        back = slice(self._at - passed, self._at + 1)  # the oldest first: the window with the fewest requests to come
        chosen = self._chosen[back] - self._chosen[self._at]
        chosen -= ahead[window - 1 - passed :]
        chosen += window * (floor - tolerance)
        lost = self._lost[self._at] - self._lost[back]
        lost += best - window * tolerance
        needed = max(float(np.minimum(chosen, lost).max()), self._need_of_run(best, tolerance))
        room = (best - needed) / (window * tolerance)
        if self.count >= window - 1:
            length = window - 1
            attainable = self._last(self._chosen, length) + self._last(self._lost, length) + best
            if attainable < window * floor:
                needed = best
        return RequiredQuality(min(needed, best), room)

    def _need_of_run(self, best: float, tolerance: float) -> float:
        """The need of the running mean, at the most demanding of all lengths that the run may have."""
        floor, count = self.target.alpha, self.count + 1
        chosen = self._before_chosen + float(self._chosen[self._at])
        lost = self._before_lost + float(self._lost[self._at])
        more = max(0.0, self.target.window - count)
        if self.target.floor_insurance == "none":
            if more:
                return 0.0
        elif self._long_run < floor - tolerance:
            more = max(more, (chosen + lost + best - count * floor) / (floor - self._long_run))
        length = count + more
        return min(length * (floor - tolerance) - chosen - more * self._long_run, best + lost - length * tolerance)

    def add(self, quality: float, best: float) -> None:
        """Enter an answer of predicted `quality`; the best open model would have reached `best`."""
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
        """Only the last window is kept, counted from its beginning: room for more, and no sums that grow for ever."""
        window = self.target.window
        origin = self._at - window
        self._before_chosen += float(self._chosen[origin])
        self._before_lost += float(self._lost[origin])
        for totals in (self._chosen, self._lost, self._jumps):
            totals[: window + 1] = totals[origin : self._at + 1] - totals[origin]
        self._at = window

    def unmet(self) -> str:
        """Why the floor is not met by now: the last window, or the run, could not reach it (or did not); else empty."""
        target = self.target
        if self.count < _OPENING * target.window:
            return ""
        length = min(self.count, target.window)
        chosen = self._last(self._chosen, length) / length
        windows = ("last", length, chosen, chosen + self._last(self._lost, length) / length)
        lost = (self._before_lost + float(self._lost[self._at])) / self.count
        run = ("first", self.count, self.running_mean, self.running_mean + lost)
        for which, many, reached, attainable in (windows, run):
            means = f"over the {which} {many} requests the best open models average {attainable:.4f}, "
            means += f"and {reached:.4f} was reached"
            if attainable < target.alpha - _ROUNDING:
                return f"the floor {target.alpha:.4g} is not attainable: {means}"
            if many >= target.window and reached < target.alpha - target.tolerance:
                return f"the floor {target.alpha:.4g} was missed: {means}"
        return ""

    def _last(self, totals: FloatArray, length: int) -> float:
        return float(totals[self._at] - totals[self._at - length])

    def _projection(self, best: float) -> tuple[float, float]:
        """What the best quality of the next requests is likely to be: its level now, and how it falls per request.

        The noise is taken from the jumps between neighbours, so that a trend is not mistaken for it.
        """
        length = min(self.count, self.target.window)
        if length < _RECENT[0][0]:
            return best, 0.0
        noise = math.sqrt(self._last(self._jumps, length) / (2 * length))
        level = min(
            self._last_best(many) / many + spare * noise / math.sqrt(many) for many, spare in _RECENT if many <= length
        )
        slope = 0.0
        for share, sure in _TRENDS:
            half = int(share * self.target.window) // 2
            if 2 <= half <= length // 2:
                fall = (2 * self._last_best(half) - self._last_best(2 * half)) / half**2
                slope = min(slope, fall + sure * noise * math.sqrt(2 / half) / half)
        return level, slope

    def _last_best(self, length: int) -> float:
        return self._last(self._chosen, length) + self._last(self._lost, length)
