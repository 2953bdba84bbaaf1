"""kill -9 in the middle of traffic: what the decision log had committed is there, and it goes on."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from eccos_core.decision_log import DecisionLog
from eccos_core.domain import Model
from eccos_core.routing.decision_store import DecisionStore
from eccos_core.testing import ScriptedBackend, scripted_router

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]

TRAFFIC = """
import asyncio, json, sys
from dataclasses import replace
from eccos_core.decision_log import DecisionLog
from eccos_core.domain import Model
from eccos_core.errors import AttemptsExhausted, BackendError
from eccos_core.routing.decision_store import DecisionStore
from eccos_core.testing import ScriptedBackend, scripted_router

POOL = [Model("small", 1e-6, 1e-6, max_concurrency=16), Model("large", 1e-5, 1e-5, max_concurrency=16)]
busy = BackendError("small", "busy", retryable=True, kind="rate_limit")
backend = ScriptedBackend({"small": [busy, "yes", "no"] * 100_000, "large": ["yes"]}, latency_s=0.001)
router = scripted_router(backend, POOL, {"": [0.5, 0.5]}, deadline_s=60)
log = DecisionLog(sys.argv[1])
router.swap(replace(router.parts, decision_store=DecisionStore(log=log)))
answered = []

async def client(number):
    while True:
        completion = await router.acomplete(f"question {number}")
        answered.append([completion.decision.id, completion.model])

async def acknowledge():
    while True:
        await asyncio.sleep(0.05)
        some = list(answered)
        answered.clear()
        assert await asyncio.to_thread(log.flush, 60)
        print(json.dumps(some), flush=True)  # these are on disk

async def main():
    await asyncio.gather(acknowledge(), *(client(number) for number in range(24)))

asyncio.run(main())
"""


def test_a_router_killed_in_the_middle_of_traffic_has_lost_no_decision_that_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "decisions.sqlite"
    process = subprocess.Popen([sys.executable, "-c", TRAFFIC, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged: dict[str, str] = {}
    while len(acknowledged) < 300:
        line = process.stdout.readline()
        assert line, "the traffic ended by itself"
        acknowledged |= dict(json.loads(line))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    log = DecisionLog(path)
    kept = {entry.id: entry for entry in log.entries(last=1_000_000)}
    assert acknowledged.keys() <= kept.keys()
    assert all(kept[each].model == model for each, model in acknowledged.items())
    assert any(attempt.kind == "rate_limit" for entry in kept.values() for attempt in entry.attempts)

    router = scripted_router(ScriptedBackend({"small": ["again"]}), [Model("small", 1e-6, 1e-6)], {"": [0.5]})
    router.swap(replace(router.parts, decision_store=DecisionStore(log=log)))
    decision = router.complete("and after?").decision
    router.record(decision.id, 1.0)
    router.record(next(iter(acknowledged)), 0.0)
    log.close()
    assert log.get(next(iter(acknowledged))).label == 0.0  # type: ignore[union-attr]
    assert len(log.entries(last=1_000_000)) == len(kept) + 1
