"""Decides a batch whose requests may share calls: models and packs are assigned jointly under the policy."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from eccos_core.domain import Assignment, Budget, Decision, IntArray, Policy, Prices, Request, SolutionStatus
from eccos_core.errors import InfeasibleError, InputError
from eccos_core.packing import PackingRule, parse_arm, reason_alone
from eccos_core.packing.plan import Offers, Pack, form_packs, offer_arms, with_arm, with_arms
from eccos_core.routing.decisions import build_decisions
from eccos_core.routing.prepared import PreparedBatch

if TYPE_CHECKING:
    from eccos_core.routing.pipeline import Pipeline, RequestLike

MOST_ROUNDS = 4  # solutions of one batch, until its packs keep to slots and budget
_log = logging.getLogger("eccos.packing")


@dataclass(frozen=True, slots=True)
class DecidedPack:
    """One call for several requests. `model` is the model to call, `arm` the name of the arm.

    `alone` are the decisions, with the same ids, for requests that the pack leaves open.
    """

    model: str
    arm: str
    requests: tuple[Request, ...]
    decisions: tuple[Decision, ...]
    alone: tuple[Decision, ...]


class PackedRoute:
    """Assigns batches like `Pipeline.route`, some requests to arms. `pack_of` then maps decisions to their packs."""

    def __init__(self, pipeline: Pipeline) -> None:
        parts = pipeline.parts
        self._pipeline = pipeline
        self._rule = parts.packing or PackingRule()
        check_names(parts.names)
        history = parts.decision_store.history
        if history is not None:
            parts.pack_losses.read(history, parts.predictor)
        self._losses = parts.pack_losses.of(parts.names, self._rule)
        self._barred: str | None = None
        if parts.certificate is not None:
            self._barred = "the certificate of the policy holds for single calls"
        elif parts.planner is not None:
            self._barred = "the policy escalates, which looks at the answers of single calls"
        elif not self._losses:
            self._barred = _NO_LOSS
        if self._barred is not None:
            self._losses = {}
            _log.warning("nothing is packed: %s", self._barred)
        self.pack_of: dict[str, DecidedPack] = {}

    def route(self, requests: Sequence[RequestLike], policy: Policy | None) -> list[Decision]:
        """Assign a batch jointly. Raises as `Pipeline.route`."""
        pipeline, parts = self._pipeline, self._pipeline.parts
        asked = [pipeline.parse(each) for each in requests]
        made: dict[int, Decision] = {}
        free = parts.workload.free_slots(parts.names)
        for part, rows in pipeline.group_by_policy(asked, policy).items():
            with parts.telemetry.step("route", [asked[row] for row in rows]):
                prepared = pipeline.decider.prepare([asked[row] for row in rows])
                decided, calls = self._assign(prepared, part, free)
            made.update(zip(rows, decided, strict=True))
            free = free - calls
        return [made[row] for row in range(len(asked))]

    def _assign(self, prepared: PreparedBatch, policy: Policy, free: IntArray) -> tuple[list[Decision], IntArray]:
        """Return the decisions, and how many calls (M,) each model gets."""
        pipeline, models = self._pipeline, self._pipeline.parts.models
        offers = offer_arms(
            prepared.requests,
            models,
            prepared.input_tokens,
            prepared.forecast,
            prepared.cost_usd,
            prepared.eligible,
            self._losses,
            self._rule,
        )
        counted = prepared.under(policy)
        solved = self._solve(counted, policy, free, offers) if offers is not None else None
        if solved is None or offers is None:
            decided = pipeline.decider.assign(prepared, policy, free)
            decided = [self._told(request, each) for request, each in zip(prepared.requests, decided, strict=True)]
            pipeline.remember(prepared, decided, policy)
            return decided, np.array([sum(each.model == name for each in decided) for name in pipeline.parts.names])
        return self._decide(counted, policy, offers, *solved)

    def _solve(
        self, prepared: PreparedBatch, policy: Policy, free: IntArray, offers: Offers
    ) -> tuple[Assignment, list[Pack], IntArray] | None:
        """Return an assignment with packs, which keeps the policy. None when only one without packs does."""
        decider, models = self._pipeline.decider, len(self._pipeline.parts.models)
        alone = decider.problem(prepared, policy, free)
        problem = with_arms(alone, offers, prepared.waiting_usd)
        for _ in range(MOST_ROUNDS):
            try:
                assignment = decider.solve(problem, policy)
            except InfeasibleError:
                return None  # decided again without packs, which says what cannot be met
            packs, columns = form_packs(assignment.model_index, offers, models, assignment.prices.quality)
            if not packs:
                return None
            over = _smaller_budget(problem.policy, policy, assignment, _total_usd(prepared, packs, columns, offers))
            is_crowded = bool((_count_calls(packs, columns, models) > alone.capacity).any())
            if over is None and not is_crowded:
                return assignment, packs, columns
            if over is not None:
                problem = replace(problem, policy=over)
            if is_crowded:
                # The arms of a model share its slots, which the optimizer does not know: they get what they took.
                problem = replace(problem, capacity=_shared_slots(alone.capacity, assignment, packs, columns, offers))
        return None if over is not None else (assignment, packs, columns)  # calls wait for the slots that they lack

    def _decide(
        self,
        prepared: PreparedBatch,
        policy: Policy,
        offers: Offers,
        assignment: Assignment,
        packs: Sequence[Pack],
        columns: IntArray,
    ) -> tuple[list[Decision], IntArray]:
        models = len(self._pipeline.parts.models)
        prices = Prices(assignment.prices.quality, assignment.prices.slots[:models])
        floor_met = assignment.status is not SolutionStatus.BEST_EFFORT
        alone = self._build(prepared, columns, prices, floor_met=floor_met)
        packed = {row for pack in packs for row in pack.rows}
        rest = [row for row in range(len(columns)) if row not in packed]
        made = {row: self._told(prepared.requests[row], alone[row]) for row in rest}
        if rest:
            self._pipeline.remember(prepared.rows(np.array(rest)), [made[row] for row in rest], policy)
        wider = Prices(prices.quality, np.append(prices.slots, 0.0))
        for rows, arm, group in _by_arm(packs):
            cost = np.concatenate([offers.cost_usd(np.array(pack.rows), arm, len(pack.rows)) for pack in group])
            part = _with_arm(prepared.rows(rows), offers, arm, cost)
            decided = self._build(part, np.full(len(rows), models), wider, floor_met=floor_met)
            decided = [replace(each, reason=each.reason + _say_loss(offers, arm)) for each in decided]
            self._pipeline.remember(part, decided, policy)
            made.update(zip(rows.tolist(), decided, strict=True))
        for pack in packs:
            decisions = tuple(made[row] for row in pack.rows)
            self._pack_up(pack, offers, prepared, decisions, [alone[row] for row in pack.rows])
        return [made[row] for row in range(len(columns))], _count_calls(packs, columns, models)

    def _build(self, part: PreparedBatch, chosen: IntArray, prices: Prices, *, floor_met: bool) -> list[Decision]:
        decider = self._pipeline.decider
        sources = decider.sources()
        return build_decisions(
            part.requests,
            part.forecast,
            part.cost_usd,
            part.good,
            chosen,
            prices,
            floor_met=floor_met,
            overhead_s=(time.perf_counter() - part.started) / len(part.requests),
            sources=(*sources, *sources[:1])[: part.quality.shape[1]],
            waiting_usd=part.waiting_usd,
            counted_quality=part.quality,
        )

    def _pack_up(
        self, pack: Pack, offers: Offers, prepared: PreparedBatch, made: tuple[Decision, ...], alone: list[Decision]
    ) -> None:
        arm = offers.arms[pack.arm]
        again = tuple(replace(each, id=packed.id) for each, packed in zip(alone, made, strict=True))
        requests = tuple(prepared.requests[row] for row in pack.rows)
        decided = DecidedPack(arm.model, arm.name, requests, made, again)
        self.pack_of.update(dict.fromkeys((each.id for each in made), decided))

    def _told(self, request: Request, decision: Decision) -> Decision:
        """Say in the reason why a request is asked alone."""
        why = reason_alone(request) or self._barred or _NOT_WORTH
        return replace(decision, reason=f"{decision.reason} Not packed: {why}.")


_NO_LOSS = (
    "no quality in packs is known. Set eccos.packing.assume_quality_loss, or give outcomes of arms such as small*4"
)
_NOT_WORTH = "no other request shares its instructions and rules, or a call alone is worth more"


def check_names(models: Sequence[str]) -> None:
    """Raise `InputError` for a pool whose model has the name of another one's arm."""
    for name in models:
        arm = parse_arm(name)
        if arm is not None and arm.model in models:
            raise InputError(
                f"the model {name!r} has the name that packs of {arm.model!r} go by. Rename it in model_list to pack"
            )


