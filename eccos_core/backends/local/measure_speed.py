"""Measures what passes of a local model take on this machine.

Seconds on a CPU are those of the processor, and the least of several tries, so that other programs disturb little.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from eccos_core.backends.local.model import EngineOptions, LoadedModel, load_model
from eccos_core.backends.local.numpy_llama import NumpyLlama
from eccos_core.backends.local.worker import inference, new_batch
from eccos_core.errors import InputError
from eccos_core.io.optional import needs_extra
from eccos_core.io.threads import one_thread_without_torch
from eccos_core.pocket import pocket_models_folder, pocket_path
from eccos_core.roofline import (
    MachineSpeed,
    MeasuredPass,
    ModelPass,
    ModelSpeed,
    read_architecture,
)

T = TypeVar("T")
CONTEXTS = (16, 64, 128, 224)
ROWS = (1, 4, 16)
TRIES = 3
_STEPS = 4
_POCKET = ("pocket-small", "pocket-medium", "pocket-large")
_MEMORY_SHARE = 0.5  # of this machine's memory, for weights and cache


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """Passes of one model, and what computed them ("numpy on cpu")."""

    runs_on: str
    bytes_per_number: float
    passes: tuple[MeasuredPass, ...]


def calibrate(folder: Path) -> MachineSpeed:
    """Measure this machine on a model. A pocket model brings the others, so that all of them can be priced.

    Raises what `measure_model` raises.
    """
    folders = [folder]
    if folder.parent == pocket_models_folder():
        folders = [Path(pocket_path(name)) for name in _POCKET]
    measured = [measure_model(each, CONTEXTS, ROWS, TRIES) for each in folders]
    return MachineSpeed(
        tuple(ModelSpeed.fit(each.passes, each.runs_on) for each in measured),
        _MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        measured[0].bytes_per_number,
    )


def measure_model(folder: Path, contexts: Sequence[int], rows: Sequence[int], tries: int) -> MeasuredModel:
    """Read prompts and decode after them, for each number of tokens and rows that fits into the context window.

    A try measures every pass once, so that a machine that slows down for a while slows down for all of them.
    Raises `InputError` for a window that is too short, and `BackendError` for a folder that cannot be loaded.
    """
    loaded = load_model(folder.name, folder, EngineOptions())
    architecture = read_architecture(folder)
    window = loaded.context_window or max(contexts) + _STEPS + 1
    fitting = [context for context in contexts if context + _STEPS < window]
    if len(fitting) < 2:
        raise InputError(f"{folder} has a context window of {window} tokens, too short to measure its speed")
    points = [(context, count) for context in fitting for count in rows]
    with one_thread_without_torch(), inference(loaded):
        times = [[_measure(loaded, context, count) for context, count in points] for _ in range(tries)]
    passes: list[MeasuredPass] = []
    for (context, count), each in zip(points, zip(*times, strict=True), strict=True):
        prompts, answers = (min(seconds) for seconds in zip(*each, strict=True))
        middle = context + (_STEPS + 1) // 2
        passes.append(MeasuredPass(architecture, ModelPass.of([(context, 0)] * count, []), prompts))
        passes.append(MeasuredPass(architecture, ModelPass.of([], [middle] * count), answers))
    kind = "numpy" if isinstance(loaded.model, NumpyLlama) else "torch"
    width = 4.0 if kind == "numpy" else float(loaded.model.dtype.itemsize)
    return MeasuredModel(f"{kind} on {loaded.model.device}", width, tuple(passes))


def _measure(loaded: LoadedModel, context: int, rows: int) -> tuple[float, float]:
    """Return the seconds of a pass that reads `rows` prompts, and the least of some that decode after them."""
    device = str(loaded.model.device)
    prompts = [[1 + (row + place) % 97 for place in range(context)] for row in range(rows)]
    batch = new_batch(loaded)
    (_, cache, mask), prompt_s = _timed(lambda: batch.prefill(prompts), device)
    batch.join(cache, mask)
    return prompt_s, min(_timed(lambda: _step(batch, rows), device)[1] for _ in range(_STEPS))


def _step(batch: Any, rows: int) -> None:
    batch.choose(batch.step([5] * rows), [(0.0, 1.0, 0.0)] * rows)


def _timed(work: Callable[[], T], device: str) -> tuple[T, float]:
    """Return what `work` returns, and its seconds: of this thread on a CPU, elsewhere of the clock until it is done."""
    if device.startswith("cpu"):
        started = time.thread_time()
        done = work()
        return done, time.thread_time() - started
    with needs_extra("local", "measuring a GPU"):
        import torch

    torch.cuda.synchronize()
    started = time.perf_counter()
    done = work()
    torch.cuda.synchronize()
    return done, time.perf_counter() - started
