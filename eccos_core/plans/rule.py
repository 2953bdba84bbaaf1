"""When to accept an answer, and whom to ask next: optimal stopping by looking ahead.

The value of a state is what its best answer is worth, or what asking another model is worth, if that is more:

    V(s) = max(lambda max_i p_i(s), max_j [-c_j + E V(s + j)])

lambda is the price of quality in USD per unit, as everywhere in eccos. The belief of the verifier gives the expectation
over all ways in which model j can answer. The rule looks two calls ahead, again after each answer.

What the verifier promises from another call is trusted in part only: `trust` in [0, 1] scales the expected gain in
quality. It is chosen on held-out questions. At 0 no second call is ever worth it, and routing is by the forecast alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.errors import InputError
from eccos_core.plans.belief import Belief
from eccos_core.plans.state import PlanState
from eccos_core.plans.verifier import Verifier

MAX_CALLS = 3
_NEVER = -1e30  # a gain that no price makes worth it, and that stays a number at price 0
_ROWS_AT_ONCE = 400  # bounds the memory of looking two calls ahead


@dataclass(frozen=True, slots=True, eq=False)
class PlanValues:
    """What the plan that starts with each model is expected to bring: quality and cost_usd, (R, M).

    calls (R, M): how many calls it is expected to take.
    """

    quality: FloatArray
    cost_usd: FloatArray
    calls: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class NextSteps:
    """What to do next in R plans of n answers each.

    ask (R,): the column of the model to ask, -1 to accept. accept (R,): the column of the best answer so far, -1 where
    there is none. quality (R,): P(that answer is good). gain_usd (R,): what asking is worth more than accepting, at
    most 0 where the plan accepts.
    """

    ask: IntArray
    accept: IntArray
    quality: FloatArray
    gain_usd: FloatArray


@dataclass(frozen=True, slots=True)
class PlanStep:
    """What to do next in one plan: accept the answer of `accept`, or ask `ask`. Exactly one of the two is None.

    quality: P(good) of the best answer so far. gain_usd: what asking is worth more than accepting. reason: in words.
    """

    accept: str | None
    ask: str | None
    quality: float
    gain_usd: float
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class LookAhead:
    """What another call is worth after one answer or more, at any price of quality. R requests.

    columns (F,): the models that may follow. now (R,): P(the best answer so far is good). later (R, F): the same after
    asking each of them, as expected. Axis W: the ways in which that answer can fall out. share (R, F, W): their
    probability. more (R, F, W, F): the gain in quality by one call more, weighted by `share`. Both are None where only
    one call is looked ahead.
    """

    columns: IntArray

    now: FloatArray
    later: FloatArray
    share: FloatArray | None = None
    more: FloatArray | None = None

    @classmethod
    def of(cls, belief: Belief, columns: IntArray, *, deep: bool) -> LookAhead:
        """Look ahead from a belief of mass 1. deep: two calls instead of one."""
        now, later = belief.look_ahead(columns)
        if not deep:
            return cls(columns, now, later)
        parts = [_look_deeper(belief.rows(part), columns, columns) for part in _parts(len(later))]
        share, more = (np.concatenate([part[each] for part in parts]) for each in range(2))
        return cls(columns, now, later, share, more)

    def gains(self, price: FloatArray, cost_usd: FloatArray, may_ask: BoolArray, trust: float) -> FloatArray:
        """Return how much more asking each model is worth than accepting now, (R, M) in USD.

        price (R,): USD per unit of quality. cost_usd (R, M): of one call. may_ask (R, M): elsewhere it is -inf.
        """
        found = np.full(cost_usd.shape, -np.inf)
        fee, may_follow = cost_usd[:, self.columns], may_ask[:, self.columns]
        gains = trust * price[:, None] * (self.later - self.now[:, None]) - fee
        if trust and self.share is not None and self.more is not None:
            again = trust * price[:, None, None, None] * self.more - self.share[..., None] * fee[:, None, None, :]
            again = np.where(may_follow[:, None, None, :], again, -np.inf)
            gains = gains + np.maximum(again.max(axis=3), 0.0).sum(axis=2)
        found[:, self.columns] = np.where(may_follow, gains, -np.inf)
        return found

    def rows(self, index: IntArray) -> LookAhead:
        """The same for the chosen requests."""
        share = None if self.share is None else self.share[index]
        more = None if self.more is None else self.more[index]
        return LookAhead(self.columns, self.now[index], self.later[index], share, more)


def _parts(rows: int) -> list[IntArray]:
    """Return the rows in parts that fit into memory, at least one."""
    return [np.arange(at, min(at + _ROWS_AT_ONCE, rows)) for at in range(0, max(rows, 1), _ROWS_AT_ONCE)]


def _look_deeper(belief: Belief, columns: IntArray, followers: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return `share` (R, C, W) and `more` (R, C, W, F) of asking `columns` (C,), then `followers` (F,)."""
    rows = len(belief.asked)
    ways = belief.imagine(columns)
    now, later = ways.look_ahead(followers)
    more = (later - now[:, None]).reshape(rows, len(columns), -1, len(followers))
    twice = np.broadcast_to((columns[:, None] == followers)[None, :, None, :], more.shape)
    more = np.where(twice, _NEVER, more)
    return ways.mass.reshape(rows, len(columns), -1), more


