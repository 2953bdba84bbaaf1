"""What 50 chosen questions teach of a new model: `python benchmarks/choose.py`.

Each model of a set is new once: its outcomes are hidden, and those of the others are known. 50 questions are chosen as
`eccos collect --choose` chooses them for one model, or 50 or 150 are drawn at random. The same predictor is fitted
each time. It has the two learners that are fast to fit, a Gaussian process and the item-response model.

"Brier" is the Brier score of the new model's forecast on test questions, less that of a forecast from all its outcomes,
in thousandths. "regret" is the net value that routing with the forecast loses against routing with that forecast, in
thousandths of quality, at a price of quality of twenty mean calls. "se" is the standard error of chosen 50 less random
150, over models and seeds. The design sees training questions alone.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from eccos_core.collecting.choose import ROUND, START
from eccos_core.collecting.choose_questions import choose_questions, question_points
from eccos_core.domain import BoolArray, Float32Array, FloatArray, IntArray, OutcomeTable
from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder
from eccos_core.evaluation.recorded_cost import PriceTable
from eccos_core.io.outcomes import read_outcomes, split
from eccos_core.io.prices import read_prices
from eccos_core.predictors import fit_predictor
from eccos_core.predictors.learners.gaussian_process import GaussianProcess
from eccos_core.predictors.learners.item_response import ItemResponse

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SETS = ("qa_math_mix9", "llmrouter_dcrouter", "openhands34", "judged_mix4", "routellm_mmlu")
ROWS, TEST_ROWS = 800, 1500  # at most
MODELS, SEEDS = 3, 3  # models that are new, drawn for each seed
CALLS_PER_QUALITY = 20.0
USUAL_OUTPUT_TOKENS = 256.0


def chosen_rows(table: OutcomeTable, model: int, vectors: Float32Array, count: int) -> list[int]:
    """Choose rows for one model in rounds, as `eccos collect --choose` does."""
    scored = ~np.isnan(table.quality[:, model])
    known = np.delete(table.quality, model, axis=1)
    points = question_points(vectors, known)
    answers: IntArray = np.zeros(len(table), dtype=np.int64)
    asked: BoolArray = np.zeros(len(table), dtype=np.bool_)
    rows: list[int] = []
    while len(rows) < count:
        size = min(START if not rows else max(ROUND, len(rows) // 2), count - len(rows))
        rows += choose_questions(points, asked, np.asarray(scored & ~asked, dtype=np.bool_), answers, size, len(rows))
        asked[rows] = True
    return rows


def with_outcomes_of(table: OutcomeTable, model: int, rows: list[int]) -> OutcomeTable:
    """Return the table with the outcomes of one model hidden on all but these rows."""
    hidden = np.ones(len(table), dtype=np.bool_)
    hidden[rows] = False

    def hide(values: FloatArray) -> FloatArray:
        left = values.copy()
        left[hidden, model] = np.nan
        return left

    cost = None if table.cost_usd is None else hide(table.cost_usd)
    lengths = {name: hide(getattr(table, name)) for name in ("input_tokens", "output_tokens")}
    return replace(table, quality=hide(table.quality), cost_usd=cost, **lengths)


def forecast(table: OutcomeTable, vectors: Float32Array, questions: Float32Array) -> FloatArray:
    """Return the forecast quality (R, M) of questions with these vectors (R, D)."""
    learners = (GaussianProcess(exponents=(2.0,)), ItemResponse())
    predictor = fit_predictor("hybrid", table, vectors, learners=learners)
    return predictor.predict(questions, np.full(len(questions), np.nan)).quality


def call_costs(name: str, train: OutcomeTable) -> FloatArray:
    """Return the mean USD (M,) of a call of each model."""
    prices = DATA / f"{name}.prices.json"
    if not prices.exists():
        assert train.cost_usd is not None
        return np.asarray(np.nanmean(train.cost_usd, axis=0))
    tariff = PriceTable.of(read_prices(prices, train.models), train)
    outputs = np.where(np.isnan(train.output_tokens).all(axis=0), USUAL_OUTPUT_TOKENS, train.output_tokens)
    inputs = np.where(np.isnan(train.input_tokens).all(), USUAL_OUTPUT_TOKENS, np.nanmean(train.input_tokens))
    return np.asarray(tariff.cost_usd(np.full(1, float(inputs)), np.nanmean(outputs, axis=0)[None])[0])


def net_value(quality: FloatArray, observed: FloatArray, cost_usd: FloatArray) -> float:
    """Return the mean net value of routing by forecast quality (R, M), measured on observed quality (R, M)."""
    paid = cost_usd / (CALLS_PER_QUALITY * cost_usd.mean())
    chosen = (quality - paid).argmax(axis=1)
    realised = observed[np.arange(len(chosen)), chosen] - paid[chosen]
    return float(np.nanmean(realised))


def measure(name: str, encoder: ConcatenatedEncoder) -> FloatArray:
    """Return (Brier, regret) of chosen 50, random 50 and random 150 in thousandths, one row (6,) per model and seed."""
    train, test = split(read_outcomes(DATA / f"{name}.jsonl.gz"))
    cost = call_costs(name, train)
    test = test.rows(np.random.default_rng(0).permutation(len(test))[:TEST_ROWS])
    questions, results = encoder.encode(test.queries), []
    for seed in range(SEEDS):
        draw = np.random.default_rng(seed)
        table = train.rows(draw.permutation(len(train))[:ROWS])
        vectors = encoder.encode(table.queries)
        full = forecast(table, vectors, questions)
        for model in draw.permutation(len(table.models))[:MODELS]:
            scored = np.flatnonzero(~np.isnan(table.quality[:, model]))
            order = draw.permutation(scored).tolist()
            designs = [chosen_rows(table, int(model), vectors, 50), order[:50], order[50:200]]
            observed = test.quality[:, model]
            row = []
            for rows in designs:
                found = forecast(with_outcomes_of(table, int(model), rows), vectors, questions)
                errors = [np.nanmean((each[:, model] - observed) ** 2) for each in (found, full)]
                lost = net_value(full, test.quality, cost) - net_value(found, test.quality, cost)
                row += [errors[0] - errors[1], lost]
            results.append(row)
    return 1000 * np.array(results)


def main() -> int:
    """Print the table."""
    if not DATA.is_dir():
        print(f"skipped: needs {DATA}, which is not here")
        return 0
    encoder = ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])
    print("| set | Brier, chosen 50 | random 50 | random 150 | se | regret, chosen 50 | random 50 | random 150 | se |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in sys.argv[1:] or SETS:
        found = measure(name, encoder)
        cells = [name]
        for at in (0, 1):
            values = found[:, at::2]
            error = np.std(values[:, 0] - values[:, 2], ddof=1) / np.sqrt(len(values))
            cells += [f"{value:.1f}" for value in values.mean(axis=0)] + [f"{error:.1f}"]
        print(f"| {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
