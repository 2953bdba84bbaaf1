"""`eccos simulate --engine gpu=a100,kv_tokens=100000`: simulate a serving engine on the requests of a trace."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from eccos_core.cli.arrivals import parse_arrivals
from eccos_core.cli.output import console, print_json, print_table
from eccos_core.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from eccos_core.roofline import PassCost
    from eccos_core.simulation.serving import EngineResult, ServingWorkload

_LEARNT_SHARE, _FEWEST_REQUESTS = 0.3, 20
_Value = TypeVar("_Value", int, float)


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What `--engine` says. `learn` is the share of the trace that teaches the forecast and is not simulated.

    None: `kv_tokens` are those that the GPU's memory has room for, `scheduler` is each one, `chunk` is whole prompts.
    """

    gpu: str | None = None
    model: str = "llama-2-7b"
    costs: Path | None = None
    kv_tokens: int | None = None
    replicas: int = 1
    shards: int = 1
    scheduler: str | None = None
    chunk: int | None = 512
    batch: int = 256
    overhead: float = 0.0
    learn: float = _LEARNT_SHARE

    def cost(self) -> tuple[PassCost, int]:
        """Return what a pass takes, and the tokens that fit into the cache. Raises `InputError`."""
        from eccos_core.roofline import RooflineCost, architecture_named, gpu_named
        from eccos_core.simulation.serving.calibration import read_calibration

        if (self.gpu is None) == (self.costs is None):
            raise InputError("--engine needs either gpu=NAME or costs=FILE (of `eccos calibrate`), and not both")
        if self.gpu is not None:
            roofline = RooflineCost(gpu_named(self.gpu), architecture_named(self.model), self.shards, self.overhead)
            return roofline, roofline.kv_tokens() if self.kv_tokens is None else self.kv_tokens
        assert self.costs is not None
        if self.kv_tokens is None:
            raise InputError("--engine has costs=FILE without kv_tokens=N; the server's log says how many it has")
        return read_calibration(self.costs).cost, self.kv_tokens


def parse_engine(text: str) -> EngineSpec:
    """Read `name=value` pairs, separated by commas. Raises `InputError` that names the pair."""
    read: dict[str, Callable[[str, str], Any]] = {
        "gpu": lambda _, value: value,
        "model": lambda _, value: value,
        "costs": lambda _, value: Path(value),
        "scheduler": lambda _, value: None if value == "all" else value,
        "chunk": lambda name, value: None if value == "none" else _number(name, value, int, 1),
        "overhead": lambda name, value: _number(name, value, float, 0),
        "learn": lambda name, value: _number(name, value, float, 0),
        **dict.fromkeys(("kv_tokens", "replicas", "shards", "batch"), lambda name, value: _number(name, value, int, 1)),
    }
    found: dict[str, Any] = {}
    for pair in text.split(","):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if name not in read:
            raise InputError(
                f"--engine has {pair!r}, must be {', '.join(f'{one}=' for one in read)}{did_you_mean(name, read)}"
            )
        if not equals or not value or name in found:
            raise InputError(f"--engine has {pair!r}, must give each name one value, as in gpu=a100,kv_tokens=100000")
        found[name] = read[name](name, value)
    if not 0 < found.get("learn", _LEARNT_SHARE) < 1:
        raise InputError(f"--engine has learn={found['learn']}, must be a share between 0 and 1, as in learn=0.3")
    return EngineSpec(**found)


def _number(name: str, text: str, kind: type[_Value], least: int) -> _Value:
    try:
        value = kind(text)
    except ValueError:
        value = kind(-1)
    if not least <= value < float("inf"):
        raise InputError(f"--engine has {name}={text}, must be a {'whole ' * (kind is int)}number >= {least}")
    return value


def simulate_engine_trace(engine: str, arrivals: str, count: int | None, *, as_json: bool) -> None:
    """Read `--engine` and `--arrivals trace:FILE`, and simulate the first `count` requests. Raises `InputError`."""
    from eccos_core.simulation.serving import serving_workload
    from eccos_core.simulation.traces import read_trace

    spec, source = parse_engine(engine), parse_arrivals(arrivals)
    if isinstance(source, str):
        raise InputError(f"--engine needs the lengths of requests, and --arrivals is {arrivals!r}; give trace:FILE")
    trace = read_trace(source.place, source.bad_rows).with_tokens(source.bad_rows)
    workload = serving_workload(trace).at_speed(1.0 if source.speed is None else source.speed)
    simulate_trace(spec, workload.rows(slice(count)), trace.describe(), as_json=as_json)


def simulate_trace(spec: EngineSpec, workload: ServingWorkload, file: str, *, as_json: bool) -> None:
    """Learn a length forecast on the first part of a workload, simulate the rest, and print the results."""
    from eccos_core.simulation.serving import (
        SCHEDULERS,
        EngineSettings,
        scheduler_named,
        simulate_engine,
        split_to_learn,
    )

    if len(workload) < _FEWEST_REQUESTS:
        raise InputError(f"{file} has {len(workload)} requests, and {_FEWEST_REQUESTS} or more are needed: some teach")
    cost, kv_tokens = spec.cost()
    lengths, rest = split_to_learn(workload, spec.learn)
    names = list(SCHEDULERS) if spec.scheduler is None else [scheduler_named(spec.scheduler).name]
    results = []
    with console().status("Simulating ...") as status:
        for name in names:
            status.update(f"Simulating {name} ...")
            settings = EngineSettings(cost, SCHEDULERS[name], kv_tokens, spec.replicas, spec.chunk, spec.batch)
            results.append(simulate_engine(rest, settings, lengths))
    if as_json:
        print_json(
            {
                "engine": {**asdict(spec), "costs": None if spec.costs is None else str(spec.costs)},
                "kv_tokens": kv_tokens,
                "learnt_from": len(workload) - len(rest),
                "results": [asdict(one) for one in results],
            }
        )
        return
    name = f"{spec.model} on {spec.gpu}" if spec.gpu else f"a server as in {spec.costs}"
    _print(
        results, f"{len(rest):,} requests of {file}: {name}, {kv_tokens:,} tokens of cache, {spec.replicas} replica(s)"
    )


def _print(results: list[EngineResult], title: str) -> None:
    columns = ["scheduler", "GPU s", "busy", "first token p50, s", "p95, s", "answer p50, s", "p95, s ", "ms a token"]
    columns += ["preempted", "recomputed", "peak tokens", "tokens/s"]
    rows = [
        [
            one.scheduler,
            f"{one.gpu_seconds:,.1f}",
            f"{100 * one.utilisation:.0f} %",
            f"{one.first_token_median_s:.2f}",
            f"{one.first_token_p95_s:.2f}",
            f"{one.answer_median_s:.1f}",
            f"{one.answer_p95_s:.1f}",
            f"{1000 * one.token_median_s:.1f}",
            f"{one.preemptions:,}",
            f"{one.recomputed_tokens:,}",
            f"{one.peak_kv_tokens:,}",
            f"{one.output_tokens_per_s:,.0f}",
        ]
        for one in results
    ]
    print_table(console(sys.stdout), title, columns, rows, numbers=set(columns[1:]))
