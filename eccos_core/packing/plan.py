"""What packs would cost and how good they would be, for the optimizer, and the packs of its assignment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import (
    BoolArray,
    FloatArray,
    Forecast,
    GroupShare,
    IntArray,
    Model,
    Request,
    RoutingProblem,
)
from eccos_core.io.tokens import TOKENS_PER_MESSAGE, TOKENS_TO_START_THE_ANSWER, count_tokens
from eccos_core.packing.arms import PackArm, size_class
from eccos_core.packing.losses import PackLoss
from eccos_core.packing.prompt import marker_tokens, task_tokens
from eccos_core.packing.rule import PackingRule, group_key


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """The requests of a batch that may share calls, R of them with the others.

    `of` (R,) is the number of each request's group, -1 for one that is asked alone. `sizes` (R,) is how many requests
    its group has. `shared_tokens` (R,) are those of its instructions.
    """

    of: IntArray
    sizes: IntArray
    shared_tokens: FloatArray

    @classmethod
    def find(cls, requests: Sequence[Request]) -> Groups:
        """Group the requests by what a call's requests have in common."""
        keys = [group_key(request) for request in requests]
        members: dict[str, list[int]] = defaultdict(list)
        for row, key in enumerate(keys):
            if key is not None:
                members[key].append(row)
        of, sizes = np.full(len(requests), -1), np.ones(len(requests), dtype=np.int64)
        shared = np.zeros(len(requests))
        for number, rows in enumerate(each for each in members.values() if len(each) > 1):
            of[rows], sizes[rows] = number, len(rows)
            shared[rows] = count_tokens(requests[rows[0]].messages[:-1]) - TOKENS_TO_START_THE_ANSWER
        return cls(of, sizes, shared)


@dataclass(frozen=True, slots=True, eq=False)
class Offers:
    """The A arms that a batch of R requests may use beside its M models.

    - `columns` (A,): the column of each arm's model. `losses` (A,): what an answer loses in quality.
    - `allowed` (R, A): which request may be answered by which arm. `saved_by_cache` (R, A): what the provider's prompt
      cache would take off the request alone, in USD.
    """

    arms: tuple[PackArm, ...]
    columns: IntArray
    losses: tuple[PackLoss, ...]
    allowed: BoolArray
    saved_by_cache: FloatArray
    prices: _Prices

    @property
    def loss(self) -> FloatArray:
        """(A,) what an answer of each arm loses in quality."""
        return np.array([each.quality for each in self.losses])

    def cost_usd(self, rows: IntArray, arm: int, size: int) -> FloatArray:
        """Return what each of the rows (K,) costs in a pack of `size` requests on one arm, in USD."""
        return self.prices.packed(rows, int(self.columns[arm]), size)

    def best_cost_usd(self) -> FloatArray:
        """Return (R, A) what each request costs in a pack that is as full as the batch allows."""
        rows = np.arange(len(self.allowed))
        full = np.empty(self.allowed.shape)
        for arm, each in enumerate(self.arms):
            for size in np.unique(np.minimum(self.prices.groups.sizes, each.size)).tolist():
                chosen = rows[np.minimum(self.prices.groups.sizes, each.size) == size]
                full[chosen, arm] = self.cost_usd(chosen, arm, size)
        return full


@dataclass(frozen=True, slots=True, eq=False)
class _Prices:
    """What requests cost in packs. input_tokens (R,), output_tokens (R, M) and cost_usd (R, M) are those alone."""

    models: Sequence[Model]
    groups: Groups
    input_tokens: FloatArray
    output_tokens: FloatArray
    cost_usd: FloatArray

    def packed(self, rows: IntArray, column: int, size: int) -> FloatArray:
        model = self.models[column]
        once = self.groups.shared_tokens[rows] + task_tokens() + TOKENS_TO_START_THE_ANSWER + TOKENS_PER_MESSAGE
        alone = self.groups.shared_tokens[rows] + TOKENS_TO_START_THE_ANSWER + TOKENS_PER_MESSAGE
        more_in = once / size - alone + marker_tokens()
        more_out = marker_tokens() * (1 + 1 / size)
        changed = more_in * model.usd_per_input_token + more_out * model.usd_per_output_token
        return np.asarray(np.maximum(self.cost_usd[rows, column] + changed, 0.0))


