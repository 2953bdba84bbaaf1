"""Solve a batch in shards: few numbers go out with each pass, sums come back, and the bounds of the shards add up.

It is the method of `DualOptimizer`: the same search for prices (`dual_newton`), on sums that the shards return. The
undecided requests are then solved jointly by an optimizer in this process (`core`), so the answer keeps floor, budget,
caps and shares exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from eccos_core.domain import (
    Assignment,
    BoolArray,
    Budget,
    FloatArray,
    GroupShare,
    IntArray,
    Policy,
    Prices,
    QualityFloor,
    QualityPrice,
    SolutionStatus,
)
from eccos_core.errors import InfeasibleError
from eccos_core.optimizer.auto import AutoOptimizer
from eccos_core.optimizer.canonical import BudgetBound, LoadProblem, objective_usd, price_of_choice, prove
from eccos_core.optimizer.dual import DEFAULT_GAP
from eccos_core.optimizer.dual_newton import (
    MAX_UNSETTLED,
    SAMPLE_REQUESTS,
    DualScale,
    PathEnd,
    follow_central_path,
    relax,
    temperature_unit,
)
from eccos_core.optimizer.feasibility import check_capacity, policy_error, relax_policy
from eccos_core.optimizer.group_shares import counts_error
from eccos_core.optimizer.linear_program import ROUNDING, DualPrices, count_limits
from eccos_core.optimizer.sharded.arrays import ShardArrays, Shards
from eccos_core.optimizer.sharded.core import Core, FindMargins, RoundedChoice, SplitCore, least_of
from eccos_core.optimizer.sharded.facts import BatchFacts, Describe
from eccos_core.optimizer.sharded.narrowing import MeasureNarrowing, narrow
from eccos_core.optimizer.sharded.program import (
    ChoiceRule,
    ChoiceSums,
    ChooseAtPrices,
    ShardedDual,
    ShardedProgram,
    add_choices,
)
from eccos_core.protocols import Optimizer

CORE_REQUESTS = 20_000  # solved jointly, at first
WANTED_GAP = 1e-5
_GROWTH, _CHEAP_CORE_REQUESTS, _MAX_CORE_REQUESTS = 6, 20_000, 400_000
_MAX_OPEN_REQUESTS = 200_000  # with a choice, where a tight floor or budget leaves the others none

LimitsOf: TypeAlias = Callable[[BoolArray, IntArray], tuple[IntArray, tuple[GroupShare, ...]]]


@dataclass(frozen=True, slots=True, eq=False)
class ShardedSolution:
    """The answer for a batch in shards: the rule by which each shard finds its models, and the certificate.

    `calls` (M,) are the requests of each model. The other fields are those of `Assignment`.
    """

    rule: ChoiceRule
    calls: IntArray
    capacity: IntArray
    prices: Prices
    cost_usd: float
    quality: float
    lower_bound_usd: float
    gap: float
    status: SolutionStatus
    upper_bound_quality: float | None
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Rounded:
    """An assignment that keeps all limits, its rule, its sums, and the prices and the bound that it is judged by.

    `core` is the answer for the requests that were solved jointly, None where nothing was.
    """

    rule: ChoiceRule
    sums: ChoiceSums
    prices: DualPrices
    bound: float
    core: Assignment | None = None

    @property
    def gap(self) -> float:
        """The relative distance of the objective to the bound, at least 0."""
        return max(self.sums.objective - self.bound, 0.0) / max(abs(self.sums.objective), 1e-300)


def solve_shards(
    shards: Shards,
    policy: Policy,
    limits_of: LimitsOf,
    *,
    optimizer: Optimizer | None = None,
    core_requests: int = CORE_REQUESTS,
    progress: Callable[[str], None] = lambda stage: None,
) -> ShardedSolution:
    """Find prices, certificate and assignment of a batch in shards.

    `limits_of` returns caps (M,) and group shares, given the distinct sets of allowed models (P, M) and how many
    requests have each (P,). `optimizer` solves the `core_requests` requests that are the least decided. Raises
    `InputError`, `NoEligibleModelError` and `InfeasibleError`, as an `Optimizer` does.
    """
    best_effort = policy.on_infeasible == "best_effort"
    progress("describing the shards")
    share = min(1.0, 2 * SAMPLE_REQUESTS / max(shards.requests, 1))
    facts = BatchFacts.of(shards.map(Describe(shards.models, share)), shards.models)
    notes: list[str] = []
    if facts.unreachable is not None:
        if not best_effort:
            raise facts.unreachable
        notes.append(str(facts.unreachable))
    capacity, groups = limits_of(facts.patterns, facts.sizes)
    groups = tuple(replace(group, members=np.asarray(group.members, dtype=np.bool_)) for group in groups)
    loads = LoadProblem(facts.patterns, facts.sizes, np.asarray(capacity), groups)
    check_capacity(loads)
    tries = len(notes) + 2
    while True:
        solver = _Solver(shards, facts, loads, policy, optimizer or AutoOptimizer(), core_requests, progress)
        try:
            solution = solver.solve()
        except InfeasibleError as error:
            relaxed = relax_policy(policy, error) if best_effort else None
            if relaxed is None or len(notes) >= tries:
                raise
            notes.append(str(error))
            policy = relaxed
        else:
            if not notes:
                return solution
            return replace(solution, status=SolutionStatus.BEST_EFFORT, note="; ".join(notes))


class _Solver:
    """Solves one policy over shards that are described."""

    def __init__(
        self,
        shards: Shards,
        facts: BatchFacts,
        loads: LoadProblem,
        policy: Policy,
        optimizer: Optimizer,
        core_requests: int,
        progress: Callable[[str], None],
    ) -> None:
        self.shards, self.facts, self.loads = shards, facts, loads
        self.optimizer, self.core_requests, self.progress = optimizer, core_requests, progress
        self._side_best: _Rounded | None = None
        rows, limits = count_limits(facts.requests, loads.capacity, loads.groups)
        best_effort = policy.on_infeasible == "best_effort"
        self.program = ShardedProgram(policy, facts.usd_unit, facts.requests, rows, limits, best_effort=best_effort)

    def solve(self) -> ShardedSolution:
        program = self.program
        alone = self._choose_alone(program)
        if alone is not None:
            return self._finish(alone)
        if program.has_side and not len(program.count_limits):
            self._check_side(self._best_for_side())
        end = self._find_prices(program)
        if not end.converged and program.has_side and not self.loads.groups:
            program = self._narrow(program)
            forced = self._solve_open(program, end)
            if forced is not None:
                return self._finish(forced)
            end = self._find_narrowed_prices(program, end)
        rounded = self._round_growing(program, end)
        return self._finish(replace(rounded, prices=self._drop_negligible_prices(rounded)))

    def _choose_alone(self, program: ShardedProgram) -> _Rounded | None:
        """Let every request take what is best for it. None where that breaks a limit."""
        rule = ChooseAtPrices(program, DualPrices(0.0, np.zeros(len(program.count_limits))))
        sums = add_choices(self.shards.map(rule))
        return _Rounded(rule, sums, rule.prices, sums.least) if self._keeps_limits(program, sums) else None

    def _keeps_limits(self, program: ShardedProgram, sums: ChoiceSums) -> bool:
        limit = program.side_limit
        side = not program.has_side or limit is None or sums.side <= limit + ROUNDING * abs(limit)
        return side and bool((program.count_rows @ sums.loads <= program.count_limits).all())

    def _find_prices(self, program: ShardedProgram, start_at: DualPrices | None = None) -> PathEnd:
        facts, policy, unit_usd, only = self.facts, program.policy, program.usd_unit, program.side_only
        sample = program.of(facts.sample)
        scale = DualScale(
            temperature_unit(sample),
            facts.size(policy, unit_usd, side_only=only),
            facts.worst_objective(policy, unit_usd, side_only=only),
        )
        patience, warm = 1 if start_at is None else MAX_UNSETTLED, False
        share = sample.requests / facts.requests
        if start_at is None and share <= 0.5:
            scaled = replace(sample, side_limit=sample.side_limit * share, count_limits=sample.count_limits * share)
            first = relax(scaled, 1e-3)
            if first.converged:
                start_at, warm = first.prices, True
        dual = ShardedDual(self.shards, program, facts)
        self.progress("finding the prices")
        accuracy = max(DEFAULT_GAP, min(WANTED_GAP, 0.1 / facts.requests))
        return follow_central_path(dual, scale, accuracy, start_at, warm=warm, patience=patience)

    def _narrow(self, program: ShardedProgram) -> ShardedProgram:
        """Leave out the choices that a tight floor or budget rules out."""
        best = self._best_for_side()
        self._check_side(best)
        return replace(program, narrowing=narrow(program, best.prices.counts, best.bound))

    def _solve_open(self, program: ShardedProgram, end: PathEnd) -> _Rounded | None:
        """Solve the requests to which a narrowing leaves a choice. None where they are too many.

        All others have one choice in every feasible assignment. So the bound of these few is that of the batch.
        """
        found, whole = self._round(program, end, _MAX_OPEN_REQUESTS)
        if found is None or found.core is None or not whole:
            return None
        core, requests = found.core, len(found.core.model_index)
        match program.policy:
            case Budget():
                assert core.upper_bound_quality is not None
                excess = requests * (core.upper_bound_quality - core.quality)
            case _:
                excess = (core.cost_usd - core.lower_bound_usd) / program.usd_unit
        return replace(found, bound=max(found.bound, found.sums.objective - excess))

    def _find_narrowed_prices(self, program: ShardedProgram, end: PathEnd) -> PathEnd:
        """Find prices again after a narrowing. The better of both bounds is kept."""
        assert program.narrowing is not None
        sums = list(self.shards.map(MeasureNarrowing(replace(program, narrowing=None), program.narrowing)))
        side_price = sum(change for change, _ in sums) / max(sum(reduced for _, reduced in sums), 1e-300)
        found = self._find_prices(program, DualPrices(side_price, side_price * program.narrowing.counts))
        return found if found.bound >= end.bound else replace(found, prices=end.prices, bound=end.bound)

    def _best_for_side(self) -> _Rounded:
        """Return the assignment with the most quality (for a floor) or the least cost (for a budget)."""
        if self._side_best is None:
            program = replace(self.program, side_only=True)
            alone = self._choose_alone(program)
            self._side_best = alone or self._priced_by_core(
                program, self._round_growing(program, self._find_prices(program))
            )
        return self._side_best

    def _priced_by_core(self, program: ShardedProgram, rounded: _Rounded) -> _Rounded:
        """Return the assignment with the prices at which its core is exactly best, if they prove more.

        Caps without a floor or budget are a flow, so the core has exact prices. They are usually exact for the batch.
        """
        if rounded.core is None or self.loads.groups:
            return rounded
        unit = 1.0 if isinstance(program.policy, QualityFloor) else program.usd_unit
        counts = rounded.core.prices.slots[program.count_rows.argmax(axis=1)] / unit
        prices = DualPrices(0.0, counts)
        least = add_choices(self.shards.map(ChooseAtPrices(program, prices))).least
        bound = least - program.rest_at(prices)
        return replace(rounded, prices=prices, bound=bound) if bound > rounded.bound else rounded

    def _check_side(self, best: _Rounded) -> None:
        """Raise `InfeasibleError` where even the best assignment for the floor or budget misses it."""
        limit = self.program.side_limit
        assert limit is not None
        if best.sums.objective > limit + ROUNDING * abs(limit):
            requests = self.facts.requests
            raise policy_error(
                self.program.policy, requests, self.loads.capacity, best.sums.cost_usd, best.sums.quality / requests
            )

    def _round_growing(self, program: ShardedProgram, end: PathEnd) -> _Rounded:
        """Round at the prices. The core grows until the answer keeps all limits and the gap is as wanted."""
        best: _Rounded | None = None
        size, gap = self.core_requests, np.inf
        while True:
            self.progress(f"solving the {min(size, self.facts.requests):,} least decided requests jointly")
            found, whole = self._round(program, end, size)
            if found is not None and (best is None or found.sums.objective < best.sums.objective):
                best = found
            if best is None and program.has_side:
                self._check_side(self._best_for_side())
            helped = best is None or best.gap < gap / 2 or size < _CHEAP_CORE_REQUESTS
            if whole or size >= _MAX_CORE_REQUESTS or not helped or (best is not None and best.gap <= WANTED_GAP):
                break
            gap = np.inf if best is None else best.gap
            size *= _GROWTH
        if best is not None:
            return best
        if program.has_side:
            side_best = self._best_for_side()
            sums = self._sums_of(program, side_best.rule)
            return _Rounded(side_best.rule, sums, end.prices, end.bound)
        error = counts_error(self.loads)
        assert error is not None, "caps that have room and shares that can be kept have a solution"
        raise error

    def _sums_of(self, program: ShardedProgram, rule: ChoiceRule) -> ChoiceSums:
        return add_choices(self.shards.map(SumRule(program, rule)))

    def _round(self, program: ShardedProgram, end: PathEnd, size: int) -> tuple[_Rounded | None, bool]:
        """Return an assignment that keeps all limits, if the core allows one, and whether the core was everything."""
        requests = self.facts.requests
        least = np.zeros(0)
        for part in self.shards.map(FindMargins(program, end.y, size + 1)):
            least = least_of(np.concatenate([least, part]), size + 1)
        whole = len(least) <= size
        threshold = np.inf if whole else float(least.max())
        split = SplitCore(program, end.y, end.temperature, threshold, size / requests)
        core = Core.of(self.shards.map(split))
        problem = core.problem(program, self.loads.capacity, self.loads.groups, self.shards.models)
        if problem is None:
            return None, whole
        try:
            answer = self.optimizer.solve(problem)
        except InfeasibleError:
            return None, whole
        rule = RoundedChoice(program, end.y, end.temperature, core.by_shard(answer.model_index))
        sums = core.rest + self._sums_of_core(program, core, answer)
        if not self._keeps_limits(program, sums):
            return None, whole
        return _Rounded(rule, sums, end.prices, end.bound, answer), whole

    def _sums_of_core(self, program: ShardedProgram, core: Core, answer: Assignment) -> ChoiceSums:
        shard = ShardArrays(0, 0, core.quality.astype(np.float32), core.cost_usd.astype(np.float32), core.allowed)
        return ChoiceSums.of(replace(program, narrowing=None).of(shard), shard, answer.model_index)

    def _drop_negligible_prices(self, rounded: _Rounded) -> DualPrices:
        """Set prices to zero that smoothing left on limits with slack, if the bound stays as good."""
        program, prices = self.program, rounded.prices
        slack = program.count_limits - program.count_rows @ rounded.sums.loads
        counts = np.where(slack > 0, 0.0, prices.counts)
        capped = len(counts) == len(self.shards.models) and (program.count_rows == np.eye(len(counts))).all()
        if capped and counts.min() > 0:
            counts = counts - counts.min()  # when every model is capped, only differences of prices matter
        cleaned = DualPrices(prices.side, counts)
        if (counts == prices.counts).all():
            return prices
        least = add_choices(self.shards.map(ChooseAtPrices(program, cleaned))).least
        as_good = least - program.rest_at(cleaned) >= rounded.bound - 1e-9 * abs(rounded.bound)
        return cleaned if as_good else prices

    def _finish(self, rounded: _Rounded) -> ShardedSolution:
        program, sums, prices, facts = self.program, rounded.sums, rounded.prices, self.facts
        policy, requests = program.policy, facts.requests
        at_prices = add_choices(self.shards.map(ChooseAtPrices(program, prices))).least
        bound = max(rounded.bound, at_prices - program.rest_at(prices))
        excess = max(sums.objective - bound, 0.0)
        unit, quality = objective_usd(policy, program.usd_unit), sums.quality / requests
        budget = BudgetBound(prices.side, at_prices - float(prices.counts @ program.count_limits))
        proof = prove(policy, sums.cost_usd, quality, requests, excess, unit, budget, facts.cheapest_usd)
        slots: FloatArray = prices.counts @ program.count_rows
        match policy:
            case QualityFloor():
                usd_per_quality, slots = prices.side * unit, slots * unit
            case Budget():
                usd_per_quality = self._usd_per_quality_under_budget(rounded.rule, prices)
                slots = slots * usd_per_quality
            case QualityPrice():
                usd_per_quality, slots = policy.usd_per_quality, slots * unit
        return ShardedSolution(
            rule=rounded.rule,
            calls=sums.loads,
            capacity=self.loads.capacity,
            prices=Prices(usd_per_quality, slots),
            cost_usd=sums.cost_usd,
            quality=quality,
            lower_bound_usd=proof.lower_usd,
            gap=proof.gap,
            status=proof.status,
            upper_bound_quality=proof.upper_quality,
        )

    def _usd_per_quality_under_budget(self, rule: ChoiceRule, prices: DualPrices) -> float:
        unit = self.program.usd_unit
        if prices.side > 0:
            return unit / prices.side
        slots = prices.counts @ self.program.count_rows
        return max(self.shards.map(PriceOfChoice(rule, slots, best_effort=self.program.best_effort)))


@dataclass(frozen=True, slots=True, eq=False)
class SumRule:
    """Add up what a rule chooses in a shard."""

    program: ShardedProgram
    rule: ChoiceRule

    def run(self, shard: ShardArrays) -> ChoiceSums:
        """See `ShardTask.run`."""
        return ChoiceSums.of(self.program.of(shard), shard, self.rule.choose(shard))


@dataclass(frozen=True, slots=True, eq=False)
class PriceOfChoice:
    """Return the least price of quality in USD at which no request of a shard would rather have a cheaper model."""

    rule: ChoiceRule
    slots: FloatArray
    best_effort: bool

    def run(self, shard: ShardArrays) -> float:
        """See `ShardTask.run`."""
        allowed = shard.allowed(best_effort=self.best_effort).T
        worth = shard.quality.T.astype(np.float64) - self.slots[:, None]
        return price_of_choice(worth, shard.cost_usd.T.astype(np.float64), allowed, self.rule.choose(shard))
