"""One request at a time: argmin over models of cost - lambda * quality + mu, with lambda steered and limits guarded.

Two layers. *Steering* moves the prices: lambda rises while the last window, or what may still be lost against the best
models (see `floor`), runs short, and comes back while there is plenty; or falls while spending runs ahead of the budget
rate; mu rises with occupancy, so that load spreads before a cap is hit. *Guarding* narrows the models that the prices
may choose from whenever a choice would break the floor of a window or the budget. Steering makes guarding rare;
guarding makes promises.

Without insurance (`floor_insurance="none"`) lambda is lowered only slowly: quality above the floor now is then all that
pays for harder requests later.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray, QualityPrice, RoutingProblem, StreamChoice
from eccos_core.errors import InfeasibleError, InputError, Overloaded, RoutingError
from eccos_core.protocols import Optimizer
from eccos_core.streaming.initial_prices import InitialPrices
from eccos_core.streaming.quality_account import QualityAccount
from eccos_core.streaming.targets import FloorTarget, RateTarget, SpendingAccount

_GAIN = 1.0  # lambda is multiplied by e when nothing more may be lost against the best
_MOST_MOVED = 4.0  # log of the largest factor by which steering moves lambda
_AIM = 0.1  # steering keeps this share of what may be lost against the best in hand
_AIM_MEAN = 0.5  # ... and aims this share of the tolerance above the floor
_LEARNING = 0.001  # per request: how fast too little of it (or too much) moves the log of lambda for good
_PATIENCE = 5_000  # requests over which a lasting surplus moves lambda by a factor e
_SPREAD_FROM = 0.5  # occupancy from which a model's slots have a price
_SPREAD_QUALITY = 0.05  # ... which rises to this much quality at full occupancy


class StreamController:
    """Decides the requests of a stream, in order. Safe to call from several threads.

    `clock` gives monotonic seconds. A model that is not open (down, full, not eligible) is never chosen; arrays may
    grow by further models at any time.
    """

    def __init__(
        self,
        target: FloorTarget | RateTarget,
        prices: InitialPrices,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target = target
        self._start = prices
        self._clock = clock
        self._lock = threading.Lock()
        self._urgent = 0.0  # log of the factor on lambda: what the last requests ask for
        self._lasting = 0.0  # ... and what a lasting surplus allows
        self._slots = prices.slots
        self.quality = QualityAccount(target, prices.best_quality) if isinstance(target, FloorTarget) else None
        self.spending = SpendingAccount(target, clock()) if isinstance(target, RateTarget) else None

    def take_over(self, before: StreamController) -> None:
        """Continue the accounts of a controller with the same target: what was spent stays spent. Call before use.

        The two share their lock from now on, so that both may be used while one takes over from the other.
        """
        self._lock, self.quality, self.spending = before._lock, before.quality, before.spending
        if self.quality is not None:
            with self._lock:
                self.quality.assume(self._start.best_quality)

    @property
    def usd_per_quality(self) -> float:
        """Lambda now: USD per unit of quality."""
        return self._start.quality * math.exp(self._urgent + self._lasting)

    def decide(
        self,
        quality: FloatArray,
        cost_usd: FloatArray,
        open_models: BoolArray,
        occupancy: FloatArray | None = None,
    ) -> StreamChoice:
        """The model of one request. quality, cost_usd (M,), open_models (M,) bool, occupancy (M,) in [0, 1] or None.

        Raises `Overloaded` when no model is open, or when the budget of an hour or a day must first be earned (with the
        seconds until then); `InfeasibleError` when the cheapest model costs more than the budget per request has left.
        """
        with self._lock:
            return self._decide(quality, cost_usd, open_models, occupancy, None)

    def decide_jointly(
        self,
        quality: FloatArray,
        cost_usd: FloatArray,
        open_models: BoolArray,
        free_slots: IntArray,
        optimizer: Optimizer,
        models: Sequence[str],
    ) -> list[StreamChoice | Overloaded]:
        """What arrived together, (B, M) each, decided together: at most free_slots (M,) requests to each model.

        Slots go to whom they serve most, at the prices of the moment; guards then hold as in `decide`, in order of
        arrival. Where there are fewer slots than requests, the first come get them and the others an `Overloaded`.
        """
        with self._lock:
            wanted = self._assign(quality, cost_usd, open_models, free_slots, optimizer, models)
            left = np.asarray(free_slots).copy()
            if wanted is not None:
                left -= np.bincount(wanted, minlength=len(left))
            choices: list[StreamChoice | Overloaded] = []
            for row in range(len(quality)):
                if wanted is not None:
                    left[wanted[row]] += 1
                try:
                    choice = self._decide(
                        quality[row],
                        cost_usd[row],
                        open_models[row] & (left > 0),
                        None,
                        None if wanted is None else int(wanted[row]),
                    )
                except Overloaded as error:
                    choices.append(error)
                else:
                    left[choice.model] -= 1
                    choices.append(choice)
            return choices

    def _assign(
        self,
        quality: FloatArray,
        cost_usd: FloatArray,
        open_models: BoolArray,
        free_slots: IntArray,
        optimizer: Optimizer,
        models: Sequence[str],
    ) -> IntArray | None:
        """(B,): the cheapest assignment at the prices of the moment; None when not all requests find a slot."""
        problem = RoutingProblem(
            quality=quality,
            cost_usd=np.maximum(self._values(np.zeros_like(quality), cost_usd, 0.0, None), 0.0),
            eligible=open_models & (free_slots > 0),
            capacity=free_slots,
            policy=QualityPrice(self.usd_per_quality / 100),
            models=tuple(models),
        )
        try:
            return optimizer.solve(problem).model_index
        except RoutingError:
            return None

    def _decide(
        self,
        quality: FloatArray,
        cost_usd: FloatArray,
        open_models: BoolArray,
        occupancy: FloatArray | None,
        preferred: int | None,
    ) -> StreamChoice:
        if not open_models.any():
            raise Overloaded("no model that may answer this request is open", retry_after_s=1.0)
        value = self._values(quality, cost_usd, self.usd_per_quality, occupancy)
        value = np.where(open_models, value, np.inf)
        free_choice = int(value.argmin()) if preferred is None else preferred
        if self.quality is not None:
            return self._with_floor(self.quality, quality, cost_usd, open_models, value, free_choice)
        assert self.spending is not None
        return self._with_budget(self.spending, quality, cost_usd, open_models, value, free_choice)

    def correct_cost(self, difference_usd: float) -> None:
        """An answer cost `difference_usd` more than was predicted (less, when negative): the budget is in real USD."""
        with self._lock:
            if self.spending is not None:
                self.spending.correct(difference_usd)

    def _values(
        self, quality: FloatArray, cost_usd: FloatArray, usd_per_quality: float, occupancy: FloatArray | None
    ) -> FloatArray:
        value: FloatArray = cost_usd - usd_per_quality * quality
        if self._slots is not None:
            models = quality.shape[-1]  # of one request (M,) or of several (B, M)
            if len(self._slots) < models:  # the pool has grown
                self._slots = np.concatenate([self._slots, np.zeros(models - len(self._slots))])
            if len(self._slots) > models:
                raise InputError(f"the prices are for {len(self._slots)} models, the request has {models}")
            value = value + self._slots
        if occupancy is not None:
            busy = np.maximum(occupancy - _SPREAD_FROM, 0.0) / (1 - _SPREAD_FROM)
            value = value + usd_per_quality * _SPREAD_QUALITY * busy * busy
        return value

    def _with_floor(
        self,
        account: QualityAccount,
        quality: FloatArray,
        cost_usd: FloatArray,
        open_models: BoolArray,
        value: FloatArray,
        free_choice: int,
    ) -> StreamChoice:
        best = float(quality[open_models].max())
        need = account.need(best)
        model = free_choice
        if quality[model] < need.quality:
            model = int(np.where(quality >= need.quality, value, np.inf).argmin())
        usd_per_quality, reached = self.usd_per_quality, float(quality[model])
        account.add(reached, best)
        self._steer_by_quality(account, need.room)
        unmet = account.unmet()
        guarded = model != free_choice
        return StreamChoice(model, reached, float(cost_usd[model]), usd_per_quality, guarded, not unmet, unmet)

    def _steer_by_quality(self, account: QualityAccount, room: float) -> None:
        """Proportional and integral: lambda settles where the windows' mean stays a little above the floor, and some of
        what may be lost against the best is kept in hand."""
        target = account.target
        if account.count < target.window // 10:
            return
        mean = account.window_mean()
        under = max((_AIM - room) / _AIM, (target.alpha + _AIM_MEAN * target.tolerance - mean) / target.tolerance)
        self._urgent = min(max(_GAIN * under, 0.0), _MOST_MOVED)
        if under > 0:
            self._lasting = min(self._lasting + _LEARNING * min(under, 1.0), _MOST_MOVED)
        elif target.floor_insurance != "none":
            self._lasting = max(self._lasting + _LEARNING * max(under, -1.0), -_MOST_MOVED)
        elif self._lasting > 0:
            self._lasting = max(self._lasting + _LEARNING * max(under, -1.0), 0.0)
        elif account.falling:  # what is saved now will be missed soon
            self._lasting = min(self._lasting + 10 / _PATIENCE, 0.0)
        elif account.running_mean > target.alpha + target.tolerance / 2:
            self._lasting = max(self._lasting - 1 / _PATIENCE, -_MOST_MOVED)

    def _with_budget(
        self,
        account: SpendingAccount,
        quality: FloatArray,
        cost_usd: FloatArray,
        open_models: BoolArray,
        value: FloatArray,
        free_choice: int,
    ) -> StreamChoice:
        now_s = self._clock()
        left = account.left_usd(now_s)
        model = free_choice
        if cost_usd[model] > left:
            affordable = open_models & (cost_usd <= left)
            if not affordable.any():
                raise self._unaffordable(account, float(cost_usd[open_models].min()), left, now_s)
            model = int(np.where(affordable, value, np.inf).argmin())
        choice = StreamChoice(
            model, float(quality[model]), float(cost_usd[model]), self.usd_per_quality, model != free_choice
        )
        account.add(choice.cost_usd)
        self._steer_by_spending(account, now_s)
        return choice

    def _unaffordable(
        self, account: SpendingAccount, cheapest: float, left: float, now_s: float
    ) -> Overloaded | InfeasibleError:
        target = account.target
        wait_s = account.wait_s(cheapest, now_s)
        if wait_s is not None:
            return Overloaded(
                f"the budget of {target.usd:.6g} USD per {target.per} is spent; the cheapest open model costs "
                f"{cheapest:.6g} USD, which is earned in {wait_s:.1f} s",
                retry_after_s=wait_s,
            )
        return InfeasibleError(
            "budget rate",
            max(left, 0.0),
            cheapest,
            f"the budget of {target.usd:.6g} USD per request has {max(left, 0.0):.6g} USD left for this request; the "
            f"cheapest open model costs {cheapest:.6g} USD",
        )

    def _steer_by_spending(self, account: SpendingAccount, now_s: float) -> None:
        """Lambda falls at once when less than 1 % of what was earned is left, and rises slowly while much is left."""
        share = account.left_usd(now_s) / max(account.earned_usd(now_s), 1e-300)
        self._urgent = max(-_MOST_MOVED, min(0.0, _GAIN * (share - 0.01) / 0.01))
        self._lasting = min(max(self._lasting + (1 if share > 0.02 else -1) / _PATIENCE, 0.0), _MOST_MOVED)
