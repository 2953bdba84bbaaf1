"""What the general difficulty gains before the first outcome, on all sets: `python benchmarks/first_hour.py`.

Two routers know the mean quality and the mean cost of each model, from the training rows. `means` knows no more.
`difficulty` moves each mean by the difficulty of the question, which no outcome of these sets had a part in. Both are
measured on all rows of a set. The routellm sets are measured twice: with prices per token, and with the share of calls
to the strong model as cost, as in their paper. "se" is the standard deviation of the difference over bootstrap samples
of the questions. Areas as in `eccos evaluate`, differences in thousandths.

The last columns start from nothing but prices and names: what `starting_priors` assumes, in place of the means.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from eccos_core.assembly.starting_quality import ungraded_priors
from eccos_core.config import load_config
from eccos_core.domain import Float32Array, FloatArray, OutcomeTable
from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder
from eccos_core.evaluation.metrics import RecordedOutcomes, operating_points, score_points, sweep_forecast
from eccos_core.evaluation.recorded_cost import PriceTable, filled_input_tokens
from eccos_core.io.outcomes import read_outcomes, split
from eccos_core.io.prices import read_prices
from eccos_core.predictors import ModelPrior, fit_predictor, with_difficulty

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SETS = ("qa_math_mix9", "llmrouter_dcrouter", "judged_mix4", "openhands34", "routellm_mmlu", "routellm_gsm8k")
COUNT_CALLS = ", calls"  # the end of a name whose cost is the share of calls to the strong model
BOOTSTRAPS = 20
USUAL_OUTPUT_TOKENS = 256.0  # where the training rows counted none


@dataclass(frozen=True)
class Recorded:
    """All rows of a set, and the vectors (N, D) of its questions.

    mean (M,): quality on the training rows. forecast_usd (N, M): the cost with each model's mean length.
    """

    outcomes: RecordedOutcomes
    mean: FloatArray
    forecast_usd: FloatArray
    vectors: Float32Array


def read_set(name: str, encoder: ConcatenatedEncoder) -> Recorded:
    """Read a set, and what each call cost and was forecast to cost."""
    table = read_outcomes(DATA / f"{name.removesuffix(COUNT_CALLS)}.jsonl.gz")
    train, _ = split(table)
    answered = ~np.isnan(table.quality).all(axis=1)
    table = table.rows(answered)
    cost, forecast = costs(name, table, train)
    outcomes = RecordedOutcomes(table.models, table.quality, cost, ~np.isnan(table.quality))
    return Recorded(outcomes, np.nanmean(train.quality, axis=0), forecast, encoder.encode(table.queries))


def costs(name: str, table: OutcomeTable, train: OutcomeTable) -> tuple[FloatArray, FloatArray]:
    """Return USD per call (N, M), recorded and forecast from each model's mean length or mean cost."""
    if name.endswith(COUNT_CALLS):
        strong = np.nanmean(train.quality, axis=0) == np.nanmean(train.quality, axis=0).max()
        calls = np.tile(np.where(strong, 1.0, 0.001), (len(table), 1))
        return calls, calls
    prices = DATA / f"{name}.prices.json"
    if prices.exists():
        tariff = PriceTable.of(read_prices(prices, table.models), train)
        counted = np.where(np.isnan(train.output_tokens).all(axis=0), USUAL_OUTPUT_TOKENS, train.output_tokens)
        lengths = np.tile(np.nanmean(counted, axis=0), (len(table), 1))
        return tariff.recorded_cost_usd(table), tariff.cost_usd(filled_input_tokens(table), lengths)
    assert table.cost_usd is not None
    assert train.cost_usd is not None
    return table.cost_usd, np.tile(np.nanmean(train.cost_usd, axis=0), (len(table), 1))


def forecasts(recorded: Recorded, mean: FloatArray, encoder: str) -> list[FloatArray]:
    """Return the quality (N, M) that the means forecast, and the means with difficulty."""
    models, none = recorded.outcomes.models, np.empty((0, len(mean)))
    priors = {name: ModelPrior(assumed_quality=float(value)) for name, value in zip(models, mean, strict=True)}
    empty = np.empty((0, recorded.vectors.shape[1]), dtype=np.float32)
    means = fit_predictor("hybrid", OutcomeTable((), (), models, none, none, none), empty, priors=priors)
    tokens = np.full(len(recorded.vectors), np.nan)
    return [p.predict(recorded.vectors, tokens).quality for p in (means, with_difficulty(means, encoder))]


def difference(recorded: Recorded, before: FloatArray, after: FloatArray) -> tuple[float, float, float]:
    """Return the area of a forecast, what another one adds, and the standard error of that."""
    choices = [sweep_forecast(quality, recorded.forecast_usd, recorded.outcomes) for quality in (before, after)]

    def areas(rows: np.ndarray) -> list[float]:
        was = recorded.outcomes
        drawn = RecordedOutcomes(was.models, was.quality[rows], was.cost_usd[rows], was.observed[rows])
        scores = [score_points(*operating_points(chosen[:, rows], drawn), drawn) for chosen in choices]
        return [score.area or 0.0 for score in scores]

    count, draw = len(before), np.random.default_rng(0)
    base, better = areas(np.arange(count))
    drawn = [areas(draw.integers(0, count, count)) for _ in range(BOOTSTRAPS)]
    return base, better - base, float(np.std([after - before for before, after in drawn]))


def assumed_means(recorded: Recorded) -> FloatArray:
    """Return the quality (M,) that eccos assumes from names and prices alone."""
    usd = np.nanmean(recorded.forecast_usd, axis=0)
    entries = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{name}", "api_key": "none"},
            "model_info": {"input_cost_per_token": float(per_call) / 1000, "output_cost_per_token": 0.0},
        }
        for name, per_call in zip(recorded.outcomes.models, usd, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "eccos.yaml"
        file.write_text(yaml.safe_dump({"model_list": entries, "eccos": {"history": "in_memory", "encoder": "static"}}))
        priors = ungraded_priors(load_config(file))
    return np.array([priors[name].assumed_quality for name in recorded.outcomes.models])


def main() -> int:
    """Print the table."""
    if not DATA.is_dir():
        print(f"skipped: needs {DATA}, which is not here")
        return 0
    encoder = ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])
    print("| set | questions | area, means | difficulty | se | area, assumed | difficulty | se | order |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in (*SETS, *(each + COUNT_CALLS for each in SETS if each.startswith("routellm"))):
        recorded = read_set(name, encoder)
        assumed = assumed_means(recorded)
        cells = [name, f"{len(recorded.vectors):,}"]
        for mean in (recorded.mean, assumed):
            base, gain, error = difference(recorded, *forecasts(recorded, mean, encoder.name))
            cells += [f"{base:.4f}", f"{1000 * gain:+.2f}", f"{1000 * error:.2f}"]
        ranks = [np.argsort(np.argsort(values)) for values in (recorded.mean, assumed)]
        print(f"| {' | '.join(cells)} | {np.corrcoef(ranks)[0, 1]:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
