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
