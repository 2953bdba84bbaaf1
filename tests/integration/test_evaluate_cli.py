"""`eccos evaluate` on a small outcomes file: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from eccos_core.cli import app
from eccos_core.cli.output import run
from eccos_core.domain import OutcomeTable
from eccos_core.io.outcomes import read_outcomes, split, write_outcomes

MODELS = ("short", "long")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """300 questions: `short` answers those of one line, `long` answers all. The cache is a folder of the test's own."""
    monkeypatch.setenv("ECCOS_CACHE_DIR", str(tmp_path / "cache"))
    queries = tuple(f"question {i}" + "\nwith\nmany\nlines" * (i % 2) for i in range(300))
    table = OutcomeTable(
        question_ids=tuple(f"q{i}" for i in range(300)),
        queries=queries,
        models=MODELS,
        quality=np.array([[float(i % 2 == 0), 1.0] for i in range(300)]),
        input_tokens=np.full((300, 2), 10.0),
        output_tokens=np.full((300, 2), 10.0),
    )
    data, prices = tmp_path / "mine.jsonl.gz", tmp_path / "prices.json"
    write_outcomes(data, table)
    each = {"usd_per_million_input_tokens": 1, "usd_per_million_output_tokens": 1}
    prices.write_text(json.dumps({"short": each, "long": {name: 50 * usd for name, usd in each.items()}}))
    return data, prices


def evaluate(files: tuple[Path, Path], *more: str) -> int:
    return run(app, ["evaluate", "--data", str(files[0]), "--prices", str(files[1]), *more])


