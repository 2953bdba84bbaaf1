"""Batch APIs of providers against a scripted server: half the price, and nothing lost or paid twice on any fault."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import textwrap
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from provider_pool import KEY, provider_pool
from waiting import wait_until
from warm_process import WarmProcess, run_warm

from eccos_core.domain import Completion
from eccos_core.errors import BackendError, InputError, ProviderBatchError
from eccos_core.router import Router
from eccos_core.testing import BatchFaults, ModelServer

wait_for = partial(wait_until, timeout_s=30.0)

pytestmark = [pytest.mark.service, pytest.mark.timeout(120)]
DAY_S = 86_400.0
PROVIDERS = ("openai", "anthropic")


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(api_key=KEY) as running:
        yield running


def questions(count: int, said: str = "") -> list[str]:
    return [f"question {number} {said}".strip() for number in range(count)]


def kept_files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "batches").glob("*"))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_batch_with_patience_costs_half(server: ModelServer, tmp_path: Path, provider: str) -> None:
    server.reset()
    heard: list[str] = []
    with Router.from_yaml(provider_pool(tmp_path, server.url, provider=provider)) as router:
        patient = router.complete_batch(questions(30), patience_s=DAY_S, report=heard.append)
        seen = server.statistics()
        at_once = router.complete_batch(questions(30))
        assert [each.text for each in patient] == [f"You said: question {number}" for number in range(30)]
        arms = [each.decision.model for each in patient]
        assert arms.count("large@batch") >= 29
        assert (seen.batches, seen.batched["large"]) == ({"large": 1}, arms.count("large@batch"))
        batched = [each for each in patient if each.decision.model == "large@batch"]
        for each in batched:
            assert each.model == "large", "the answer is that of the model"
            assert each.cost_usd == pytest.approx(0.5 * (each.input_tokens * 1e-5 + each.output_tokens * 4e-5))
            assert "50% off, within 1 h" in each.decision.reason
            assert "large@batch" not in each.decision.fallbacks
        expected = [each.decision.cost_usd for each in at_once if each.model == "large"]
        assert batched[0].decision.cost_usd == pytest.approx(0.5 * expected[0], rel=0.2)
        assert sum(each.cost_usd for each in patient) < 0.6 * sum(each.cost_usd for each in at_once)
        assert kept_files(tmp_path) == [], "what was given out is forgotten"
        assert any("submitted" in each for each in heard)
        assert any("30 done" in each or "29 done" in each for each in heard)
        logged = router.decision_store.log
        assert logged is not None
        router.record(patient[0].decision.id, 1.0)
        logged.flush()
        entry = logged.get(batched[0].decision.id)
        assert entry is not None
        assert (entry.decided_model, entry.model) == ("large@batch", "large")


async def test_the_asynchronous_twin_does_the_same(server: ModelServer, tmp_path: Path) -> None:
    with Router.from_yaml(provider_pool(tmp_path, server.url)) as router:
        answers = await router.acomplete_batch(questions(12), patience_s=DAY_S)
    assert [each.text for each in answers] == [f"You said: question {number}" for number in range(12)]
    assert "large@batch" in {each.decision.model for each in answers}


def test_live_requests_and_short_patience_never_use_a_batch(server: ModelServer, tmp_path: Path) -> None:
    server.reset()
    with Router.from_yaml(provider_pool(tmp_path, server.url)) as router:
        assert router.complete("question").decision.model in ("small", "large")
        short = router.complete_batch(questions(4), patience_s=60)
        assert {each.decision.model for each in short} <= {"small", "large"}
        with pytest.raises(InputError, match="patience_s is -1"):
            router.complete_batch(["x"], patience_s=-1)
        with pytest.raises(InputError, match="pack=True stands beside patience_s"):
            router.complete_batch(["x"], patience_s=DAY_S, pack=True)
    assert server.statistics().batches == {}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_rows_that_fail_or_expire_are_called_at_once(server: ModelServer, tmp_path: Path, provider: str) -> None:
    asked = [*questions(6), "slow [[expire]]", "broken [[status 500]] [[times 1]]", "wrong [[status 400]]"]
    with Router.from_yaml(provider_pool(tmp_path, server.url, provider=provider)) as router:
        answers = router.complete_batch(asked, patience_s=DAY_S, return_exceptions=True)
    assert [each.text for each in answers[:6] if isinstance(each, Completion)] == [
        f"You said: question {number}" for number in range(6)
    ]
    slow, broken, wrong = answers[6:]
    assert isinstance(slow, Completion)
    assert isinstance(broken, Completion)
    assert (slow.text, broken.text) == ("You said: slow", "You said: broken")
    assert slow.attempts == 2, "the batch, and then a call"
    assert slow.cost_usd in (
        pytest.approx(slow.input_tokens * usd + slow.output_tokens * 4 * usd) for usd in (1e-5, 1e-6)
    ), "at its usual price"
    assert isinstance(wrong, BackendError), "no other model can answer a request that is wrong"
    assert "scripted error 400" in str(wrong)
    assert kept_files(tmp_path) == []


def test_a_rejected_file_is_called_at_once(server: ModelServer, tmp_path: Path) -> None:
    asked = [*questions(3), "odd [[reject]]"]
    with Router.from_yaml(provider_pool(tmp_path, server.url)) as router:
        answers = router.complete_batch(asked, patience_s=DAY_S)
    assert [each.text for each in answers][3] == "You said: odd"
    assert "not parseable" in answers[0].decision.reason
    assert kept_files(tmp_path) == []


def test_a_wrong_key_is_an_error_without_the_key(server: ModelServer, tmp_path: Path) -> None:
    path = provider_pool(tmp_path, server.url)
    wrong = "sk-wrong-abcdefgh12345678"
    path.write_text(path.read_text().replace("os.environ/PROVIDER_KEY", wrong))
    with Router.from_yaml(path) as router:
        found = router.complete_batch(questions(2), patience_s=DAY_S, return_exceptions=True)
    assert all(isinstance(each, Exception) for each in found)
    assert wrong not in " ".join(map(str, found))
    assert kept_files(tmp_path) == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_lost_answer_to_a_submission_submits_nothing_twice(tmp_path: Path, provider: str) -> None:
    with ModelServer(api_key=KEY, batch_faults=BatchFaults(lost_answers=1)) as server:
        with Router.from_yaml(provider_pool(tmp_path, server.url, provider=provider)) as router:
            answers = router.complete_batch(questions(5), patience_s=DAY_S)
        assert server.statistics().batches == {"large": 1}
    assert [each.text for each in answers] == [f"You said: question {number}" for number in range(5)]


def test_a_server_that_is_busy_or_restarts_is_waited_for(tmp_path: Path) -> None:
    port = free_port()
    kept = tmp_path / "server"
    kept.mkdir()
    settings = {"api_key": KEY, "port": port, "folder": kept, "batch_s": 2.0}
    server = ModelServer(**settings, batch_faults=BatchFaults(refused_looks=2))  # type: ignore[arg-type]
    heard: list[str] = []
    with Router.from_yaml(provider_pool(tmp_path, server.url)) as router:
        found: list[Completion] = []
        work = threading.Thread(
            target=lambda: found.extend(router.complete_batch(questions(5), patience_s=DAY_S, report=heard.append))
        )
        work.start()
        wait_for(lambda: any("in_progress" in each for each in heard))
        server.close()
        time.sleep(0.3)
        server = ModelServer(**settings)  # type: ignore[arg-type]
        work.join(timeout=60)
    server.close()
    assert [each.text for each in found] == [f"You said: question {number}" for number in range(5)]
    assert {each.decision.model for each in found} == {"large@batch"}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_batch_is_cancelled_on_request(tmp_path: Path, provider: str) -> None:
    with ModelServer(api_key=KEY, batch_s=600) as server:
        with Router.from_yaml(provider_pool(tmp_path, server.url, provider=provider)) as router:
            heard: list[str] = []

            def cancel() -> None:
                wait_for(lambda: any("in_progress" in each for each in heard))
                batches = router.parts.provider_batches
                batches.cancel(next(iter(batches.folder.records())).provider_id)  # type: ignore[union-attr,attr-defined]

            worker = threading.Thread(target=cancel)
            worker.start()
            found = router.complete_batch(questions(4), patience_s=DAY_S, return_exceptions=True, report=heard.append)
            worker.join()
        assert server.statistics().requests == {}, "nobody asked to pay the usual price"
    for each in found:
        assert isinstance(each, ProviderBatchError)
        assert each.is_cancelled
    assert kept_files(tmp_path) == []


def test_when_patience_ends_the_rest_is_called_at_once(tmp_path: Path) -> None:
    with ModelServer(api_key=KEY, batch_s=600) as server:
        path = provider_pool(tmp_path, server.url)
        path.write_text(path.read_text().replace("within_s: 3600", "within_s: 0.5"))
        with Router.from_yaml(path) as router:
            answers = router.complete_batch(questions(4), patience_s=1.0)
        assert [each.text for each in answers] == [f"You said: question {number}" for number in range(4)]
        assert server.statistics().answered["large"] == 4


SCRIPT = textwrap.dedent(
    """
    import json, sys
    from eccos_core.router import Router
    with Router.from_yaml(sys.argv[1]) as router:
        asked = [f"question {number}" for number in range(8)]
        answers = router.complete_batch(asked, patience_s=86400, report=lambda said: print(said, flush=True))
        print(json.dumps([[each.text, each.decision.model] for each in answers]), flush=True)
    """
)


def test_a_process_that_was_killed_finds_its_batch_again(tmp_path: Path) -> None:
    with ModelServer(api_key=KEY, batch_s=6.0) as server:
        path = provider_pool(tmp_path, server.url)
        command = ["-c", SCRIPT, str(path)]
        first = WarmProcess(command, stdout=subprocess.PIPE)
        assert first.stdout is not None
        assert any("in_progress" in line for line in iter(first.stdout.readline, "")), "it waits for its batch"
        first.send_signal(signal.SIGKILL)
        first.wait()
        first.stdout.close()
        kept = list((tmp_path / "batches").glob("*.json"))
        assert len(kept) == 1
        content = kept[0].read_text()
        assert KEY not in content
        assert "question" not in content
        second = run_warm(command, check=True)
        assert server.statistics().batches == {"large": 1}, "nothing is submitted twice"
        answers = json.loads(second.stdout.splitlines()[-1])
    assert answers == [[f"You said: question {number}", "large@batch"] for number in range(8)]
    assert kept_files(tmp_path) == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_kill_between_submission_and_record_submits_nothing_twice(tmp_path: Path, provider: str) -> None:
    """The record that a killed process leaves is one without the provider's id."""
    with ModelServer(api_key=KEY, batch_s=1.0) as server:
        with Router.from_yaml(provider_pool(tmp_path, server.url, provider=provider)) as router:
            heard: list[str] = []
            work = threading.Thread(
                target=lambda: router.complete_batch(
                    [*questions(5)], patience_s=DAY_S, report=heard.append, return_exceptions=True
                )
            )
            work.start()
            wait_for(lambda: any("in_progress" in each for each in heard))
            record = json.loads(next((tmp_path / "batches").glob("*.json")).read_text())
            work.join()
            (tmp_path / "batches" / f"{record['id']}.json").write_text(json.dumps({**record, "provider_id": ""}))
            answers = router.complete_batch(questions(5), patience_s=DAY_S)
        assert server.statistics().batches == {"large": 1}
    assert [each.text for each in answers] == [f"You said: question {number}" for number in range(5)]
    assert kept_files(tmp_path) == []


