"""What looking at answers is worth: `python benchmarks/escalate.py`.

Plans of up to three calls against single calls and cascades of the literature, on recorded answers. Rules are learned
on the training rows, and the test rows are read once. A second table checks outcomes without answers, where a plan is
one call and must equal `hybrid`. A third one times a decision of one request.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eccos_core.cli.evaluate import _encoder
from eccos_core.domain import AnswerConfidence
from eccos_core.evaluation.baselines import routers_by_name
from eccos_core.evaluation.folds import ReplaySample
from eccos_core.evaluation.replay import evaluate
from eccos_core.evaluation.report import EvaluationReport
from eccos_core.evaluation.report_tables import calls_row, frontier_row, markdown_table
from eccos_core.io.files import cache_folder
from eccos_core.io.outcomes import read_outcomes
from eccos_core.io.prices import read_prices
from eccos_core.plans import PlanRule, PlanState, RuleOfThumbVerifier

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
ANSWERED = "qa_math_mix9_answers"
ROUTERS = (*("prior", "hybrid", "escalate", "cascade_frugalgpt", "cascade_automix", "agreement_of_two", "best_single"),)
SILENT = ("judged_mix4", "openhands34", "llmrouter_dcrouter", "routellm_mmlu")
SILENT_ROWS = 300


def run(name: str, routers: tuple[str, ...], encoder: str, rows: int | None = None) -> EvaluationReport:
    prices = DATA / f"{name.removesuffix('_answers')}.prices.json"
    cached, uncached = _encoder(encoder, "cpu", cache_folder() / "embeddings.sqlite")
    return evaluate(
        read_outcomes(DATA / f"{name}.jsonl.gz"),
        read_prices(prices) if prices.exists() else {},
        routers_by_name(routers),
        {"text": cached},
        uncached_encoders={"text": uncached},
        dataset=name,
        sample=None if rows is None else ReplaySample(rows),
    )


def time_decisions(models: int = 9) -> tuple[float, float, float]:
    """Return the processor time in ms of valuing first calls, and of the step after one answer and after two."""
    names = [f"model-{place}" for place in range(models)]
    rule = PlanRule(RuleOfThumbVerifier.of(names, ("mean_logprob",)), 1.0)
    state = PlanState.start(names, np.linspace(0.5, 0.9, models), np.logspace(-5, -2, models))
    one = state.after(names[0], AnswerConfidence(mean_logprob=-0.3))
    two = one.after(names[1], AnswerConfidence(mean_logprob=-0.3), [0.0])

    def cpu_ms(decide: Callable[[], object]) -> float:
        decide()
        started = time.process_time()
        for _ in range(200):
            decide()
        return 1000 * (time.process_time() - started) / 200

    return (
        cpu_ms(lambda: rule.first_values(state, 0.05)),
        cpu_ms(lambda: rule.next_step(one, 0.05)),
        cpu_ms(lambda: rule.next_step(two, 0.05)),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="static+surface")
    wanted = parser.parse_args()
    if not DATA.is_dir():
        print(f"skipped: needs {DATA}, which is not here")
        return 0
    report = run(ANSWERED, ROUTERS, wanted.encoder)
    results = [report.results[name] for name in ROUTERS]
    print(f"{ANSWERED}, vectors of {wanted.encoder}\n")
    header = ("router", "0.90", "0.95", "0.98", "1.00", "area", "best accuracy")
    print(markdown_table(header, [frontier_row(result) for result in results]))
    print("\nMean calls per question:\n")
    print(markdown_table(header[:5], [calls_row(result) for result in results if result.calls is not None]))
    for each in report.differences_to("hybrid"):
        if each.router == "escalate":
            print(f"\narea, escalate less hybrid: {each.difference:+.4f} [{each.low:+.4f}, {each.high:+.4f}]")
    print(f"\nWithout answers ({SILENT_ROWS} training rows), escalate is hybrid:\n")
    for name in SILENT:
        areas = [
            run(name, (router,), wanted.encoder, SILENT_ROWS).results[router].score.area for router in ROUTERS[1:3]
        ]
        print(f"- {name}: area {areas[0]:.6f} and {areas[1]:.6f}", flush=True)
    first, second, third = time_decisions()
    print(
        f"\nOne request, 9 models, processor time: values of first calls {first:.2f} ms, step after one answer "
        f"{second:.2f} ms, after two {third:.2f} ms"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