def _by_arm(packs: Sequence[Pack]) -> list[tuple[IntArray, int, tuple[Pack, ...]]]:
    """Return the rows, the arm and the packs of each arm."""
    arms = dict.fromkeys(pack.arm for pack in packs)
    groups = [(arm, tuple(pack for pack in packs if pack.arm == arm)) for arm in arms]
    return [(np.array([row for pack in group for row in pack.rows]), arm, group) for arm, group in groups]


def _with_arm(part: PreparedBatch, offers: Offers, arm: int, cost_usd: np.ndarray) -> PreparedBatch:
    """Return the requests with one more column: the arm that answers them, at its cost (R,)."""
    column, loss = int(offers.columns[arm]), offers.losses[arm]
    return replace(
        part,
        forecast=with_arm(part.forecast, column, offers.arms[arm].name, loss),
        quality=np.column_stack([part.quality, np.maximum(part.quality[:, column] - loss.quality, 0.0)]),
        cost_usd=np.column_stack([part.cost_usd, cost_usd]),
        eligible=np.column_stack([part.eligible, part.eligible[:, column]]),
        waiting_usd=np.append(part.waiting_usd, part.waiting_usd[column]),
    )


def _say_loss(offers: Offers, arm: int) -> str:
    loss = offers.losses[arm]
    source = f"{loss.answers} graded answers" if loss.answers else "assume_quality_loss"
    return f" Packed: the instructions are paid once, and the pack may cost {loss.quality:.3f} of quality ({source})."