@dataclass(frozen=True, slots=True, eq=False)
class FirstPlans:
    """The plans of R requests before the first call, at any price of quality.

    quality, cost_usd (R, M): the forecast of one call. Axis W: the ways in which the first answer can fall out.
    columns (F,): the models that may follow. share (R, M, W): the probability of each way. more (R, M, W, F): the gain
    in quality by asking another model then, weighted by `share`. It is far below 0 for the model that was asked.
    trust: that of the rule.
    """

    columns: IntArray

    quality: FloatArray
    cost_usd: FloatArray
    share: FloatArray
    more: FloatArray
    trust: float

    def values(self, usd_per_quality: float | FloatArray, open_models: BoolArray | None = None) -> PlanValues:
        """Return what plans are expected to bring at this price of quality (one, or one per request (R,)).

        open_models (R, M) or (M,): who may be asked. It says nothing of the first model.
        """
        price = np.asarray(usd_per_quality, dtype=np.float64).reshape(-1, 1, 1, 1)
        fee = self.share[..., None] * self.cost_usd[:, None, None, self.columns]
        if not self.trust:
            return PlanValues(self.quality, self.cost_usd, np.ones(self.quality.shape))
        more = self.trust * self.more
        gain = price * more - fee
        if open_models is not None:
            may_ask = np.broadcast_to(open_models, self.quality.shape)[:, None, None, self.columns]
            gain = np.where(may_ask, gain, -np.inf)
        best = gain.argmax(axis=3)[..., None]
        goes_on = np.take_along_axis(gain, best, axis=3)[..., 0] > 0
        gained = np.where(goes_on, np.take_along_axis(more, best, axis=3)[..., 0], 0.0).sum(axis=2)
        paid = np.where(goes_on, np.take_along_axis(fee, best, axis=3)[..., 0], 0.0).sum(axis=2)
        calls = 1 + np.where(goes_on, self.share, 0.0).sum(axis=2)
        return PlanValues(self.quality + gained, self.cost_usd + paid, calls)


