"""`eccos init` writes a file that loads, never a secret, and never over another file."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from eccos_core.cli import app
from eccos_core.cli.output import DONE, YOUR_INPUT, run
from eccos_core.config import load_config
from eccos_core.domain import QualityFloor
from eccos_core.workflows.starter_config import StarterPool, write_starter_config

HOSTED = ["--models", "gpt-4o-mini,claude-haiku-4-5", "--yes", "--no-probe"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "hunter2-openai")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "hunter2-anthropic")
    return tmp_path


def floor(file: Path) -> float:
    policy = load_config(file).policy
    assert isinstance(policy, QualityFloor)
    return policy.alpha


def test_it_writes_a_file_that_loads_with_variables_for_keys(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["init", *HOSTED]) == DONE
    text = (here / "eccos.yaml").read_text()
    assert "api_key: os.environ/OPENAI_API_KEY" in text
    assert "api_key: os.environ/ANTHROPIC_API_KEY" in text
    assert "hunter2" not in text
    config = load_config(here / "eccos.yaml")
    assert [model.name for model in config.models] == ["gpt-4o-mini", "claude-haiku-4-5"]
    assert config.warnings == ()
    said = capsys.readouterr()
    assert "from public benchmark results" in said.out
    assert "No problems found" in said.out
    assert "hunter2" not in said.out + said.err


def test_what_matters_sets_the_floor_between_the_models(here: Path) -> None:
    floors = []
    for priority in ("money", "balance", "answers"):
        assert run(app, ["init", *HOSTED, "--priority", priority, "--out", f"{priority}.yaml"]) == DONE
        floors.append(floor(here / f"{priority}.yaml"))
    assert 0.63 < floors[0] < floors[1] < floors[2] < 0.86


def test_it_asks_three_things(here: Path) -> None:
    answers = "llama3.1, qwen\nhttp://localhost:8000/v1\nmoney\n"
    result = CliRunner().invoke(app, ["init", "--no-probe"], input=answers)
    assert result.exit_code == 0, result.output
    entries = yaml.safe_load((here / "eccos.yaml").read_text())["model_list"]
    assert [entry["litellm_params"] for entry in entries] == [
        {"model": f"openai/{name}", "api_base": "http://localhost:8000/v1", "api_key": "none"}
        for name in ("llama3.1", "qwen")
    ]


def test_a_file_that_is_there_is_overwritten_only_when_you_say_so(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = here / "eccos.yaml"
    file.write_text("mine")
    assert run(app, ["init", *HOSTED]) == YOUR_INPUT
    assert "--overwrite" in capsys.readouterr().err
    refused = CliRunner().invoke(app, ["init", "--models", "gpt-4o-mini", "--no-probe"], input="n\n")
    assert refused.exit_code == 1
    assert file.read_text() == "mine"
    assert list(here.iterdir()) == [file]
    assert run(app, ["init", *HOSTED, "--overwrite"]) == DONE
    assert "gpt-4o-mini" in file.read_text()


def test_a_litellm_file_stays_as_it_is_and_is_included(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proxy = here / "proxy" / "litellm.yaml"
    proxy.parent.mkdir()
    text = (
        "# ours\nmodel_list:\n"
        "  - {model_name: a, litellm_params: {model: openai/gpt-4o, api_key: hunter2-literal}}\n"
        "  - {model_name: b, litellm_params: {model: openai/gpt-4o-mini, api_key: os.environ/OPENAI_API_KEY}}\n"
    )
    proxy.write_text(text)
    assert run(app, ["init", "--from", str(proxy), "--yes", "--no-probe"]) == DONE
    written = (here / "eccos.yaml").read_text()
    assert "include: [proxy/litellm.yaml]" in written
    assert proxy.read_text() == text
    assert [model.name for model in load_config(here / "eccos.yaml").models] == ["a", "b"]
    said = capsys.readouterr()
    assert "hunter2" not in written + said.out + said.err


@pytest.mark.parametrize("broken", ["model_list: [", "model_list: [{model_name: a}]", "eccos: {}\nmodel_list: []"])
def test_a_litellm_file_with_problems_is_named_and_nothing_is_written(
    here: Path, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "litellm.yaml").write_text(broken)
    assert run(app, ["init", "--from", "litellm.yaml", "--yes", "--no-probe"]) == YOUR_INPUT
    assert "eccos.yaml" in capsys.readouterr().err
    assert [file.name for file in here.iterdir()] == ["litellm.yaml"]


def test_a_variable_without_a_value_is_named_and_the_file_is_kept(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert run(app, ["init", *HOSTED]) == YOUR_INPUT
    assert "ANTHROPIC_API_KEY" in capsys.readouterr().err
    assert (here / "eccos.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--yes"], "--models is missing"),
        (["--models", "a b", "--yes"], "cannot be the name of a model"),
        (["--models", "gpt-4o,gpt-4o", "--yes"], "named twice"),
        (["--models", "mystery", "--yes"], "PROVIDER/mystery"),
        (["--models", "m", "--at", "localhost", "--yes"], "http://localhost:8000/v1"),
        (["--models", "m", "--at", "http://me:hunter2@host/v1", "--yes"], "holds credentials"),
        (["--models", "gpt-4o", "--key-variable", "sk-hunter2", "--yes"], "never the key itself"),
        (["--models", "gpt-4o", "--priority", "mony", "--yes"], "did you mean 'money'"),
        (["--from", "none.yaml", "--yes"], "no such file"),
        (["--from", "a.yaml", "--models", "m", "--yes"], "Leave out --models"),
    ],
)
def test_bad_answers_get_an_error_that_says_how_to_go_on(
    here: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, ["init", *arguments, "--no-probe"]) == YOUR_INPUT
    said = capsys.readouterr().err
    assert told in " ".join(said.split())
    assert "hunter2" not in said
    assert list(here.iterdir()) == []


def test_names_that_yaml_would_misread_stay_names(here: Path) -> None:
    write_starter_config(here / "odd.yaml", StarterPool(("openai/1.5", "azure/1.5"), key_variable="K"), "money")
    entries = yaml.safe_load((here / "odd.yaml").read_text())["model_list"]
    assert [entry["model_name"] for entry in entries] == ["openai/1.5", "azure/1.5"]
    assert {entry["litellm_params"]["api_key"] for entry in entries} == {"os.environ/K"}
