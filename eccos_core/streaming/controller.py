"""Decide one request at a time: argmin over models of cost - lambda * quality + mu.

There are two layers. Steering moves lambda with every request, see `quality_price`. Mu rises with occupancy, so load
spreads before a model reaches its cap.

Guarding excludes every model that would break the floor's promise, or the budget. Steering makes guarding rare.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray, QualityPrice, RoutingProblem, StreamChoice
from eccos_core.errors import InfeasibleError, InputError, Overloaded, RoutingError
from eccos_core.protocols import Optimizer
from eccos_core.streaming.initial_prices import InitialPrices
from eccos_core.streaming.insured_account import open_account
from eccos_core.streaming.quality_account import QualityAccount
from eccos_core.streaming.quality_price import BudgetPrice, FloorPrice
from eccos_core.streaming.shared_floor import SharedFloor
from eccos_core.streaming.shared_spending import SharedSpending
from eccos_core.streaming.stream_share import StreamShare
from eccos_core.streaming.targets import FloorTarget, RateTarget, SpendingAccount

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
        self._slots = prices.slots
        self.quality: QualityAccount | None = None
        self.spending: SpendingAccount | SharedSpending | None = None
        self._share: StreamShare | None = None
        self._price: FloorPrice | BudgetPrice
        if isinstance(target, FloorTarget):
            self._price = FloorPrice(target, prices)
            self.quality = open_account(target, prices.best_quality, clock())
        else:
            self._price = BudgetPrice(prices)
            self.spending = SpendingAccount(target, clock())

    def take_over(self, old: StreamController) -> None:
        """Continue the accounts of an old controller with the same target. Call it before the first decision.

        The two then share a lock and accounts, so you can use both during the change.
        """
        self._lock, self.quality, self.spending = old._lock, old.quality, old.spending
        if self.quality is not None:
            with self._lock:
                self.quality.assume(self._start.best_quality)
        self._share = old._share
        if self._share is not None:
            self._share.follow(self._price.slow)

    def share(self, wake: Callable[[], None]) -> StreamShare:
        """Keep the target together with other replicas from now on. Call it before the first decision.

        A floor, and a budget per hour or day, hold over the requests of all. Each replica keeps a budget per request
        for its own requests, so it holds for all. `wake` is called when this replica should
        exchange its sums at once. It must not block.
        """
        with self._lock:
            if self._share is None:
                now_s = self._clock()
                account: SharedFloor | SharedSpending | None = None
                if self.quality is not None:
                    self.quality = account = SharedFloor(self.quality, now_s)
                elif isinstance(self.target, RateTarget) and self.target.per != "request":
                    self.spending = account = SharedSpending(self.target, now_s)
                self._share = StreamShare(account, self._price.slow, self._lock, self._clock, wake)
            return self._share

    @property
    def usd_per_quality(self) -> float:
        """The current price of quality (lambda), in USD per unit."""
        return self._price.usd_per_quality

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
            try:
                return self._decide(quality, cost_usd, open_models, occupancy, None)
            finally:
                self._note_use()

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
            self._note_use()
            return choices

    def _note_use(self) -> None:
        if self._share is not None:
            self._share.note_use()

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
        return self._with_budget(self.spending, quality, cost_usd, open_models, occupancy, preferred)

    def retract(self, choice: StreamChoice) -> None:
        """Take a choice out of the account and out of the price, because its answer is never given."""
        with self._lock:
            if self.quality is not None and isinstance(self._price, FloorPrice):
                self.quality.remove(choice.quality, choice.best_quality)
                self._price.unlearn(choice.quality)
            elif self.spending is not None:
                self.spending.remove(choice.cost_usd, self._clock())

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
        assert isinstance(self._price, FloorPrice)
        best = float(quality[open_models].max())
        required = account.need(best, self._clock())
        self._price.prepare(cost_usd, required.slack)
        usd_per_quality = self.usd_per_quality
        value = np.where(open_models, self._priced(quality, cost_usd, usd_per_quality, occupancy), np.inf)
        free_choice = model = int(value.argmin()) if preferred is None else preferred
        if quality[model] < required.quality:
            model = int(np.where(quality >= required.quality, value, np.inf).argmin())
        reached = float(quality[model])
        account.add(reached, best)
        self._price.learn(reached)
        unmet = account.unmet()
        guarded = model != free_choice
        usd = float(cost_usd[model])
        return StreamChoice(model, reached, usd, usd_per_quality, guarded, not unmet, unmet, best)

    def _with_budget(
        self,
        account: SpendingAccount | SharedSpending,
        quality: FloatArray,
        cost_usd: FloatArray,
        open_models: BoolArray,
        occupancy: FloatArray | None,
        preferred: int | None,
    ) -> StreamChoice:
        assert isinstance(self._price, BudgetPrice)
        now_s, usd_per_quality = self._clock(), self.usd_per_quality
        value = np.where(open_models, self._priced(quality, cost_usd, usd_per_quality, occupancy), np.inf)
        free_choice = model = int(value.argmin()) if preferred is None else preferred
        available = account.available_usd(now_s)
        if cost_usd[model] > available:
            affordable = open_models & (cost_usd <= available)
            if not affordable.any():
                raise _unaffordable(account, float(cost_usd[open_models].min()), now_s)
            model = int(np.where(affordable, value, np.inf).argmin())
        usd = float(cost_usd[model])
        account.add(usd, now_s)
        self._price.learn(account.left_share(now_s))
        return StreamChoice(model, float(quality[model]), usd, usd_per_quality, model != free_choice)


def _unaffordable(
    account: SpendingAccount | SharedSpending, cheapest: float, now_s: float
) -> Overloaded | InfeasibleError:
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
