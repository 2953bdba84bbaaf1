"""`eccos simulate --engine gpu=a100,kv_tokens=100000`: simulate a serving engine on the requests of a trace."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from eccos_core.cli.arrivals import parse_arrivals
from eccos_core.cli.engine_spec import EngineSpec, parse_engine
from eccos_core.cli.output import console, print_json, print_table
from eccos_core.errors import InputError

if TYPE_CHECKING:
    from eccos_core.simulation.serving import ServingWorkload
    from eccos_core.workflows.engine_report import EngineReport

LEARNT_SHARE, FEWEST_REQUESTS = 0.3, 20


def simulate_engine_trace(engine: str, arrivals: str, count: int | None, page: Path | None, *, as_json: bool) -> None:
    """Read `--engine` and `--arrivals trace:FILE`, simulate the first `count` requests, and show what was found.

    Raises `InputError`.
    """
    from eccos_core.simulation.serving import serving_workload
    from eccos_core.simulation.traces import read_trace
    from eccos_core.workflows.engine_page import write_engine_page
    from eccos_core.workflows.engine_report import engine_summary, engine_tables
    from eccos_core.workflows.page_figures import check_page

    if page is not None:
        check_page(page)
    spec, source = parse_engine(engine), parse_arrivals(arrivals)
    if spec.serves is not None:
        raise InputError("--engine has serves=, which names a model of a pool. Give --data and --prices with it.")
    if isinstance(source, str):
        raise InputError(f"--engine needs the lengths of requests, and --arrivals is {arrivals!r}; give trace:FILE")
    trace = read_trace(source.place, source.bad_rows).with_tokens(source.bad_rows)
    workload = serving_workload(trace).at_speed(1.0 if source.speed is None else source.speed)
    found = simulate_trace(spec, workload.rows(slice(count)), trace.describe())
    if page is not None:
        write_engine_page(found, page)
    if as_json:
        print_json(
            {
                "engine": {
                    **asdict(spec),
                    "costs": None if spec.costs is None else str(spec.costs),
                    "learn": spec.learn or LEARNT_SHARE,
                },
                "kv_tokens": found.kv_tokens,
                "learnt_from": found.learnt_from,
                "results": [asdict(one) for one in found.results],
            }
        )
        return
    out = console(sys.stdout)
    for line in engine_summary(found):
        out.print(line, soft_wrap=True, markup=False)
    for table in engine_tables(found):
        print_table(out, table.title, table.header, table.rows, numbers=set(table.header[1:]))
    if page is not None:
        out.print(f"Page: {page}", soft_wrap=True, markup=False)


def simulate_trace(spec: EngineSpec, workload: ServingWorkload, name: str) -> EngineReport:
    """Learn a length forecast on the first part of a workload, and simulate the rest with each scheduler asked for."""
    from eccos_core.simulation.serving import SCHEDULERS, scheduler_named, simulate_engine, split_to_learn
    from eccos_core.workflows.engine_report import EngineReport

    if len(workload) < FEWEST_REQUESTS:
        raise InputError(f"{name} has {len(workload)} requests, and {FEWEST_REQUESTS} or more are needed: some teach")
    settings = spec.settings()
    lengths, rest = split_to_learn(workload, LEARNT_SHARE if spec.learn is None else spec.learn)
    schedulers = list(SCHEDULERS) if spec.scheduler is None else [scheduler_named(spec.scheduler).name]
    results = []
    with console().status("Simulating ...") as status:
        for scheduler in schedulers:
            status.update(f"Simulating {scheduler} ...")
            results.append(simulate_engine(rest, replace(settings, scheduler=SCHEDULERS[scheduler]), lengths))
    return EngineReport(name, spec.name, settings.kv_tokens, len(workload) - len(rest), tuple(results))