def offer_arms(
    requests: Sequence[Request],
    models: Sequence[Model],
    input_tokens: FloatArray,
    forecast: Forecast,
    cost_usd: FloatArray,
    eligible: BoolArray,
    losses: Mapping[PackArm, PackLoss],
    rule: PackingRule,
) -> Offers | None:
    """Find the arms that may pay for R requests. None when there are none.

    input_tokens (R,), cost_usd (R, M) and eligible (R, M) are those of the requests alone. An arm is left out for a
    request that costs no more alone, counted with the provider's prompt cache. A pack is counted without it: its few
    calls go out together, so they find nothing cached.
    """
    groups = Groups.find(requests)
    names = [model.name for model in models]
    arms = tuple(arm for arm in losses if arm.model in names)
    if not arms or not (groups.of >= 0).any():
        return None
    columns = np.array([names.index(arm.model) for arm in arms])
    prices = _Prices(models, groups, input_tokens, forecast.output_tokens, cost_usd)
    offers = Offers(
        arms,
        columns,
        tuple(losses[arm] for arm in arms),
        np.zeros((len(requests), len(arms)), dtype=np.bool_),
        _saved_by_cache(groups, models, rule)[:, columns],
        prices,
    )
    limits = _answer_limits(requests, forecast.output_tokens_high)
    fits = np.stack(
        [_fits(groups, models[c], input_tokens, limits[:, c], a.size) for a, c in zip(arms, columns, strict=True)],
        axis=1,
    )
    many = (groups.of >= 0)[:, None] & (groups.sizes[:, None] > np.array([_next_smaller(a.size, rule) for a in arms]))
    pays = offers.best_cost_usd() + offers.saved_by_cache < cost_usd[:, columns]
    allowed = many & fits & pays & eligible[:, columns]
    return replace(offers, allowed=allowed) if allowed.any() else None


def with_arms(problem: RoutingProblem, offers: Offers, waiting_usd: FloatArray) -> RoutingProblem:
    """Return the problem with a column for each arm behind those of the models.

    waiting_usd (M,) is what the wait for each model counts.

    What the prompt cache would save is added to an arm's cost. So the optimizer sees what packing saves beyond it.
    """
    columns, sizes = offers.columns, np.array([arm.size for arm in offers.arms])
    packed = offers.best_cost_usd() + offers.saved_by_cache
    return replace(
        problem,
        quality=np.hstack([problem.quality, np.maximum(problem.quality[:, columns] - offers.loss, 0.0)]),
        cost_usd=np.hstack([problem.cost_usd, packed + waiting_usd[columns]]),
        eligible=np.hstack([problem.eligible, offers.allowed]),
        capacity=np.concatenate([problem.capacity, problem.capacity[columns] * sizes]),
        models=(*problem.models, *(arm.name for arm in offers.arms)),
        groups=tuple(
            GroupShare(each.name, np.concatenate([each.members, each.members[columns]]), each.at_least, each.at_most)
            for each in problem.groups
        ),
    )


@dataclass(frozen=True, slots=True)
class Pack:
    """Requests of one call: their rows in the batch, and the number of the arm that their count makes."""

    rows: tuple[int, ...]
    arm: int