def test_an_error_that_is_raised_loses_no_answer_that_was_paid(server: ModelServer, tmp_path: Path) -> None:
    server.reset()
    asked = [*questions(5), "wrong [[status 400]]"]
    with Router.from_yaml(provider_pool(tmp_path, server.url)) as router:
        with pytest.raises(BackendError, match="scripted error 400"):
            router.complete_batch(asked, patience_s=DAY_S)
        again = router.complete_batch(asked, patience_s=DAY_S, return_exceptions=True)
    assert [each.text for each in again[:5] if isinstance(each, Completion)] == [
        f"You said: question {number}" for number in range(5)
    ]
    assert server.statistics().batches == {"large": 1}


async def test_a_task_that_is_cancelled_leaves_its_batch_to_the_next_call(tmp_path: Path) -> None:
    with ModelServer(api_key=KEY, batch_s=2.0) as server:
        with Router.from_yaml(provider_pool(tmp_path, server.url)) as router:
            heard: list[str] = []
            task = asyncio.create_task(router.acomplete_batch(questions(5), patience_s=DAY_S, report=heard.append))
            await asyncio.to_thread(wait_for, lambda: any("in_progress" in each for each in heard))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            answers = await router.acomplete_batch(questions(5), patience_s=DAY_S)
        assert server.statistics().batches == {"large": 1}
    assert [each.text for each in answers] == [f"You said: question {number}" for number in range(5)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
