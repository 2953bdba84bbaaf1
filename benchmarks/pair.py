"""Does it pay to let a large model write single tokens of a small model's answer? See docs/benchmarks/index.md.

CITER (arXiv 2502.01976) on `pocket-small` and `pocket-large`, with everything charged: the large model's prefill, and
its catch-up on tokens that the small model wrote. Beside it, `hybrid` routes whole questions. It learns from the same
ones. Half of the questions teach, half of them test, in random splits. Intervals are 95 %, by the corrected resampled
t test (Nadeau and Bengio 2003), because the splits share questions.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pair_decoding import (
    LARGE,
    SMALL,
    HiddenLlama,
    Pair,
    Tree,
    Walk,
    cheapest_repair,
    grow_tree,
    walk,
)
from pair_gate import fit_gate, fit_networks
from scipy.stats import t as student
from sklearn.model_selection import KFold

from eccos_core.backends.local.numpy_llama import load_numpy_llama
from eccos_core.config import load_config
from eccos_core.domain import Float32Array, FloatArray, IntArray, OutcomeTable
from eccos_core.encoders import StaticEncoder
from eccos_core.evaluation.metrics import RecordedOutcomes, score_forecast
from eccos_core.grading import grader_for
from eccos_core.io.outcome_tables import with_models
from eccos_core.pocket import pocket_path, pool_config_path
from eccos_core.pocket.questions import PocketQuestion, generate_questions
from eccos_core.predictors import fit_predictor

SEED = 777
SHARES = (0.02, 0.05, 0.07, 0.10, 0.15, 0.20, 0.30)
THRESHOLDS = (0.0, *np.geomspace(0.003, 1.2, 50), 9.0)
PAIR_SHARES = {"pair 5 %": 0.05, "pair 10 %": 0.10, "pair 20 %": 0.20}
Curve = Sequence[tuple[float, float]]  # (share of the cost of the large model, accuracy)


@dataclass(frozen=True)
class Asked:
    """N questions, what the four models answer, and every answer that the pair can give.

    `quality`, `flops` and `usd` are (N, 4), in the order of `models`: small, large, medium, maths.
    """

    models: tuple[str, ...]
    queries: tuple[str, ...]
    vectors: Float32Array
    tree: Tree
    quality: FloatArray
    flops: FloatArray
    usd: FloatArray
    parameters: tuple[int, ...]
    prices: tuple[tuple[float, float], ...]

    @property
    def large_tokens(self) -> IntArray:
        """Tokens (N,) that the large model processes when it answers alone."""
        return np.asarray(self.flops[:, LARGE] / (2 * self.parameters[LARGE]), dtype=np.int64)

    def outcomes(self, extra: Mapping[str, FloatArray] | None = None) -> OutcomeTable:
        """Return the qualities as a table, with more columns (N,) where given."""
        quality = np.column_stack([self.quality, *(extra or {}).values()])
        tokens = np.broadcast_to(self.tree.prompt_tokens[:, None].astype(np.float64), quality.shape)
        ids = tuple(str(row) for row in range(len(quality)))
        models = (*self.models, *(extra or {}))
        return OutcomeTable(ids, self.queries, models, quality, tokens, np.full(quality.shape, 3.0))


def ask(count: int) -> Asked:
    """Draw questions that no pocket model was trained on, and ask the pool."""
    questions = generate_questions(count, SEED)
    queries = tuple(question.query for question in questions)
    models = ("pocket-small", "pocket-large", "pocket-medium", "pocket-maths")
    pool = {model.name: model for model in load_config(pool_config_path()).models}
    prices = tuple((pool[name].usd_per_input_token, pool[name].usd_per_output_token) for name in models)
    loaded = [load_hidden_llama(name) for name in models]
    tokenizer = load_numpy_llama(pocket_path(models[0]))[1]
    trees = [grow_tree(Pair(*loaded[i : i + 2], tokenizer), queries, grade_by(questions)) for i in (0, 2)]
    rows = np.arange(count)
    quality, flops, usd = [], [], []
    for number in range(4):
        tree = trees[number // 2]
        # a model alone is the small model of a pair that never asks, or the large one of a pair that always does
        alone = walk(tree, rows, np.full(len(tree.child), float(number % 2)), 0.5)
        quality.append(alone.grade)
        flops.append(2.0 * loaded[number].num_parameters() * alone.work.small_tokens)
        usd.append(prices[number][0] * tree.prompt_tokens + prices[number][1] * alone.work.answer_tokens)
    return Asked(
        models=models,
        queries=queries,
        vectors=StaticEncoder().encode(queries),
        tree=trees[0],
        quality=np.column_stack(quality),
        flops=np.column_stack(flops),
        usd=np.column_stack(usd),
        parameters=tuple(model.num_parameters() for model in loaded),
        prices=prices,
    )


def load_hidden_llama(name: str) -> HiddenLlama:
    """Load a pocket model that keeps its hidden states."""
    model, _, _ = load_numpy_llama(pocket_path(name))
    return HiddenLlama(model.config, model._weights)


def grade_by(questions: Sequence[PocketQuestion]) -> Callable[[int, str], float]:
    """Grade as the pool's history does."""
    graders = {name: grader_for(name) for name in {question.grader for question in questions}}

    def grade(row: int, answer: str) -> float:
        question = questions[row]
        return float(graders[question.grader].grade(answer, question.reference, question.query))

    return grade