@dataclass(frozen=True, slots=True, eq=False)
class PlanRule:
    """Decides when to accept an answer and whom to ask next.

    verifier: judges answers. trust in [0, 1]: how far its promises count. max_calls: calls per request at most, >= 1.
    followers: the models that may be asked after a first answer, None for all. Few of them keep a decision fast.
    """

    verifier: Verifier
    trust: float
    max_calls: int = MAX_CALLS
    followers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.trust <= 1:
            raise InputError(f"the trust in a verifier is {self.trust}, must be in [0, 1]")
        if self.max_calls < 1:
            raise InputError(f"max_calls is {self.max_calls}, must be >= 1")

    def first_plans(self, state: PlanState) -> FirstPlans:
        """Look ahead from before the first call. Ask the result for values at as many prices as you like."""
        if state.calls:
            raise InputError(f"first plans are for a state without answers, this one has {state.calls}")
        rows, models = state.quality.shape
        if self.max_calls == 1 or self.trust == 0 or models == 1:
            nothing = np.full((rows, models, 1, len(self._columns)), _NEVER)
            return FirstPlans(self._columns, state.quality, state.cost_usd, np.ones((rows, models, 1)), nothing, 0.0)
        belief = self.verifier.belief(state)
        everyone = np.arange(models)
        parts = [_look_deeper(belief.rows(part), everyone, self._columns) for part in _parts(rows)]
        share, more = (np.concatenate([part[each] for part in parts]) for each in range(2))
        return FirstPlans(self._columns, state.quality, state.cost_usd, share, more, self.trust)

    def first_values(
        self, state: PlanState, usd_per_quality: float | FloatArray, open_models: BoolArray | None = None
    ) -> PlanValues:
        """Return the expected quality and cost (R, M) of the plan that starts with each model."""
        return self.first_plans(state).values(usd_per_quality, open_models)

    def next_steps(
        self, state: PlanState, usd_per_quality: float | FloatArray, open_models: BoolArray | None = None
    ) -> NextSteps:
        """Decide R plans that have one answer or more. open_models (R, M) or (M,): who may be asked."""
        if not state.calls:
            raise InputError("a plan without an answer has no next step; choose its first model by `first_values`")
        rows = np.arange(len(state))
        may_ask = np.broadcast_to(np.bool_(True) if open_models is None else open_models, state.quality.shape)
        belief = self.verifier.belief(state)
        accept, ahead, may_ask = self._look_ahead(state, belief, may_ask)
        quality = self.verifier.judge(belief)[rows, accept]
        gain = np.full(len(state), -np.inf)
        ask = np.full(len(state), -1)
        if ahead is not None:
            price = np.broadcast_to(np.asarray(usd_per_quality, dtype=np.float64), (len(state),))
            gains = ahead.gains(price, state.cost_usd, may_ask, self.trust)
            choice = gains.argmax(axis=1)
            gain = gains[rows, choice]
            ask = np.where(gain > 0, choice, -1)
        return NextSteps(ask, accept, quality, gain)

    def look_ahead(self, state: PlanState, open_models: BoolArray) -> tuple[IntArray, LookAhead | None, BoolArray]:
        """Return the best answer so far (R,), what is worth asking for, and who may be asked, (R, M).

        Nothing is worth asking for (None) after the last call, without trust, or where nobody is left.
        """
        return self._look_ahead(state, self.verifier.belief(state), open_models)

    def _look_ahead(
        self, state: PlanState, belief: Belief, open_models: BoolArray
    ) -> tuple[IntArray, LookAhead | None, BoolArray]:
        best = belief.given_quality().argmax(axis=1)
        accept = state.asked[np.arange(len(state)), best]
        may_ask = open_models.copy()
        np.put_along_axis(may_ask, state.asked, False, axis=1)
        left = self.max_calls - state.calls
        if left <= 0 or self.trust == 0 or not may_ask.any():
            return accept, None, may_ask
        return accept, LookAhead.of(belief, self._columns, deep=left > 1), may_ask

    def next_step(self, state: PlanState, usd_per_quality: float, open_models: BoolArray | None = None) -> PlanStep:
        """Decide one plan, and say why. For a state of one request."""
        steps = self.next_steps(state, usd_per_quality, open_models)
        names, quality, gain = state.models, float(steps.quality[0]), steps.gain_usd[0]
        best = names[int(steps.accept[0])]
        if steps.ask[0] >= 0:
            name = names[int(steps.ask[0])]
            fee = state.cost_usd[0, steps.ask[0]]
            reason = (
                f"{best}'s answer is good with {quality:.0%}; asking {name} for {fee:.6f} USD is worth "
                f"{gain:.6f} USD more than accepting it"
            )
            return PlanStep(None, name, quality, float(gain), reason)
        if state.calls >= self.max_calls:
            why = f"{state.calls} calls are the most of a plan"
        elif not np.isfinite(gain):
            why = "nobody else can be asked"
        else:
            why = "no other answer is worth its price"
        return PlanStep(
            best, None, quality, float(max(gain, -1e9)), f"{best}'s answer is good with {quality:.0%}; {why}"
        )

    def for_pool(self, models: Sequence[str]) -> PlanRule:
        """The same rule for these models, in this order. Raises `ArtifactError` for an unknown model."""
        followers = None if self.followers is None else tuple(name for name in models if name in self.followers)
        return PlanRule(self.verifier.for_pool(models), self.trust, self.max_calls, followers or None)

    @property
    def _columns(self) -> IntArray:
        """The columns (F,) of the models that may follow."""
        names = self.verifier.models
        return np.array([place for place, name in enumerate(names) if self.followers is None or name in self.followers])