def form_packs(chosen: IntArray, offers: Offers, models: int, usd_per_quality: float) -> tuple[list[Pack], IntArray]:
    """Make the packs of an assignment `chosen` (R,) over models and arms.

    Returns them, and the column of the model (R,) that answers each request, in a pack or alone. Requests of one group
    on one arm are spread evenly over as few packs as they need. A pack that is too small to pay is taken apart.
    """
    columns = np.concatenate([np.arange(models), offers.columns])[chosen]
    packs: list[Pack] = []
    packed = np.flatnonzero(chosen >= models)
    together: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in packed.tolist():
        together[int(offers.prices.groups.of[row]), int(chosen[row]) - models].append(row)
    for (_, arm), rows in together.items():
        parts = np.array_split(np.array(rows), -(-len(rows) // offers.arms[arm].size))
        worth = [_worth(part, arm, offers, usd_per_quality) if len(part) > 1 else None for part in parts]
        packs += [Pack(tuple(p.tolist()), own) for p, own in zip(parts, worth, strict=True) if own is not None]
    return packs, columns


def _worth(rows: IntArray, arm: int, offers: Offers, usd_per_quality: float) -> int | None:
    """Return the number of the arm that so many requests make. None where they save less than their quality counts."""
    model, size = offers.arms[arm].model, len(rows)
    sizes = sorted(each.size for each in offers.arms if each.model == model)
    own = offers.arms.index(PackArm(model, size_class(size, sizes)))
    alone = offers.prices.cost_usd[rows, offers.columns[own]] - offers.saved_by_cache[rows, own]
    saved = float((alone - offers.cost_usd(rows, own, size)).sum())
    return own if saved > usd_per_quality * size * offers.losses[own].quality else None


def with_arm(forecast: Forecast, column: int, name: str, loss: PackLoss) -> Forecast:
    """Return the forecast with one more column: a model in packs."""
    quality = np.maximum(forecast.quality[:, column] - loss.quality, 0.0)
    added = {
        "quality": quality,
        "quality_se": np.hypot(forecast.quality_se[:, column], loss.standard_error),
        "output_tokens": forecast.output_tokens[:, column] + marker_tokens(),
        "output_tokens_high": forecast.output_tokens_high[:, column] + marker_tokens(),
    }
    for known in ("cost_usd", "cost_usd_high", "group_error"):
        if (array := getattr(forecast, known)) is not None:
            added[known] = array[:, column]
    joined = {key: np.column_stack([getattr(forecast, key), new]) for key, new in added.items()}
    return replace(forecast, models=(*forecast.models, name), **joined)


def _saved_by_cache(groups: Groups, models: Sequence[Model], rule: PackingRule) -> FloatArray:
    """Return (R, M) what the cached instructions cost less than new ones, in USD. 0 where no cache is known."""
    cached = np.where(groups.shared_tokens >= rule.cache_from_tokens, groups.shared_tokens, 0.0)
    cheaper = [
        0.0
        if model.usd_per_cached_input_token is None
        else max(0.0, model.usd_per_input_token - model.usd_per_cached_input_token)
        for model in models
    ]
    return np.asarray(cached[:, None] * np.array(cheaper))


def _answer_limits(requests: Sequence[Request], high: FloatArray) -> FloatArray:
    """Return (R, M) the tokens that each answer needs room for: what was asked for, or else the forecast's quantile."""
    asked = np.array([_asked(request) for request in requests])[:, None]
    return np.where(np.isnan(asked), high, asked)


def _asked(request: Request) -> float:
    for name in ("max_completion_tokens", "max_tokens"):
        if isinstance(limit := request.parameters.get(name), int):
            return float(limit)
    return np.nan


def _fits(groups: Groups, model: Model, input_tokens: FloatArray, answers: FloatArray, size: int) -> BoolArray:
    """Say (R,) whether `size` requests like each one fit into the model's windows."""
    once = groups.shared_tokens + task_tokens() + TOKENS_TO_START_THE_ANSWER + TOKENS_PER_MESSAGE
    own = input_tokens - groups.shared_tokens - TOKENS_TO_START_THE_ANSWER - TOKENS_PER_MESSAGE
    written = size * (answers + marker_tokens()) + marker_tokens()
    whole = once + size * (own + marker_tokens()) + written
    return np.asarray((whole <= (model.context_window or np.inf)) & (written <= (model.max_output_tokens or np.inf)))


def _next_smaller(size: int, rule: PackingRule) -> int:
    """Return the pack size below, so that more requests than that make the arm of this size."""
    return max((each for each in rule.sizes if each < size), default=1)