# ----------------------------------------------------------------------------------------------- whole questions


def route_curve(asked: Asked, rows: IntArray, gain: FloatArray, cost: FloatArray) -> Curve:
    """Send questions to the large model, the largest gain (R,) per prompt token first. cost (N, 4): of each model."""
    order = rows[np.argsort(-gain / asked.tree.prompt_tokens[rows], kind="stable")]
    change = np.column_stack([cost[order, LARGE] - cost[order, SMALL], np.diff(asked.quality[order, :2])[:, 0]])
    start = np.array([cost[rows, SMALL].sum(), asked.quality[rows, SMALL].sum()])
    reached = np.vstack([start, start + change.cumsum(axis=0)])
    return list(zip(reached[:, 0] / cost[rows, LARGE].sum(), reached[:, 1] / len(rows), strict=True))


def large_only(asked: Asked) -> FloatArray:
    """Return the compute of each model (N, 4), the small one free."""
    cost = asked.flops.copy()
    cost[:, SMALL] = 0.0
    return cost


# ---------------------------------------------------------------------------------------------------------- pairs


@dataclass(frozen=True)
class Spending:
    """How one answer is charged: of a walk over rows (R,) its cost, and of the large model alone."""

    of_walk: Callable[[Walk, IntArray], FloatArray]
    alone: FloatArray


def spendings(asked: Asked, gate_parameters: int) -> dict[str, Spending]:
    """Return the ways to charge a pair, by name."""
    small, large = asked.parameters[SMALL], asked.parameters[LARGE]
    prompt = asked.tree.prompt_tokens
    every_token = walk(asked.tree, np.arange(len(prompt)), np.ones(len(asked.tree.child)), 0.5).work
    return {
        "tokens": Spending(lambda way, _: way.work.large_written * 1.0, every_token.answer_tokens * 1.0),
        "large": Spending(lambda way, _: 2.0 * large * way.work.large_tokens, asked.flops[:, LARGE]),
        "compute": Spending(lambda way, _: way.work.flops(small, large, gate_parameters), asked.flops[:, LARGE]),
        "usd": Spending(
            lambda way, rows: way.work.usd(prompt[rows], asked.prices[SMALL], asked.prices[LARGE]),
            asked.usd[:, LARGE],
        ),
    }


def pair_curves(
    asked: Asked, rows: IntArray, need: FloatArray, charged: Mapping[str, Spending], *, priced: bool
) -> dict[str, Curve]:
    """Return one curve for each way to charge."""
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for threshold in THRESHOLDS:
        way = walk(asked.tree, rows, need, threshold, priced=priced)
        for name, spending in charged.items():
            share = spending.of_walk(way, rows).sum() / spending.alone[rows].sum()
            curves[name].append((float(share), float(way.grade.mean())))
    return dict(curves)


def bound_curve(asked: Asked, rows: IntArray, gain: FloatArray, tokens: IntArray) -> Curve:
    """Return what a gate could reach that knows every grade: the cheapest repairs first. gain, tokens (N,)."""
    useful = rows[gain[rows] > 0]
    order = useful[np.argsort(-gain[useful] / tokens[useful], kind="stable")]
    share = np.concatenate([[0.0], tokens[order].cumsum() / asked.large_tokens[rows].sum()])
    start = asked.quality[rows, SMALL].sum()
    accuracy = (start + np.concatenate([[0.0], gain[order].cumsum()])) / len(rows)
    return list(zip(share, accuracy, strict=True))


def at_shares(curve: Curve, shares: Sequence[float] = SHARES) -> FloatArray:
    """Read accuracies in per cent off a curve, NaN below its cheapest point."""
    points = np.array(sorted(curve))
    found = 100 * np.interp(shares, points[:, 0], points[:, 1])
    return np.where(np.asarray(shares) < points[0, 0] - 1e-9, np.nan, found)


