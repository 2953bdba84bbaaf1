"""The frame of the command line, seen through `eccos check` and `eccos version`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from eccos_core.cli import app
from eccos_core.cli.output import DONE, INTERRUPTED, OUR_FAULT, YOUR_INPUT, run
from eccos_core.errors import DataError, InfeasibleError

GOOD = """
model_list:
- {model_name: small, litellm_params: {model: openai/gpt-4o-mini}, model_info: {max_concurrency: 4, tags: [eu]}}
- {model_name: large, litellm_params: {model: gpt-4o, rpm: 3}}
- {model_name: own, litellm_params: {model: openai/mine}, model_info: {free: true, max_input_tokens: 8192}}
- {model_name: "*", litellm_params: {model: "*"}}
eccos: {policy: {budget_usd: 2}, encoder: [minilm, static], history: in_memory}
"""
BAD = """
model_list:
- {model_name: small, litellm_params: {model: openai/mine, rpm: 0}}
eccos: {polcy: {}}
"""


@pytest.fixture
def good(tmp_path: Path) -> str:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    return str(file)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    return str(file)


# ------------------------------------------------------------------ eccos check


@pytest.mark.parametrize("width", ["80", "120"])
def test_check_prints_the_pool_as_a_table_that_fits(
    good: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    assert run(app, ["check", good]) == DONE
    told = capsys.readouterr().out
    table = [line.rstrip() for line in told.splitlines()[1 : told.splitlines().index("policy: at most 2 USD a batch")]]
    assert max(map(len, table)) <= int(width)
    rows = {line.split()[0]: line.split() for line in table if line.strip()}
    assert rows["model"] == ["model", "provider", "in", "out", "cap", "context", "can"]
    assert rows["small"][1:6] == ["openai", "0.15", "0.60", "4", "128k"]
    assert rows["large"][1:6] == ["openai", "2.50", "10.00", "-", "128k"]
    assert rows["own"][1:] == ["openai", "free", "free", "-", "8.19k", "text"]
    assert "encoder: minilm + static minilm (384), predictor: hybrid, history: in memory, optimizer: auto" in told
    assert "Warning model_list[3] '*': left out of the pool" in told


def test_check_prints_every_problem_and_leaves_with_one(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["check", bad]) == YOUR_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line.strip() for line in captured.err.splitlines()]
    assert lines[0] == f"{bad}: 2 problems"
    assert "model_list[0] 'small'.litellm_params.rpm" in lines
    assert "is 0, must be a whole number >= 1" in lines
    assert "eccos.polcy" in lines


def test_check_as_json_has_the_pool_and_nothing_else_on_standard_output(
    good: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, ["check", good, "--json"]) == DONE
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert captured.err == ""
    assert (told["ok"], told["problems"], len(told["warnings"])) == (True, [], 1)
    assert told["policy"] == {"kind": "Budget", "usd": 2.0, "on_infeasible": "error"}
    small = told["models"][0]
    assert (small["name"], small["provider"], small["max_concurrency"]) == ("small", "openai", 4)
    assert small["usd_per_million_input_tokens"] == 0.15
    assert small["tags"] == ["eu"]
    assert "tools" in small["capabilities"]


def test_check_as_json_has_every_problem(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["check", bad, "--json"]) == YOUR_INPUT
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert captured.err == ""
    assert told["ok"] is False
    assert {
        "place": "model_list[0] 'small'.litellm_params.rpm",
        "message": "is 0, must be a whole number >= 1",
    } in told["problems"]
    assert len(told["problems"]) == 2


PROTECTED = """
model_list:
- {model_name: small, litellm_params: {model: openai/gpt-4o-mini}}
- {model_name: own, litellm_params: {model: openai/mine}}
guardrails: [{guardrail_name: pii, litellm_params: {guardrail: presidio, mode: pre_call}}]
router_settings: {fallbacks: [{small: [own]}]}
"""


def test_check_tells_rules_that_do_not_hold_before_anything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text(PROTECTED)
    assert run(app, ["check", str(file)]) == DONE
    told = capsys.readouterr().out
    rules, warnings = told.index("NOT APPLIED guardrails"), told.index("Warning model_list[1] 'own': left out")
    assert rules < warnings
    assert "NOT APPLIED router_settings.fallbacks" in told
    assert "2 rules of your file do not hold here" in told
    assert "No problems found" not in told

    assert run(app, ["check", str(file), "--json"]) == DONE
    found = json.loads(capsys.readouterr().out)
    assert (len(found["not_applied"]), len(found["warnings"]), found["without_outcomes"]) == (2, 1, ["small"])


@pytest.mark.parametrize(
    ("eccos", "second"),
    [("{}", "eccos ingest outcomes.jsonl --config"), ("{history: in_memory}", "history: {outcomes: outcomes.jsonl}")],
)
def test_check_says_what_is_assumed_and_how_to_learn_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], eccos: str, second: str
) -> None:
    file = tmp_path / "new.yaml"
    file.write_text(f"model_list: [{{model_name: a, litellm_params: {{model: gpt-4o}}}}]\neccos: {eccos}\n")
    assert run(app, ["check", str(file)]) == DONE
    told = capsys.readouterr().out
    assert "a starts at 0.73, from public benchmark results" in told
    steps = [told.index(words) for words in ("eccos collect --questions", second, "eccos fit --out fitted")]
    assert steps == sorted(steps)


@pytest.mark.parametrize("eccos", ["{history: {path: .}}", "{predictor: {artifact: fitted}}"])
def test_check_is_silent_about_outcomes_that_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], eccos: str
) -> None:
    file = tmp_path / "filled.yaml"
    file.write_text(f"model_list: [{{model_name: a, litellm_params: {{model: gpt-4o}}}}]\neccos: {eccos}\n")
    assert run(app, ["check", str(file)]) == DONE
    assert "No outcomes" not in capsys.readouterr().out


def test_names_in_a_file_are_never_read_as_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "eccos.yaml"
    file.write_text("model_list: [{model_name: '[red]m[/red]', litellm_params: {model: gpt-4o}}]")
    assert run(app, ["check", str(file)]) == DONE
    assert "[red]m[/red]" in capsys.readouterr().out


# ------------------------------------------------------------------ the frame


def test_version_is_told_in_words_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["version"]) == DONE
    assert capsys.readouterr().out.startswith("eccos 0.")
    assert run(app, ["version", "--json"]) == DONE
    assert set(json.loads(capsys.readouterr().out)) >= {"eccos", "python", "litellm"}


@pytest.mark.parametrize("arguments", [["chek"], ["check"], ["check", "a", "b"], ["check", "a", "--nope"]])
def test_a_command_line_that_cannot_be_read_is_your_input(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, arguments) == YOUR_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Usage: eccos" in captured.err


def app_that_raises(error: BaseException) -> typer.Typer:
    failing = typer.Typer()

    @failing.command()
    def command(json: bool = typer.Option(False, "--json")) -> None:
        raise error

    return failing


@pytest.mark.parametrize(
    "error",
    [DataError("a.jsonl", "score is 2", line=3), InfeasibleError("quality floor", 0.9, 0.8, "floor out of reach")],
)
def test_an_error_of_ours_is_a_message_and_one(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app_that_raises(error), []) == YOUR_INPUT
    captured = capsys.readouterr()
    assert captured.err == f"Error: {error}\n"
    assert captured.out == ""


def test_an_error_is_json_where_json_was_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app_that_raises(DataError("a.jsonl", "score is 2", line=3)), ["--json"]) == YOUR_INPUT
    told = json.loads(capsys.readouterr().out)
    assert told == {"error": {"type": "DataError", "message": "a.jsonl:3: score is 2"}}


def test_a_fault_of_ours_is_two_without_a_traceback_and_without_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ECCOS_DEBUG", raising=False)
    assert run(app_that_raises(KeyError("Bearer sk-abcdefgh12345678")), []) == OUR_FAULT
    told = capsys.readouterr().err
    assert "This is a fault of eccos, not of your input: KeyError" in told
    assert "Run it again with ECCOS_DEBUG=1" in told
    assert "Traceback" not in told
    assert "sk-abcdefgh12345678" not in told


def test_the_traceback_is_there_when_asked_for_and_has_no_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECCOS_DEBUG", "1")
    assert run(app_that_raises(KeyError("Bearer sk-abcdefgh12345678")), []) == OUR_FAULT
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "sk-abcdefgh12345678" not in told


def test_an_interrupt_is_said_and_has_its_own_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app_that_raises(KeyboardInterrupt()), []) in {INTERRUPTED, YOUR_INPUT}
    assert "Traceback" not in capsys.readouterr().err


def test_help_lists_the_commands_and_loads_nothing_heavy() -> None:
    program = (
        "import sys; from eccos_core.cli import main\n"
        "sys.argv = ['eccos', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'litellm', 'chromadb', 'ortools', 'transformers', 'sklearn', 'pydantic', 'matplotlib'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "Answer every request with the cheapest model that is good enough" in told
    assert " check " in told
    assert " version " in told
    assert "LOADED []" in told


def test_no_command_prints_the_help() -> None:
    done = subprocess.run([sys.executable, "-m", "eccos_core.cli"], capture_output=True, text=True, check=False)
    assert "Usage: eccos" in done.stdout + done.stderr


def test_output_that_nobody_reads_any_more_is_no_fault(good: str) -> None:
    command = f"{sys.executable} -m eccos_core.cli check {good} --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout == "{"
    assert done.stderr == ""
