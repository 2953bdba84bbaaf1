"""`eccos simulate --engine` reads its pairs, simulates a trace, and names what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from eccos_core.cli import app
from eccos_core.cli.engine_spec import EngineSpec, parse_engine
from eccos_core.errors import InputError
from eccos_core.roofline import LinearCost
from eccos_core.simulation.serving.calibration import ServerCalibration, write_calibration


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    rows = [
        f"2023-11-16 18:{15 + second // 60:02}:{second % 60:02}.5,"
        f"{generator.integers(50, 900)},{generator.integers(5, 200)}"
        for second in range(120)
    ]
    file = tmp_path / "requests.csv"
    file.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n", encoding="utf-8")
    return file


def simulate(*options: str) -> Result:
    return CliRunner().invoke(app, ["simulate", *options])


def test_every_scheduler_answers_every_request(trace: Path) -> None:
    done = simulate("--engine", "gpu=a100,kv_tokens=4000", "--arrivals", f"trace:{trace},speed=inf", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["kv_tokens"], found["learnt_from"]) == (4000, 36)
    assert [one["scheduler"] for one in found["results"]] == [
        "fcfs",
        "preempt-newest",
        "shortest-first",
        "reserve",
        "oracle",
    ]
    for one in found["results"]:
        assert one["requests"] == 84
        assert one["peak_kv_tokens"] <= 4000
        assert one["gpu_seconds"] == pytest.approx(one["duration_s"])  # all are there from the start


def test_the_table_names_the_engine_and_the_trace(trace: Path) -> None:
    done = simulate(
        "--engine", "gpu=h100,model=llama-3-8b,replicas=2,scheduler=reserve,chunk=none", "--arrivals", f"trace:{trace}"
    )
    assert done.exit_code == 0, done.output
    told = " ".join(done.stdout.split())  # the title is wrapped
    assert "84 requests of trace:" in told
    assert "requests.csv (azure): llama-3-8b on h100" in told
    assert "2 replica(s)" in told


def test_the_page_of_an_engine_has_its_plots_and_asks_nobody(trace: Path, tmp_path: Path) -> None:
    page = tmp_path / "engine.html"
    done = simulate("--engine", "gpu=a100", "--arrivals", f"trace:{trace}", "--report", str(page))
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert text.count("<svg ") == 3
    assert "1.0000" in text  # the oracle, of itself
    for each in ("reserve", "fcfs", "Time to the first token", "36 requests before them taught"):
        assert each in text
    for outside in ("http:", "https:", "<script", "<img", "url(http", "@import", "<link"):
        assert outside not in text
    ids = [part.split('"')[0] for part in text.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    assert "@media print" in text
    assert "Page:" in done.stdout


def test_the_costs_of_an_own_server_are_used(trace: Path, tmp_path: Path) -> None:
    costs = tmp_path / "costs.json"
    write_calibration(costs, ServerCalibration("m", LinearCost(1.0, 0.0, 0.0), 0.0, 0.0, 0.0, 42))
    done = simulate(
        "--engine",
        f"costs={costs},kv_tokens=4000,scheduler=reserve",
        "--arrivals",
        f"trace:{trace}",
        "--count",
        "50",
        "--json",
    )
    (found,) = json.loads(done.stdout)["results"]
    assert found["requests"] == 35
    assert found["gpu_seconds"] == found["passes"]  # a second each


def test_what_is_not_said_has_its_default() -> None:
    assert parse_engine("gpu=a100") == EngineSpec(gpu="a100")
    assert parse_engine("gpu=a100,scheduler=all,chunk=none") == EngineSpec(gpu="a100", chunk=None)
    assert parse_engine("gpu=a100").cost()[1] > 100_000


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("gpus=a100", "did you mean 'gpu'"),
        ("gpu=a100,gpu=h100", "one value"),
        ("gpu=", "one value"),
        ("gpu=a100,kv_tokens=ten", "kv_tokens=ten, must be a whole number >= 1"),
        ("gpu=a100,overhead=-1", "overhead=-1, must be a number >= 0"),
        ("gpu=a100,learn=1", "learn=1.0, must be a share"),
        ("kv_tokens=5", "either gpu=NAME or costs=FILE"),
        ("costs=x.json", "without kv_tokens"),
        ("gpu=a100,scheduler=lifo", "scheduler is 'lifo'"),
        ("gpu=a100,kv_tokens=100", "needs .* tokens of the cache, which has 100"),
    ],
)
def test_a_wrong_engine_is_named(trace: Path, spec: str, says: str) -> None:
    done = simulate("--engine", spec, "--arrivals", f"trace:{trace}")
    assert isinstance(done.exception, InputError)
    with pytest.raises(InputError, match=says):
        raise done.exception


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--engine", "gpu=a100"], "give trace:FILE"),
        (["--engine", "gpu=a100", "--arrivals", "trace:x.csv,speed=fast"], "speed=fast"),
        (["--floor", "0.5"], "needs --data and --prices"),
        (["--data", "x.jsonl", "--engine", "gpu=a100"], "--data and --prices go together"),
        (["--engine", "gpu=a100", "--engine", "gpu=h100"], "several --engine serve a pool"),
        (["--engine", "serves=small,gpu=a100", "--arrivals", "trace:x.csv"], "names a model of a pool"),
        (["--engine", "gpu=a100", "--arrivals", "trace:x.csv", "--report", "x.pdf"], "ends in .html"),
    ],
)
def test_what_is_missing_is_named(options: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        raise simulate(*options).exception or AssertionError


def test_a_trace_of_few_requests_teaches_nothing(trace: Path) -> None:
    with pytest.raises(InputError, match="has 10 requests, and 20 or more"):
        raise (
            simulate("--engine", "gpu=a100", "--arrivals", f"trace:{trace}", "--count", "10").exception
            or AssertionError
        )