# ----------------------------------------------------------------------------------------------------------- pool


def threshold_for(asked: Asked, rows: IntArray, need: FloatArray, share: float) -> float:
    """Return the threshold at which the large model's compute on these questions is this share."""
    shares = [
        walk(asked.tree, rows, need, threshold, priced=True).work.large_tokens.sum() / asked.large_tokens[rows].sum()
        for threshold in THRESHOLDS
    ]
    return float(np.interp(-share, -np.array(shares), THRESHOLDS))


def compare_pools(
    asked: Asked, train: IntArray, test: IntArray, need: FloatArray, gate_parameters: int, seed: int
) -> dict[str, float]:
    """Fit `hybrid` on the pool without and with three pairs. Return mean accuracies in per cent, by what is charged.

    Forecast apart: the four models keep the forecasts that they have without pairs, and the pairs have a `hybrid` of
    their own. Together: one `hybrid` forecasts all seven.
    The outcomes of the pairs on training questions are out of fold: a gate never answers what it learned from.
    """
    out_of_fold = need.copy()
    for known, left_out in KFold(3, shuffle=True, random_state=seed).split(train):
        gate = fit_gate(asked.tree, train[known], seed, networks=1)
        nodes = np.isin(asked.tree.question, train[left_out])
        out_of_fold[nodes] = gate.need(asked.tree.hidden[nodes])
    rows = np.arange(len(asked.queries))
    charged = spendings(asked, gate_parameters)
    ways = {
        name: walk(asked.tree, rows, out_of_fold, threshold_for(asked, train, out_of_fold, share), priced=True)
        for name, share in PAIR_SHARES.items()
    }
    costs = {
        "compute": np.column_stack([asked.flops, *(charged["compute"].of_walk(way, rows) for way in ways.values())]),
        "usd": np.column_stack([asked.usd, *(charged["usd"].of_walk(way, rows) for way in ways.values())]),
    }
    table = asked.outcomes({name: way.grade for name, way in ways.items()})

    def forecast(columns: slice) -> FloatArray:
        kept = with_models(table, table.models[columns])
        predictor = fit_predictor("hybrid", kept.rows(train), asked.vectors[train], seed=seed)
        return predictor.predict(asked.vectors[test], asked.tree.prompt_tokens[test].astype(np.float64)).quality

    own, of_pairs = forecast(slice(4)), forecast(slice(4, None))
    pools = {
        "without": own,
        "with, forecast apart": np.column_stack([own, of_pairs]),
        "with, forecast together": forecast(slice(None)),
    }
    return {
        f"{charge}, {pool}": mean_accuracy(asked, quality, table, cost, train, test)
        for charge, cost in costs.items()
        for pool, quality in pools.items()
    }


def mean_accuracy(
    asked: Asked, quality: FloatArray, table: OutcomeTable, cost: FloatArray, train: IntArray, test: IntArray
) -> float:
    """Return accuracy in per cent, the mean over budgets from the cheapest model to the dearest.

    quality (R, M): forecasts. cost (N, 7) is charged. It is forecast from the length of the prompt.
    """
    columns = quality.shape[1]
    prompt = asked.tree.prompt_tokens.astype(np.float64)
    per_token = cost[train, :columns].mean(axis=0) / prompt[train].mean()
    recorded = RecordedOutcomes(
        table.models[:columns], table.quality[test, :columns], cost[test, :columns], np.ones_like(quality, dtype=bool)
    )
    frontier = score_forecast(quality, prompt[test][:, None] * per_token, recorded).frontier
    singles = cost[test, :4].mean(axis=0)
    budgets = np.linspace(singles.min(), singles.max(), 200)
    return float(100 * np.interp(budgets, frontier.cost_usd, frontier.accuracy).mean())


# --------------------------------------------------------------------------------------------------------- report


