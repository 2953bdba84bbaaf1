"""Decide one request at a time: argmin over models of cost - lambda * quality + mu.

There are two layers. Steering moves lambda with every request. A floor moves it by dual mirror descent on the mean
quality, and raises it further while quality is owed. A budget lowers it while spending is ahead of the rate. Lambda also
follows the level of costs, so that new prices are in force at once. Mu rises with occupancy, so load spreads before a
model reaches its cap.

Guarding excludes every model that would break the floor's promise, or the budget. Steering makes guarding rare.

Source of the steering by a floor: dual mirror descent, Balseiro, Lu, Mirrokni, "The best of many worlds" (2023).
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
from eccos_core.streaming.initial_prices import InitialPrices, log_costs
from eccos_core.streaming.insured_account import compute_insured_floor, open_account
from eccos_core.streaming.quality_account import QualityAccount
from eccos_core.streaming.targets import FloorTarget, RateTarget, SpendingAccount

# Steering moves log lambda, from its start.
_STEP = 0.001  # of mirror descent, per unit of quality over or under the floor
_RANGE = 1_000.0  # the most by which the price in debt exceeds the price without
_DEBT_COST_RATIO = 10.0  # without a history, the price in debt pays ten mean answers for one unit of quality
_COST_MEMORY = 30  # requests over which the level of costs is averaged
_MAX_LOG_FACTOR = 4.0  # bounds each term of steering by spending
_DECAY_REQUESTS = 5_000  # over which lasting credit moves lambda by a factor e
_CREDIT_TARGET = 0.01  # share of the earned budget that steering keeps in reserve
_BUSY_FROM = 0.5  # occupancy above which a model's slots have an extra price
_BUSY_QUALITY = 0.05  # that price at full occupancy, in units of quality


class StreamController:
    """Decide the requests of a stream, in order. You can call it from several threads.

    clock: returns monotonic seconds. A model that is not open (down, full, not eligible) is never chosen. The arrays
    may grow by further models at any time.
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
        self._proportional = 0.0  # the two terms of log lambda
        self._integral = 0.0
        self._base = prices.quality
        self._cost_level = 0.0  # log of how much dearer answers are than where the prices come from
        self._log_cost = prices.log_cost
        self._slots = prices.slots
        self.quality: QualityAccount | None = None
        self.spending: SpendingAccount | None = None
        if isinstance(target, RateTarget):
            self.spending = SpendingAccount(target, clock())
        else:
            self.quality = open_account(target, prices.best_quality, clock())
            self._aim = compute_insured_floor(target, prices.best_quality)
            self._set_range(prices.quality_in_debt or 0.0)

    def take_over(self, old: StreamController) -> None:
        """Continue the accounts of an old controller with the same target. Call it before the first decision.

        The two then share a lock and accounts, so you can use both during the change.
        """
        self._lock, self.quality, self.spending = old._lock, old.quality, old.spending
        if self.quality is not None:
            with self._lock:
                self.quality.assume(self._start.best_quality)

    @property
    def usd_per_quality(self) -> float:
        """The current price of quality (lambda), in USD per unit."""
        return self._base * math.exp(self._cost_level + self._proportional + self._integral)

    def decide(
        self,
        quality: FloatArray,
        cost_usd: FloatArray,
        open_models: BoolArray,
        occupancy: FloatArray | None = None,
    ) -> StreamChoice:
        """Choose the model of one request.

        quality, cost_usd, open_models (M,). occupancy (M,): in [0, 1], or None. Raises `Overloaded` if no model is
        open, or if spending is ahead of the even pace of a budget per hour or day. The error has the seconds to wait.
        Raises `InfeasibleError` if waiting does not help.
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
        """Choose the models of B requests that arrived together. quality, cost_usd, open_models (B, M).

        free_slots (M,): the most requests that each model gets. The optimizer assigns slots at the current prices.
        Guards then hold as in `decide`, in order of arrival. If there are fewer slots than requests, the first requests
        get them, and the others get an `Overloaded`.
        """
        with self._lock:
            assigned = self._assign(quality, cost_usd, open_models, free_slots, optimizer, models)
            free = np.asarray(free_slots).copy()
            if assigned is not None:
                free -= np.bincount(assigned, minlength=len(free))
            choices: list[StreamChoice | Overloaded] = []
            for row in range(len(quality)):
                if assigned is not None:
                    free[assigned[row]] += 1
                try:
                    choice = self._decide(
                        quality[row],
                        cost_usd[row],
                        open_models[row] & (free > 0),
                        None,
                        None if assigned is None else int(assigned[row]),
                    )
                except Overloaded as error:
                    choices.append(error)
                else:
                    free[choice.model] -= 1
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
        """Return the cheapest assignment (B,) at the current prices. None if not all requests get a slot."""
        problem = RoutingProblem(
            quality=quality,
            cost_usd=np.maximum(self._priced(np.zeros_like(quality), cost_usd, 0.0, None), 0.0),
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
        if self.quality is not None:
            return self._with_floor(self.quality, quality, cost_usd, open_models, occupancy, preferred)
        assert self.spending is not None
        value = self._priced(quality, cost_usd, self.usd_per_quality, occupancy)
        value = np.where(open_models, value, np.inf)
        free_choice = int(value.argmin()) if preferred is None else preferred
        return self._with_budget(self.spending, quality, cost_usd, open_models, value, free_choice)

    def correct_cost(self, difference_usd: float) -> None:
        """Charge what an answer cost more than predicted. Negative if it cost less."""
        with self._lock:
            if self.spending is not None:
                self.spending.correct(difference_usd, self._clock())

    def _priced(
        self, quality: FloatArray, cost_usd: FloatArray, usd_per_quality: float, occupancy: FloatArray | None
    ) -> FloatArray:
        """Return cost - lambda * quality + mu, of one request (M,) or of several (B, M)."""
        value: FloatArray = cost_usd - usd_per_quality * quality
        if self._slots is not None:
            models = quality.shape[-1]
            if len(self._slots) < models:  # the pool has grown
                self._slots = np.concatenate([self._slots, np.zeros(models - len(self._slots))])
            if len(self._slots) > models:
                raise InputError(f"the prices are for {len(self._slots)} models, the request has {models}")
            value = value + self._slots
        if occupancy is not None:
            busy = np.maximum(occupancy - _BUSY_FROM, 0.0) / (1 - _BUSY_FROM)
            value = value + usd_per_quality * _BUSY_QUALITY * busy * busy
        return value

    def _with_floor(
        self,
        account: QualityAccount,
        quality: FloatArray,
        cost_usd: FloatArray,
        open_models: BoolArray,
        occupancy: FloatArray | None,
        preferred: int | None,
    ) -> StreamChoice:
        best = float(quality[open_models].max())
        required = account.need(best, self._clock())
        self._follow_costs(cost_usd)
        self._steer_by_debt(required.slack)
        usd_per_quality = self.usd_per_quality
        value = np.where(open_models, self._priced(quality, cost_usd, usd_per_quality, occupancy), np.inf)
        free_choice = model = int(value.argmin()) if preferred is None else preferred
        if quality[model] < required.quality:
            model = int(np.where(quality >= required.quality, value, np.inf).argmin())
        reached = float(quality[model])
        account.add(reached, best)
        self._integral = min(max(self._integral - _STEP * (reached - self._aim), -self._log_range), self._log_range)
        unmet = account.unmet()
        guarded = model != free_choice
        return StreamChoice(model, reached, float(cost_usd[model]), usd_per_quality, guarded, not unmet, unmet)

    def _follow_costs(self, cost_usd: FloatArray) -> None:
        """Move lambda with the level of costs, so that it buys the same quality at new prices."""
        log_cost = log_costs(cost_usd)
        if self._log_cost is None:  # no history: the first request shows the level
            self._log_cost = log_cost
            self._set_range(_DEBT_COST_RATIO * float(cost_usd.mean()))
        models = min(len(log_cost), len(self._log_cost))
        level = float((log_cost[:models] - self._log_cost[:models]).mean())
        self._cost_level += (level - self._cost_level) / _COST_MEMORY

    def _set_range(self, in_debt: float) -> None:
        """Set lambda without debt, and the logarithm of what a full debt multiplies it by. in_debt: USD per quality."""
        self._base = max(self._start.quality, in_debt / _RANGE)
        self._log_range = math.log(max(in_debt / self._base, 1.0)) if self._base else 0.0

    def _steer_by_debt(self, slack: float) -> None:
        """Raise lambda by the share of the allowance that is used."""
        debt = min(max(1.0 - slack, 0.0), 1.0)
        self._proportional = min(self._log_range * debt, self._log_range - self._integral)

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
        available = account.available_usd(now_s)
        model = free_choice
        if cost_usd[model] > available:
            affordable = open_models & (cost_usd <= available)
            if not affordable.any():
                raise _unaffordable(account, float(cost_usd[open_models].min()), now_s)
            model = int(np.where(affordable, value, np.inf).argmin())
        choice = StreamChoice(
            model, float(quality[model]), float(cost_usd[model]), self.usd_per_quality, model != free_choice
        )
        account.add(choice.cost_usd, now_s)
        self._steer_by_spending(account, now_s)
        return choice

    def _steer_by_spending(self, account: SpendingAccount, now_s: float) -> None:
        """Lower lambda at once when less than 1 % of what was earned is left. Raise it slowly while there is more."""
        share = account.available_usd(now_s) / max(account.earned_usd(now_s), 1e-300)
        error = (share - _CREDIT_TARGET) / _CREDIT_TARGET
        self._proportional = max(-_MAX_LOG_FACTOR, min(0.0, error))
        step = (1 if share > 2 * _CREDIT_TARGET else -1) / _DECAY_REQUESTS
        self._integral = min(max(self._integral + step, 0.0), _MAX_LOG_FACTOR)


def _unaffordable(account: SpendingAccount, cheapest: float, now_s: float) -> Overloaded | InfeasibleError:
    """Explain that no open model is affordable now. cheapest: the cost of the cheapest open model, in USD."""
    target, available = account.target, max(round(account.available_usd(now_s), 9), 0.0)
    problem = f"{available:.6g} USD is available now, and the cheapest open model costs {cheapest:.6g} USD"
    wait_s = account.wait_s(cheapest, now_s)
    if wait_s is not None:
        return Overloaded(
            f"spending is ahead of the even pace of {target.usd:.6g} USD per {target.per}: {problem}; "
            f"wait {wait_s:.1f} s until that is earned, or raise the budget",
            retry_after_s=wait_s,
        )
    most = f"the budget of {target.usd:.6g} USD per {target.per}"
    if target.per == "request":
        most += " is a mean over the run"
    else:
        most += " saves up no more than that, so waiting does not help"
    return InfeasibleError(
        "budget rate", available, cheapest, f"{most}: {problem}; raise the budget, or add a cheaper model"
    )
