"""`eccos simulate` on a file of outcomes, with the encoder that it uses by default."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from eccos_core.errors import InputError


@pytest.fixture
def outcomes_file(tmp_path: Path) -> tuple[Path, Path]:
    generator = np.random.default_rng(0)
    path, prices = tmp_path / "outcomes.jsonl.gz", tmp_path / "prices.json"
    with gzip.open(path, "wt") as file:
        for i in range(400):
            topic = ("sum", "poem", "proof")[i % 3]
            outputs = [
                {
                    "model": name,
                    "correct": float(generator.random() < p),
                    "input_tokens": 50,
                    "output_tokens": int(generator.integers(20, 200)),
                }
                for name, p in (("small", 0.5), ("large", 0.9))
            ]
            line = {"id": f"q{i}", "dataset": "d", "query": f"A {topic} about the number {i}", "outputs": outputs}
            file.write(json.dumps(line) + "\n")
    keys = ("usd_per_million_input_tokens", "usd_per_million_output_tokens")
    price = {"small": dict(zip(keys, (0.1, 0.2), strict=True)), "large": dict(zip(keys, (5.0, 15.0), strict=True))}
    prices.write_text(json.dumps(price))
    return path, prices


def command() -> object:
    import typer

    from eccos_core.cli.simulate import simulate as simulate_command

    app = typer.Typer()
    app.command()(simulate_command)
    return app


def test_the_command_replays_a_file_and_prints_json(outcomes_file: tuple[Path, Path]) -> None:
    data, prices = outcomes_file
    arguments = ["--data", str(data), "--prices", str(prices), "--floor", "0.7", "--json", "--slots", "2", "--slots"]
    arguments += ["large=4", "--routers", "eccos, greedy", "--count", "600"]
    done = CliRunner().invoke(command(), arguments)  # type: ignore[arg-type]
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["requests"] == 600
    assert [one["router"] for one in told["results"]] == ["eccos", "greedy"]
    assert all(one["answered"] + one["missed"] + one["refused"] == 600 for one in told["results"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "exactly one of --floor"),
        (["--floor", "0.5", "--usd-per-day", "3"], "exactly one of --floor"),
        (["--floor", "0.5", "--slots", "big=3"], "no model 'big'"),
        (["--floor", "0.5", "--slots", "many"], "must be a number or MODEL=NUMBER"),
        (["--floor", "0.5", "--floor-insurance", "rain"], "must be none, history or a quality"),
    ],
)
def test_the_command_says_what_to_change(outcomes_file: tuple[Path, Path], arguments: list[str], message: str) -> None:
    data, prices = outcomes_file
    done = CliRunner().invoke(command(), ["--data", str(data), "--prices", str(prices), *arguments])  # type: ignore[arg-type]
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)
