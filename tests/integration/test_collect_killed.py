"""`kill -9` at random moments: nothing is asked again that had been answered, and the end is the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from collecting_world import POOL
from warm_process import WarmProcess, run_warm

from eccos_core.collecting import journal_path
from eccos_core.collecting.journal import AnswerEntry, GradeEntry, read_journal
from eccos_core.io.outcomes import read_outcomes
from eccos_core.testing import ModelServer

SUPPORT = Path(__file__).parents[1] / "support"
NUMBER_OF_QUESTIONS = 60

DRIVER = """
import asyncio, os, sys
from pathlib import Path
from collecting_world import POOL, World, question, run

log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

async def pause(name, text):
    os.write(log, f"{name}|{' '.join(text.split())}\\n".encode())  # the other side saw the call
    await asyncio.sleep(0.002 + 0.01 * (hash((name, text)) % 7) / 7)

judge = {"name": "judge", "model": "strong"}
def answers(name, text):
    if "Rubric:" in text:
        return "Score: 7"
    return str(int(text.split()[2]) + 1)

questions = [question(n, judge if n % 3 == 0 else "number") for n in range(int(sys.argv[3]))]
asyncio.run(run(Path(sys.argv[1]), World(answers=answers, pause=pause), questions))
"""


def started(out: Path, log: Path) -> WarmProcess:
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"}
    arguments = ["-c", DRIVER, str(out), str(log), str(NUMBER_OF_QUESTIONS)]
    return WarmProcess(arguments, env=environment, stderr=subprocess.PIPE)


def calls_in(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def without_times(out: Path) -> list[Any]:
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    for line in lines:
        for output in line["outputs"]:
            del output["latency_s"]
    return lines


@pytest.mark.parametrize("seed", [1, 2])
def test_a_collection_killed_again_and_again_ends_like_one_that_was_not(tmp_path: Path, seed: int) -> None:
    whole, out, log = tmp_path / "whole.jsonl", tmp_path / "out.jsonl", tmp_path / "calls.log"
    finished = started(whole, tmp_path / "whole.log")
    assert finished.wait() == 0, finished.stderr and finished.stderr.read()
    chance = random.Random(seed)
    kills, answered_before = 0, 0
    while True:
        before = len(calls_in(log))
        process = started(out, log)
        wanted = before + chance.randint(1, 60)
        while process.poll() is None and len(calls_in(log)) < wanted:
            time.sleep(0.001)
        if process.poll() is not None:
            assert process.returncode == 0, process.stderr and process.stderr.read()
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        if not journal_path(out).exists():
            continue  # killed after the end
        entries = read_journal(journal_path(out))
        answered = {
            (entry.model, f"What is {entry.id[1:]} + 1?") for entry in entries if isinstance(entry, AnswerEntry)
        }
        assert len(answered) >= answered_before  # nothing that was answered is lost
        answered_before = len(answered)
        (tmp_path / f"answered.{len(calls_in(log))}.json").write_text(json.dumps(sorted(answered)))
    assert kills >= 3
    assert without_times(out) == without_times(whole)
    assert not journal_path(out).exists()
    calls = calls_in(log)
    for file in tmp_path.glob("answered.*.json"):
        later = set(calls[int(file.name.split(".")[1]) :])
        asked_again = {f"{name}|{text}" for name, text in json.loads(file.read_text())} & later
        assert not asked_again
    slots = sum(model.max_concurrency or 0 for model in POOL)
    assert len(calls) <= len(calls_in(tmp_path / "whole.log")) + kills * slots  # only what was in flight


@pytest.mark.service
def test_the_command_itself_survives_a_kill_and_asks_a_real_server_nothing_twice(tmp_path: Path) -> None:
    questions, out = tmp_path / "q.jsonl", tmp_path / "o.jsonl"
    rows = [
        {"id": f"q{n}", "query": f"[[say The answer is {n}]] Which number?", "reference": n, "grader": "number"}
        for n in range(40)
    ]
    rows[5]["query"] = "[[status 400]] no"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ModelServer(latency_s=0.1) as server:
        entries = [
            {
                "model_name": name,
                "litellm_params": {"model": f"openai/{name}", "api_base": server.url, "api_key": "none"},
                "model_info": {
                    "input_cost_per_token": 1e-6,
                    "output_cost_per_token": 2e-6,
                    "max_parallel_requests": 2,
                    "max_output_tokens": 50,
                    "max_input_tokens": 4000,
                },
            }
            for name in ("one", "two")
        ]
        config = tmp_path / "eccos.yaml"
        config.write_text(json.dumps({"model_list": entries}))
        command = ["-m", "eccos_core.cli", "collect", "--config", str(config)]
        command += ["--questions", str(questions), "--out", str(out), "--json", "--concurrency", "2"]
        dry = run_warm([*command, "--dry-run"])
        assert dry.returncode == 0, dry.stderr
        assert json.loads(dry.stdout)["models"][0]["calls"] == 40
        assert not server.statistics().requests
        process = WarmProcess(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while process.poll() is None and sum(server.statistics().answered.values()) < 25:
            time.sleep(0.02)
        process.kill()
        process.communicate()
        kept = sum(isinstance(entry, GradeEntry) for entry in read_journal(journal_path(out)))
        assert kept >= 20
        again = run_warm(command)
        assert again.returncode == 0, again.stderr
        result = json.loads(again.stdout)
        seen = server.statistics()
        assert sum(seen.requests.values()) <= 80 + 4  # 2 models x 2 calls were in flight
        assert max(seen.most_at_once.values()) <= 2
    assert result["complete"] == 40
    assert result["failed"] == {"one": {"bad_request": 1}, "two": {"bad_request": 1}}
    assert result["mean_score"] == {"one": 1.0, "two": 1.0}
    assert result["spent_usd"] > 0
    table = read_outcomes(out)
    assert table.models == ("one", "two")
    assert len(table) == 40