def test_it_writes_every_kind_of_report(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = {kind: tmp_path / f"report.{kind}" for kind in ("json", "markdown", "html", "picture.png")}
    options = [part for kind, path in outputs.items() for part in (f"--{kind.split('.')[0]}", str(path))]
    assert evaluate(files, "--routers", "oracle,random_mix,prior,knn", "--encoder", "surface", *options) == 0
    found = json.loads(outputs["json"].read_text())
    assert found["dataset"] == "mine"
    assert found["train"] + found["test"] == 300
    assert list(found["routers"]) == ["oracle", "random_mix", "prior", "knn", "long", "short"]
    oracle, knn = found["routers"]["oracle"], found["routers"]["knn"]
    assert knn["cost_share"] == pytest.approx(oracle["cost_share"])  # the number of lines decides
    assert found["encoders"]["text"]["name"] == "surface:v1"
    assert "| knn |" in outputs["markdown"].read_text()
    assert "plotly" in outputs["html"].read_text()
    assert outputs["picture.png"].read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "best accuracy" in printed
    assert "random_mix" in printed


def test_json_prints_json_and_nothing_else(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(files, "--routers", "prior", "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["best_single"] == {"model": "long", "accuracy": 1.0, "usd_per_1k": pytest.approx(1.0)}


def test_routers_can_be_repeated_and_separated_by_commas(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--routers", "knn, prior", "--routers", "linear", "--encoder", "surface", "--json", "-")
    assert evaluate(files, *options) == 0
    found = json.loads(capsys.readouterr().out)["routers"]
    assert list(found) == ["oracle", "random_mix", "knn", "prior", "linear", "long", "short"]


def test_fewer_training_rows_are_a_setting(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(files, "--routers", "prior", "--train-rows", "25", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["train"] == 25


def test_a_second_run_fits_nothing_again_unless_told_to(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from_cache = []
    for more in ([], [], ["--fresh"]):
        assert evaluate(files, "--routers", "knn", "--encoder", "surface", "--json", "-", *more) == 0
        from_cache.append(json.loads(capsys.readouterr().out)["routers"]["knn"]["from_cache"])
    assert from_cache == [False, True, False]


def test_an_unknown_router_is_the_users_error(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(files, "--routers", "hybird") == 1
    assert "did you mean 'hybrid'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--split-by", "datset"), "no question has the label 'datset'. The labels are: none"),
        (("--picture", "report.docx"), "a picture cannot be a .docx file"),
        (("--json", "."), "is a folder"),
        (("--routers", "knn", "--encoder", "static+"), "the encoder 'static+' lacks a name"),
        (("--train-rows", "9", "--seed", "-1"), "should be greater than or equal to 0"),
        (("--routers", "pareto_bandit"), 'pip install "eccos[benchmark]"'),
    ],
)
def test_what_cannot_be_done_is_the_users_error(
    files: tuple[Path, Path],
    options: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pareto_bandit", None)
    monkeypatch.chdir(files[0].parent)
    assert evaluate(files, "--routers", "prior", *options) == 1
    captured = capsys.readouterr()
    assert said in " ".join((captured.out + captured.err).split())


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        ("-1", "cost_usd is the number -1, must be a finite number >= 0"),
        ("Infinity", "cost_usd is the number Infinity, must be a finite number >= 0"),
        ("0.1", "short has cost_usd 0.2 here and 0.1 on line 1"),
    ],
)
def test_a_cost_that_cannot_be_true_is_named_with_its_line(
    tmp_path: Path, cost: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = '{"id": "a", "query": "What?", "outputs": [{"model": "short", "correct": 1, "cost_usd": COST}]}\n'
    data = tmp_path / "data.jsonl"
    data.write_text(line.replace("COST", cost) + line.replace("COST", "0.2"))
    assert run(app, ["evaluate", "--data", str(data), "--routers", "prior"]) == 1
    assert said in capsys.readouterr().err


def test_without_test_questions_it_says_what_to_do(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, _ = split(read_outcomes(files[0]))
    write_outcomes(tmp_path / "train.jsonl", train)
    assert evaluate((tmp_path / "train.jsonl", files[1]), "--routers", "prior") == 1
    assert "there are no test questions with a known outcome after the split" in capsys.readouterr().err


def test_in_a_narrow_terminal_every_name_can_be_read(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert evaluate(files, "--routers", "prior,knn,linear", "--encoder", "surface") == 0
    printed = capsys.readouterr().out
    against = printed[printed.index("Cost share against") :]
    assert "\n prior " in against
    assert "no difference" in " ".join(against.split())
    assert max(len(line) for line in printed.splitlines() if "─" in line) <= 80


def test_a_missing_price_names_file_and_model(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    files[1].write_text('{"short": {"usd_per_million_input_tokens": 1, "usd_per_million_output_tokens": 1}}')
    assert evaluate(files, "--routers", "prior") == 1
    assert "no price for long" in capsys.readouterr().err


def test_missing_data_names_the_file(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    files[0].unlink()
    assert evaluate(files, "--routers", "prior") == 1
    assert "mine.jsonl.gz: no such file" in capsys.readouterr().err


def test_training_data_may_be_a_file_of_its_own(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = OutcomeTable(("t1",), ("another question",), MODELS, np.ones((1, 2)), np.ones((1, 2)), np.ones((1, 2)))
    write_outcomes(tmp_path / "test.jsonl", table)
    assert run(
        app,
        [
            *("evaluate", "--data", str(tmp_path / "test.jsonl"), "--train-data", str(files[0])),
            *("--prices", str(files[1]), "--routers", "prior", "--json", "-"),
        ],
    ) == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert (found["train"], found["test"]) == (300, 1)


def test_online_policies_are_replayed(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "online.json"
    options = ("--online", "--encoder", "surface", "--warm", "50", "--seeds", "2", "--usd-per-quality", "0.01")
    names = ("--routers", "eccos_greedy,best_fixed,full_information")
    assert evaluate(files, *options, *names, "--json", str(target)) == 0
    found = json.loads(target.read_text())
    assert (found["questions"], found["warm"], found["usd_per_quality"]) == (300, 50, 0.01)
    greedy, fixed = found["policies"]["eccos_greedy"], found["policies"]["best_fixed"]
    assert list(greedy["cumulative"]) == ["250"]
    assert greedy["cumulative"]["250"] > fixed["cumulative"]["250"]
    assert "50 questions with all outcomes, then 250 one by one" in capsys.readouterr().out


def test_online_options_that_make_no_sense_are_refused(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(files, "--online", "--usd-per-quality", "0") != 0
    assert "--usd-per-quality is 0.0, must be above 0" in capsys.readouterr().err
    assert evaluate(files, "--online", "--routers", "knn") != 0
    assert "unknown policy 'knn'" in capsys.readouterr().err
    assert evaluate(files, "--online", "--warm", "300", "--encoder", "surface") != 0
    assert "warm is 300" in capsys.readouterr().err
