"""`eccos keys`: make, list and revoke keys; and `eccos serve`, which wants a key for the network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from eccos_core.cli import app
from eccos_core.cli.output import run
from eccos_core.server.keys import KeyDatabase


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an `eccos.yaml`, in which the commands run."""
    document = {
        "model_list": [
            {"model_name": "m", "litellm_params": {"model": "eccos-local/pocket-small"}, "model_info": {"free": True}}
        ],
        "eccos": {
            "tenants": {"search": {"deny": []}},
            "history": "in_memory",
            "predictor": "prior",
            "encoder": "static",
        },
    }
    (tmp_path / "eccos.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ECCOS_KEYS_DATABASE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")  # a table cuts what does not fit
    return tmp_path


def eccos(*arguments: str) -> int:
    return run(app, list(arguments))


def test_a_key_is_shown_once_and_then_only_by_its_id(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        eccos("keys", "create", "ana", "--tenant", "search", "--usd-per-month", "5", "--requests-per-minute", "60") == 0
    )
    secret = capsys.readouterr().out.strip()
    database = KeyDatabase(folder / ".eccos" / "keys.sqlite")
    key = database.check(secret)
    database.close()
    assert key is not None
    assert (key.rules.name, key.rules.tenant, key.rules.usd_per_month) == ("ana", "search", 5.0)
    assert eccos("keys", "list") == 0
    listed = capsys.readouterr().out
    assert key.id in listed
    assert "60 requests" in listed
    assert secret[-43:] not in listed


def test_a_key_is_made_listed_and_revoked_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--admin", "--expires", "90d", "--model", "m", "--policy", "cheap,best", "--tokens-per-minute", "1000")
    assert eccos("keys", "create", "ops", *given, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["is_admin"] is True
    assert (made["models"], made["policies"], made["tokens_per_minute"]) == (["m"], ["best", "cheap"], 1000)
    assert eccos("keys", "revoke", made["id"], "--json") == 0
    assert json.loads(capsys.readouterr().out)["status"] == "revoked"
    assert eccos("keys", "list", "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["id"], listed["status"], listed["spent_usd"]) == (made["id"], "revoked", 0.0)
    assert "key" not in listed


def test_another_database_needs_no_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert eccos("keys", "create", "ana", "--database", "k.sqlite", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    monkeypatch.setenv("ECCOS_KEYS_DATABASE", "k.sqlite")
    assert eccos("keys", "list", "--json") == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)] == [made["id"]]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("create", "a", "--model", "n"), "--model is 'n'"),
        (("create", "a", "--policy", "cheep"), "did you mean 'cheap'"),
        (("create", "a", "--tenant", "serch"), "did you mean 'search'"),
        (("create", "a", "--expires", "soon"), "must be a time from now such as"),
        (("create", "a", "--expires", "2020-01-01"), "which is over"),
        (("create", ""), "name must be"),
        (("create", "a", "--usd-per-month", "1e12"), "usd_per_month is 1e+12, must be from 0 to 1e+09"),
        (("revoke", "nobody"), "no key has the id 'nobody'"),
        (("list", "--database", "mysql://u:hidden-word@h/d"), "must be a file for SQLite"),
    ],
)
def test_what_is_wrong_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], told: str
) -> None:
    assert eccos("keys", *given) == 1
    said = capsys.readouterr()
    assert told in " ".join(said.err.split())
    assert "hidden-word" not in said.err + said.out


def test_no_server_for_the_network_without_a_key(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert eccos("serve", "--host", "0.0.0.0", "--port", "0") == 1
    assert "Create a key with `eccos keys create`" in " ".join(capsys.readouterr().err.split())


def test_the_host_of_the_file_needs_a_key_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = yaml.safe_load((folder / "eccos.yaml").read_text())
    document["eccos"]["server"] = {"host": "0.0.0.0"}
    (folder / "eccos.yaml").write_text(yaml.safe_dump(document))
    assert eccos("serve") == 1
    assert "no key exists" in " ".join(capsys.readouterr().err.split())
