"""What the price of a token on your own GPU is worth: `python benchmarks/price.py`.

First the roofline against measured layers of models and GPUs that its fit did not see (`tests/data/roofline`). Then the
prices that follow. Then the pocket models on this CPU: one calibration, and passes that it did not measure. Seconds on
the CPU are those of the thread that computes, the least of three. Exits 1 when a median error is above its bound.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eccos_core.backends.local.measure_speed import calibrate, measure_model
from eccos_core.pocket import pocket_path
from eccos_core.roofline import price_tokens, read_architecture, serve_model
from tools.roofline.measured_layers import leave_one_out, read_measured_layers

GPU_HOUR = 2.5
POCKET = ("pocket-small", "pocket-medium", "pocket-large")
BOUND, HERE_BOUND = 0.10, 0.20


def main() -> int:
    """Print the errors and the prices."""
    too_far = tables()
    prices()
    return 1 if here() or too_far else 0


def tables() -> bool:
    """Print the median errors with a model left out and with a GPU left out. Return whether one is too far."""
    models: dict[tuple[str, str], list[float]] = defaultdict(list)
    gpus, rows = {}, defaultdict(int)
    for each in leave_one_out(read_measured_layers()):
        key = (each.source, each.gpu)
        if each.left_out == "the GPU":
            gpus[key], rows[key] = each.error, each.rows
        else:
            models[key].append(each.error)
    print("table           GPU   layers  models  median error of a model left out   worst model   GPU left out")
    for key, errors in models.items():
        source, gpu = key
        print(
            f"{source:14}  {gpu:5} {rows[key]:6d}  {len(errors):6d}  {np.median(errors):32.1%}"
            f"  {max(errors):12.1%}  {gpus[key]:13.1%}"
        )
    return max(max(errors) for errors in models.values()) > BOUND or max(gpus.values()) > BOUND


def prices() -> None:
    """Print what follows for some models."""
    print(f"\nUSD per million tokens at {GPU_HOUR} USD an H100-hour, in / out, and requests that decode together")
    print(f"{'':20}" + "".join(f"{context // 1024:>20d}k" for context in (1024, 8192, 32_768)))
    for name, gpus in (("llama-2-7b", 1), ("llama-3-8b", 1), ("mixtral-8x7b", 2), ("llama-3-70b", 4)):
        served = serve_model(name, "h100", usd_per_gpu_hour=GPU_HOUR, gpus=gpus)
        found = [price_tokens(served, context) for context in (1024, 8192, 32_768)]
        cells = [f"{p.usd_per_input_token * 1e6:.3f} / {p.usd_per_output_token * 1e6:.3f} ({p.batch})" for p in found]
        print(f"{name + ' x ' + str(gpus):20}" + "".join(f"{cell:>21}" for cell in cells))


def here() -> bool:
    """Print the errors on this CPU. Return whether one is too far."""
    machine = calibrate(Path(pocket_path(POCKET[0])))
    print("\npocket models on this CPU, after one calibration: median error at 40, 96 and 180 tokens x 2 and 8 rows")
    worst = 0.0
    for name in POCKET:
        folder = Path(pocket_path(name))
        cost = machine.cost_of(read_architecture(folder))
        found = measure_model(folder, (40, 96, 180), (2, 8), 3).passes
        error = float(np.median([abs(cost.seconds(each.work) / each.seconds - 1) for each in found]))
        worst = max(worst, error)
        print(f"{name:14} {error:6.1%}")
    return worst > HERE_BOUND


if __name__ == "__main__":
    sys.exit(main())
