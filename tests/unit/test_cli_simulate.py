"""`eccos simulate`: its list options, which you can repeat and separate by commas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eccos_core.cli import app
from eccos_core.cli.options import split_names
from eccos_core.cli.output import YOUR_INPUT, run
from eccos_core.domain import OutcomeTable
from eccos_core.io.outcomes import write_outcomes

MODELS = ("short", "long")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    rows = 120
    table = OutcomeTable(
        question_ids=tuple(f"q{row}" for row in range(rows)),
        queries=tuple(f"question {row}" + "\nwith more lines" * (row % 2) for row in range(rows)),
        models=MODELS,
        quality=np.array([[float(row % 2 == 0), 1.0] for row in range(rows)]),
        input_tokens=np.full((rows, 2), 10.0),
        output_tokens=np.full((rows, 2), 10.0),
    )
    data, prices = tmp_path / "outcomes.jsonl", tmp_path / "prices.json"
    write_outcomes(data, table)
    price = {"usd_per_million_input_tokens": 1, "usd_per_million_output_tokens": 1}
    prices.write_text(json.dumps({"short": price, "long": {name: 50 * usd for name, usd in price.items()}}))
    return ["--data", str(data), "--prices", str(prices), "--floor", "0.7", "--count", "100"]


def simulate(files: list[str], capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert run(app, ["simulate", *files, "--json", *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_routers_can_be_repeated_and_separated_by_commas(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = simulate(files, capsys, "--routers", "greedy, round_robin", "--routers", "best_first")
    assert [result["router"] for result in found["results"]] == ["greedy", "round_robin", "best_first"]


def test_without_routers_all_are_compared(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = simulate(files, capsys)
    names = ["eccos", "round_robin", "cheapest_first", "best_first", "greedy", "port"]
    assert [result["router"] for result in found["results"]] == names


def test_slots_separated_by_commas_are_those_of_repeated_options(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    commas = simulate(files, capsys, "--routers", "greedy", "--slots", "2, long=1")
    repeated = simulate(files, capsys, "--routers", "greedy", "--slots", "2", "--slots", "long=1")
    assert commas == repeated != simulate(files, capsys, "--routers", "greedy")


def test_an_unknown_router_is_named(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["simulate", *files, "--routers", "greedy,beast_first"]) == YOUR_INPUT
    assert "did you mean 'best_first'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "names"),
    [(None, []), (["a"], ["a"]), (["a,b", "c"], ["a", "b", "c"]), ([" a , ,b "], ["a", "b"]), ([","], [])],
)
def test_list_options_are_split_at_commas(values: list[str] | None, names: list[str]) -> None:
    assert split_names(values) == names


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """100 requests in a minute, the later ones the larger."""
    path = tmp_path / "jobs,speed.csv"
    rows = [f"2023-11-16 18:15:{second % 60:02d}.{second // 60:02d},5,{second}" for second in range(100)]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows, "soon,1,1"]))
    return path


def test_a_trace_says_when_requests_come(files: list[str], trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = files[:-2]
    arrivals = f"trace:{trace},bad=skip"
    found = simulate(whole, capsys, "--routers", "greedy", "--arrivals", arrivals)
    assert found["requests"] == 100
    assert found["requests_per_second"] == pytest.approx(99 / 59, rel=0.02)
    assert found["arrivals"] == f"trace:{trace} (azure, 1 bad rows left out)"
    faster = simulate(whole, capsys, "--routers", "greedy", "--arrivals", f"{arrivals},speed=2")
    assert faster["requests_per_second"] == pytest.approx(2 * found["requests_per_second"])
    at_rate = simulate(files, capsys, "--routers", "greedy", "--arrivals", arrivals, "--rate", "5", "--order", "length")
    assert (at_rate["requests"], at_rate["requests_per_second"]) == (100, pytest.approx(5))
    loaded = simulate(files, capsys, "--routers", "greedy", "--arrivals", arrivals, "--load", "0.5")
    drawn = simulate(files, capsys, "--routers", "greedy", "--load", "0.5")
    assert loaded["requests_per_second"] == pytest.approx(drawn["requests_per_second"])


def test_seeds_orders_and_the_page(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "stream.html"
    options = ["--routers", "eccos,greedy", "--seeds", "2", "--order", "random,hard_first", "--report", str(page)]
    found = simulate(files, capsys, *options)
    assert [(each["router"], each["order"], each["seed"]) for each in found["results"]][:3] == [
        ("eccos", "random", 0),
        ("eccos", "random", 1),
        ("greedy", "random", 0),
    ]
    assert "Cost per order" in page.read_text()
    assert run(app, ["simulate", *files, *options]) == 0
    told = capsys.readouterr().out
    assert "Floor asked: 0.7000. Attainable by forecast:" in told
    assert "The first 10 requests (10%) of each stream warm it up" in told
    assert "Quality and cost, order hard_first" in told
    assert f"Page: {page}" in told


ENGINES = ["--engine", "serves=short,gpu=a100,kv_tokens=2000", "--engine", "serves=long,gpu=h100,replicas=2"]


def test_models_of_a_pool_are_served_by_engines(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    page = tmp_path / "pool.html"
    routers = ["--routers", "eccos,greedy", "--rate", "20", "--slots", "long=3"]
    found = simulate(files, capsys, *routers, *ENGINES, "--report", str(page))
    loads = found["results"][0]["engines"]
    assert [(each["model"], each["replicas"], each["scheduler"]) for each in loads] == [
        ("short", 1, "reserve"),
        ("long", 2, "reserve"),
    ]
    assert [each["answered"] for each in loads] == found["results"][0]["calls"]
    text = page.read_text()
    assert "<h2>Engines</h2>" in text
    assert "eccos: long" in text
    one = simulate(files, capsys, *routers, *ENGINES[:2])
    assert [each["model"] for each in one["results"][0]["engines"]] == ["short"]  # the other has its latency
    assert run(app, ["simulate", *files, *routers, *ENGINES]) == 0
    assert "recomputed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "gpu=a100"], "needs serves=MODEL"),
        (["--engine", "serves=shrt,gpu=a100"], "did you mean 'short'"),
        (ENGINES[:2] * 2, "each at most once"),
        ([*ENGINES[:2], "--speed", "short=30"], "--speed names short, whose engine says how fast it is"),
        (["--engine", "serves=short,gpu=a100,learn=0.5"], "the training questions teach"),
        (["--engine", "serves=short,gpu=a100,scheduler=lifo"], "scheduler is 'lifo'"),
        (["--engine", "serves=short,gpu=a100,kv_tokens=5", "--engine", f"{ENGINES[3]},kv_tokens=5"], "no engine"),
        ([*ENGINES[:2], "--slots", "short=0"], "slots is 0"),
    ],
)
def test_a_wrong_engine_of_a_pool_is_named(
    files: list[str], capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run(app, ["simulate", *files, *options]) == YOUR_INPUT
    assert message in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arrivals", "poison"], "did you mean 'poisson'"),
        (["--arrivals", "trace:"], "without a file"),
        (["--arrivals", "postgresql://me:secret@host/log"], "--arrivals is an address. Write trace: before it."),
        (["--arrivals", "trace:{trace}"], ":102: column TIMESTAMP is 'soon'"),
        (["--arrivals", "trace:{trace},bad=ignore"], "must be bad=refuse or bad=skip"),
        (["--arrivals", "trace:{trace},speed=fast"], "must be a number > 0"),
        (["--arrivals", "trace:{trace},bad=skip,speed=0"], "must be a finite number > 0"),
        (["--arrivals", "trace:{trace},bad=skip,speed=2", "--rate", "3"], "speed= and --rate both say how fast"),
        (["--arrivals", "trace:{trace},bad=skip", "--count", "101"], "the trace has 100 requests"),
        (["--warm-up", "1"], "must be a share of the stream from 0 to below 1"),
        (["--order", "length"], "have no sizes"),
        (["--order", "hardfirst"], "did you mean 'hard_first'"),
        (["--report", "stream.pdf", "--routers", "greedy"], "ends in .html"),
    ],
)
def test_what_cannot_be_simulated_is_said(
    files: list[str], trace: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    given = [option.format(trace=trace) for option in options]
    assert run(app, ["simulate", *files, *given]) == YOUR_INPUT
    assert message in capsys.readouterr().err.replace("\n", "")
