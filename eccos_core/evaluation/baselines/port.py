"""PORT: nearest neighbours, and one price per model that is fitted to a budget (arXiv 2509.02718)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray, IntArray
from eccos_core.errors import InputError
from eccos_core.evaluation.baselines.neighbours import average_neighbours, nearest_rows
from eccos_core.evaluation.baselines.tuning import fit_tuned
from eccos_core.evaluation.metrics import Choices
from eccos_core.evaluation.protocol import AnswerFunction, EncoderChoice, EvaluationSplit, TrainSplit
from eccos_core.io.optional import needs_extra


@dataclass(frozen=True, slots=True)
class PortBaseline:
    """Route by nearest neighbours and one fitted price per model, as PORT does (arXiv 2509.02718).

    A total budget is split over the models by their mean quality per USD. The prices are the dual solution of a linear
    programme over a few hundred questions (eq. 4, solved exactly here). Every question goes to the model with the
    highest quality - price * cost. The total budget is swept and the number of neighbours tuned. The authors drop
    requests when a budget is spent. In a replay every question is answered, so budgets act through the prices only.
    """

    name: str = "port"
    neighbours: tuple[int, ...] = (5, 20, 60, 200)
    sample: int = 256
    budgets: int = 40
    reads: EncoderChoice = "text"

    def settings(self, train_split: TrainSplit) -> Sequence[int]:
        """Return the numbers of neighbours."""
        return self.neighbours

    def fit_settings(self, train_split: TrainSplit, settings: Sequence[int]) -> Sequence[AnswerFunction]:
        """Fit prices on a sample of the training rows. A row's own outcomes are left out of its neighbours."""
        return [self._fit(train_split, neighbours) for neighbours in settings]

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Choose the number of neighbours, and fit the prices."""
        return fit_tuned(self, train_split)

    def _fit(self, train_split: TrainSplit, neighbours: int) -> AnswerFunction:
        random = np.random.default_rng(0)
        sampled = np.sort(
            random.choice(len(train_split.table), min(self.sample, len(train_split.table)), replace=False)
        )
        rows = nearest_rows(train_split.vectors[sampled], train_split.vectors, neighbours + 1)
        quality, tokens = _average_other_neighbours(train_split, rows, sampled)
        input_tokens = train_split.table.input_tokens[sampled]
        typical_input = np.nan_to_num(np.nanmean(input_tokens) if not np.isnan(input_tokens).all() else 0.0)
        cost = train_split.price_table.cost_usd(np.where(np.isnan(input_tokens), typical_input, input_tokens), tokens)
        prices = fit_prices(quality, cost, self.budgets)

        def answer(held_out: EvaluationSplit) -> Choices:
            hat_quality, hat_tokens = average_neighbours(
                train_split, nearest_rows(held_out.vectors, train_split.vectors, neighbours)
            )
            hat_cost = held_out.cost_usd(hat_tokens)
            chosen = [
                np.argmax(np.where(held_out.eligible, hat_quality - price * hat_cost, -np.inf), axis=1)
                for price in prices
            ]
            return np.stack(chosen).astype(np.int16)

        return answer


def _average_other_neighbours(
    train_split: TrainSplit, rows: IntArray, sampled: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Average over neighbours. A question that is its own neighbour is replaced by another of its neighbours."""
    own = rows == sampled[:, None]
    others = np.where(own[:, 0], rows[:, -1], rows[:, 0])
    return average_neighbours(train_split, np.where(own, others[:, None], rows))


def fit_prices(quality: FloatArray, cost_usd: FloatArray, budgets: int) -> FloatArray:
    """Fit prices gamma >= 0 (budgets, M) for a range of budgets, from quality and cost_usd (J, M).

    Each row solves a linear programme: minimise gamma . B + sum_j max(0, max_i(quality_ji - gamma_i cost_ji)). The 0
    stands for a question that no budget covers. B is the budget for the J questions, split by mean quality per mean
    USD. It runs from the cheapest model's cost to at least twice the most expensive model's.
    """
    with needs_extra("local", "an evaluation baseline"):
        from scipy.optimize import linprog
        from scipy.sparse import csr_array, eye_array, hstack, vstack

    questions, models = quality.shape
    scale = max(float(cost_usd.mean(axis=0).max()), 1e-12)
    cost = np.maximum(cost_usd / scale, 1e-9)
    worth = (quality.mean(axis=0) + 1e-6) / cost.mean(axis=0)
    share = worth / worth.sum()
    totals = np.geomspace(cost.mean(axis=0).min(), 2.0 * max(1.0, float(share.min() ** -1)), budgets) * questions
    each = eye_array(questions, format="csr")
    # for every question j and model i: -cost_ji * gamma_i - beta_j <= -quality_ji
    columns = [
        csr_array((cost[:, i], (np.arange(questions), np.full(questions, i))), (questions, models))
        for i in range(models)
    ]
    matrix = -vstack([hstack([column, each]) for column in columns], format="csr")
    bound = -quality.T.reshape(-1)
    prices = []
    for total in totals:
        objective = np.concatenate([share * total, np.ones(questions)])
        solution = linprog(objective, A_ub=matrix, b_ub=bound, bounds=(0, None), method="highs")
        if solution.x is None:
            raise InputError(f"PORT's linear programme has no solution: {solution.message}")
        prices.append(solution.x[:models] / scale)
    return np.array(prices)