def measure_split(asked: Asked, seed: int, repairs: tuple[FloatArray, IntArray]) -> dict[str, FloatArray]:
    """Return accuracies (7,) at `SHARES` for each way to charge and to route, of one split."""
    order = np.random.default_rng(seed).permutation(len(asked.queries))
    train, test = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    two = replace(asked, models=asked.models[:2], quality=asked.quality[:, :2])
    hybrid = fit_predictor("hybrid", two.outcomes().rows(train), asked.vectors[train], seed=seed)
    prompt = asked.tree.prompt_tokens.astype(np.float64)
    by_text = np.diff(hybrid.predict(asked.vectors[test], prompt[test]).quality)[:, 0]
    gain = asked.quality[:, LARGE] - asked.quality[:, SMALL]
    by_hidden = fit_networks(asked.tree.hidden[train], gain[train], seed).need(asked.tree.hidden[test])
    gate = fit_gate(asked.tree, train, seed)
    need = gate.need(asked.tree.hidden)
    charged = spendings(asked, gate.parameters)
    written = np.column_stack([np.zeros(len(gain)), charged["tokens"].alone])
    costs = {"tokens": written, "large": large_only(asked), "compute": asked.flops, "usd": asked.usd}
    found = {f"{name}: whole questions, hybrid": route_curve(asked, test, by_text, costs[name]) for name in charged}
    for priced, label in ((False, "pair, one threshold"), (True, "pair, priced")):
        for name, curve in pair_curves(asked, test, need, charged, priced=priced).items():
            found[f"{name}: {label}"] = curve
    found["large: whole questions, hidden state"] = route_curve(asked, test, by_hidden, costs["large"])
    found["large: whole questions, best possible"] = route_curve(asked, test, gain[test], costs["large"])
    found["large: pair, best possible"] = bound_curve(asked, test, *repairs)
    measured = {name: at_shares(curve) for name, curve in found.items()}
    pools = compare_pools(asked, train, test, need, gate.parameters, seed)
    return {**measured, **{f"pool: {name}": np.array([value]) for name, value in pools.items()}}


def interval(differences: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and half-width (C,) of a 95 % interval for splits (S, C) into halves (Nadeau and Bengio 2003)."""
    splits = len(differences)
    deviation = differences.std(axis=0, ddof=1) * np.sqrt(1 / splits + 1)
    return differences.mean(axis=0), deviation * student.ppf(0.975, splits - 1)


def print_report(asked: Asked, splits: Sequence[Mapping[str, FloatArray]]) -> None:
    """Print accuracy by share of the large model's cost, then the pool."""
    small, large = 100 * asked.quality[:, :2].mean(axis=0)
    titles = {
        "tokens": "tokens that the large model writes, its prefill free",
        "large": "the large model's compute, with prefill and catch-up",
        "compute": "compute of both models and the gate",
        "usd": "USD at the pool's prices",
    }
    print(f"{len(asked.queries)} questions: small alone {small:.1f} %, large alone {large:.1f} %")
    print(f"parameters: {asked.parameters[SMALL]:,} and {asked.parameters[LARGE]:,}")
    for charged, title in titles.items():
        print(f"\nShare of {title}\n| way |", " | ".join(f"{share:.0%}" for share in SHARES), "|")
        print("| --- |" + " ---: |" * len(SHARES))
        base = np.stack([split[f"{charged}: whole questions, hybrid"] for split in splits])
        for name in splits[0]:
            if not name.startswith(f"{charged}: "):
                continue
            is_base = name.endswith("whole questions, hybrid")
            values = np.stack([split[name] for split in splits])
            mean, half = interval(values - base)
            cells = [
                "–" if np.isnan(level) else f"{level:.1f}" + (f" ({gain:+.1f} ± {width:.1f})" if not is_base else "")
                for level, gain, width in zip(values.mean(axis=0), mean, half, strict=True)
            ]
            print(f"| {name.partition(': ')[2]} |", " | ".join(cells), "|")
    print("\nMean accuracy of the pool of four over all budgets, and what three pairs change")
    print("| charged | without pairs | with, forecast apart | with, forecast together |\n| --- |" + " ---: |" * 3)
    for charged in ("compute", "usd"):
        found = {
            pool: np.stack([split[f"pool: {charged}, {pool}"] for split in splits])
            for pool in ("without", "with, forecast apart", "with, forecast together")
        }
        cells = [f"{found['without'].mean():.2f} %"]
        for pool in ("with, forecast apart", "with, forecast together"):
            change = found[pool] - found["without"]
            mean, half = interval(change)
            cells.append(f"{mean[0]:+.2f} ± {half[0]:.2f} (worst split {change.min():+.2f})")
        print(f"| {charged} |", " | ".join(cells), "|")


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=6000)
    parser.add_argument("--splits", type=int, default=4)
    options = parser.parse_args()
    asked = ask(options.questions)
    repairs = cheapest_repair(asked.tree)
    splits = []
    for seed in range(options.splits):
        splits.append(measure_split(asked, seed, repairs))
        print(f"split {seed + 1} of {options.splits}", file=sys.stderr, flush=True)
    print_report(asked, splits)
    return 0


if __name__ == "__main__":
    sys.exit(main())