def _count_calls(packs: Sequence[Pack], columns: IntArray, models: int) -> IntArray:
    """Return (M,) the calls of each model: one for each pack, and one for each request alone."""
    alone = np.ones(len(columns), dtype=np.bool_)
    calls = np.zeros(models, dtype=np.int64)
    for pack in packs:
        alone[list(pack.rows)] = False
        calls[columns[pack.rows[0]]] += 1
    return np.asarray(calls + np.bincount(columns[alone], minlength=models))


def _shared_slots(
    capacity: IntArray, assignment: Assignment, packs: Sequence[Pack], columns: IntArray, offers: Offers
) -> IntArray:
    """Return (M + A,) what models and arms may take, so that both together keep to the slots of the model."""
    models = len(capacity)
    taken = np.zeros(models, dtype=np.int64)
    for pack in packs:
        taken[columns[pack.rows[0]]] += 1
    share = np.minimum(1.0, capacity / np.maximum(taken, 1))
    used = np.bincount(assignment.model_index, minlength=models + len(offers.arms))[models:]
    arms = np.floor(used * share[offers.columns]).astype(np.int64)
    return np.concatenate([np.maximum(capacity - taken, 0), arms])


def _smaller_budget(now: Policy, asked: Policy, assignment: Assignment, total_usd: float) -> Budget | None:
    """Return what to plan with, where packs came out smaller and dearer than planned. None within the budget asked."""
    if not isinstance(now, Budget) or not isinstance(asked, Budget) or total_usd <= asked.usd:
        return None
    if assignment.status is SolutionStatus.BEST_EFFORT:
        return None
    return replace(now, usd=now.usd * asked.usd / total_usd)


def _total_usd(prepared: PreparedBatch, packs: Sequence[Pack], columns: IntArray, offers: Offers) -> float:
    cost = prepared.cost_usd[np.arange(len(columns)), columns].copy()
    for pack in packs:
        rows = np.array(pack.rows)
        cost[rows] = offers.cost_usd(rows, pack.arm, len(rows))
    return float(cost.sum())
