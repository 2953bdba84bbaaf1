"""`eccos complete`, `plan --patience` and `batches` over a batch API, and what the optimizer makes of the discount."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from provider_pool import KEY, provider_pool

from eccos_core.backends.provider_batches.state import ProviderBatch, ProviderBatchFolder
from eccos_core.cli import app
from eccos_core.cli.output import DONE, YOUR_INPUT, run
from eccos_core.domain import Budget, Request
from eccos_core.errors import DataError
from eccos_core.router import Router
from eccos_core.testing import ModelServer

pytestmark = [pytest.mark.service, pytest.mark.timeout(120)]
DAY_S = 86_400.0


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(api_key=KEY) as running:
        yield running


def requests_file(folder: Path, count: int) -> str:
    path = folder / "requests.jsonl"
    path.write_text("".join(json.dumps({"id": f"q{n}", "query": f"question {n}"}) + "\n" for n in range(count)))
    return str(path)


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_file_is_planned_and_answered(
    server: ModelServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, asked = str(provider_pool(tmp_path, server.url)), requests_file(tmp_path, 6)
    assert run(app, ["plan", "-r", asked, "-c", config, "--json"]) == DONE
    at_once = printed(capsys)
    assert run(app, ["plan", "-r", asked, "-c", config, "--patience", "24h", "--json"]) == DONE
    patient = printed(capsys)
    assert set(patient["calls"]) == {"small", "large", "large@batch"}
    assert (patient["calls"]["large"], at_once["calls"]["large"]) == (0, patient["calls"]["large@batch"])
    assert patient["cost_usd"] < 0.7 * at_once["cost_usd"]

    out = tmp_path / "answers.jsonl"
    assert run(app, ["complete", "-r", asked, "-o", str(out), "-c", config, "--patience", "24h", "--json"]) == DONE
    captured = capsys.readouterr()
    assert json.loads(captured.out)["answered"] == 6
    assert "submitted" in captured.err
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["id"], line["text"]) for line in lines] == [(f"q{n}", f"You said: question {n}") for n in range(6)]
    assert run(app, ["complete", "-r", asked, "-o", str(out), "-c", config, "--patience", "soon"]) == YOUR_INPUT
    assert "--patience is 'soon', must be a time such as 24h" in capsys.readouterr().err


def test_batches_are_listed_and_cancelled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ModelServer(api_key=KEY, batch_s=600) as server:
        config, asked = str(provider_pool(tmp_path, server.url)), requests_file(tmp_path, 3)
        out = tmp_path / "answers.jsonl"
        work = threading.Thread(
            target=lambda: run(app, ["complete", "-r", asked, "-o", str(out), "-c", config, "--patience", "24h"])
        )
        work.start()
        folder = ProviderBatchFolder(tmp_path / "batches")
        while not any(record.provider_id for record in folder.records()):
            threading.Event().wait(0.05)
        (record,) = folder.records()
        assert run(app, ["batches", "-c", config, "--cancel", record.provider_id]) == DONE
        work.join(timeout=60)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert ["was cancelled" in line["error"] for line in lines] == [True] * 3
    assert run(app, ["batches", "-c", config, "--cancel", "nobody"]) == YOUR_INPUT
    assert "there is no batch 'nobody'" in capsys.readouterr().err
    assert run(app, ["batches", "-c", config, "--json"]) == DONE
    assert printed(capsys)["batches"] == []


def test_a_batch_that_nobody_waits_for_is_cancelled_and_forgotten(
    server: ModelServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(provider_pool(tmp_path, server.url))
    folder = ProviderBatchFolder(tmp_path / "batches")
    left, other = (ProviderBatch.new(model, "place", ("row",), 60) for model in ("large", "renamed"))
    folder.save(left)
    folder.save(other)
    assert run(app, ["batches", "-c", config, "--cancel", left.id]) == DONE
    assert run(app, ["batches", "-c", config, "--cancel", other.id]) == YOUR_INPUT
    assert "belongs to 'renamed', which has no `batch` in its model_info now" in " ".join(
        capsys.readouterr().err.split()
    )
    assert list(folder.records()) == [other]


def test_a_budget_buys_more_with_patience(server: ModelServer, tmp_path: Path) -> None:
    asked = [f"question {number}" for number in range(20)]
    with Router.from_yaml(provider_pool(tmp_path, server.url, floor=0.6)) as router:
        at_once = router.route(asked, policy=Budget(0.004))
        patient = router.complete_batch(asked, policy=Budget(0.004), patience_s=DAY_S)
    assert sum(each.decision.cost_usd for each in patient) <= 0.004
    assert sum(each.decision.quality for each in patient) > 1.2 * sum(each.quality for each in at_once)


def test_equal_requests_and_rules_of_single_requests(server: ModelServer, tmp_path: Path) -> None:
    hurried = Request.of("question 1", deadline_s=5)
    denied = Request.of("question 2", deny=frozenset({"large"}))
    with Router.from_yaml(provider_pool(tmp_path, server.url, floor=0.5)) as router:
        answers = router.complete_batch(
            [*["the same question"] * 5, hurried, denied], policy=Budget(1.0), patience_s=DAY_S
        )
    decided = [each.decision.model for each in answers]
    assert decided == [*["large@batch"] * 5, "large", "small"]
    assert len({each.decision.id for each in answers}) == 7


def test_an_effort_goes_into_the_rows(server: ModelServer, tmp_path: Path) -> None:
    path = provider_pool(tmp_path, server.url, floor=0.5)
    efforts = "      efforts: {low: {reasoning_effort: low}, high: {reasoning_effort: high}}\n      batch:"
    text = path.read_text().replace("      batch:", efforts).replace("history: {outcomes: outcomes.jsonl}", "")
    path.write_text(text)
    kept = tmp_path / "server"
    kept.mkdir()
    with ModelServer(api_key=KEY, folder=kept) as own:
        path.write_text(text.replace(server.url, own.url))
        with Router.from_yaml(path) as router:
            answers = router.complete_batch(
                [Request.of("one", allow=frozenset({"large@high"}))], policy=Budget(1.0), patience_s=DAY_S
            )
        assert answers[0].decision.model == "large@high@batch"
        files = json.loads((kept / "batches.json").read_text())["files"].values()
    rows = [json.loads(line) for file in files for line in file.splitlines()]
    assert [row["body"]["reasoning_effort"] for row in rows if "body" in row] == ["high"]


def test_a_folder_says_what_is_not_its_own(tmp_path: Path) -> None:
    folder = ProviderBatchFolder(tmp_path)
    record = ProviderBatch.new("large", "place", ("row",), 60)
    folder.save(record)
    assert list(folder.records()) == [record]
    held = folder.claim(record.id)
    assert held is not None
    assert folder.claim(record.id) is None, "one process at a time"
    folder.release(record.id, held)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match="no record of a provider batch"):
        list(folder.records())
