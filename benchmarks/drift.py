"""How soon a model that falls to half its quality is noticed: `python benchmarks/drift.py`.

A predictor is fitted on the training rows of recorded outcomes. Labels of test rows are then drawn, each of a random
model. First 13,106 labels of sound models count false alarms. Then each model keeps only half of its good answers,
and its labels are counted until the alarm. `eccos` is beside ADWIN and the Page-Hinkley test of `river`, where that
package is installed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder
from eccos_core.io.outcomes import read_outcomes, split
from eccos_core.learning import DriftMonitor
from eccos_core.predictors import fit_predictor

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SETS = ("qa_math_mix9", "llmrouter_dcrouter", "judged_mix4", "openhands34")
SOUND_LABELS, MOST_LABELS = 13_106, 1000
Detector = Callable[[int, float, float], bool]  # (model, forecast, label) -> alarm


def detectors() -> dict[str, Callable[[], Detector]]:
    """Return by name what makes a fresh detector."""
    found: dict[str, Callable[[], Detector]] = {"eccos": eccos_detector}
    try:
        from river.drift import ADWIN, PageHinkley
    except ImportError:
        print("river is not installed: ADWIN and Page-Hinkley are left out (pip install river)")
        return found
    return found | {
        "ADWIN": lambda: river_detector(ADWIN),
        "Page-Hinkley": lambda: river_detector(lambda: PageHinkley(mode="down")),
        "Page-Hinkley, tuned": lambda: river_detector(lambda: PageHinkley(mode="down", threshold=12, delta=0.1)),
    }


def eccos_detector() -> Detector:
    monitor, count = DriftMonitor(), iter(range(10**9))
    return lambda model, forecast, label: monitor.observe(str(next(count)), str(model), forecast, label) is not None


def river_detector(make: Callable[[], object]) -> Detector:
    by_model: dict[int, object] = {}

    def observe(model: int, forecast: float, label: float) -> bool:
        detector = by_model.setdefault(model, make())
        detector.update(label - forecast)
        return detector.drift_detected

    return observe


def run(make: Callable[[], Detector], forecast: FloatArray, quality: FloatArray, seed: int) -> tuple[int, list[int]]:
    """Return (false alarms, labels until the alarm of each model)."""
    draw = np.random.default_rng(seed)
    rows, models = np.nonzero(~np.isnan(quality))
    detect, false_alarms = make(), 0
    for at in draw.integers(len(rows), size=SOUND_LABELS):
        row, model = rows[at], models[at]
        false_alarms += detect(int(model), forecast[row, model], quality[row, model])
    delays = []
    for model in range(quality.shape[1]):
        own, delay = rows[models == model], MOST_LABELS
        for label in range(MOST_LABELS):
            row = draw.choice(own)
            if detect(model, forecast[row, model], quality[row, model] * (draw.random() < 0.5)):
                delay = label + 1
                break
        delays.append(delay)
    return false_alarms, delays


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    wanted = parser.parse_args()
    if not DATA.is_dir():
        print(f"skipped: needs {DATA}, which is not here")
        return 0
    logging.getLogger("eccos.drift").disabled = True  # hundreds of alarms are wanted here
    compared = detectors()
    encoder = ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])
    print("| outcomes | detector | false alarms in 13,106 labels, by seed | median labels | worst | over 300 |")
    print("|---|---|---|---|---|---|")
    for name in SETS:
        train, test = split(read_outcomes(DATA / f"{name}.jsonl.gz"))
        predictor = fit_predictor("linear", train, encoder.encode(train.queries))
        forecast = predictor.predict(encoder.encode(test.queries), np.full(len(test), np.nan)).quality
        for detector, make in compared.items():
            runs = [run(make, forecast, test.quality, seed) for seed in range(wanted.seeds)]
            delays = np.array([delay for _, each in runs for delay in each])
            alarms = " ".join(str(count) for count, _ in runs)
            print(
                f"| {name} | {detector} | {alarms} | {np.median(delays):.0f} | {delays.max()} | "
                f"{(delays > 300).mean():.1%} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
