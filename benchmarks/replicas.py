"""What sharing limits through Redis costs and keeps: `python benchmarks/replicas.py`. Needs `redis-server`.

One replica decides with and without Redis, to show what a decision costs more. Then four replicas work as processes on
a server that counts the calls it sees, and one of them is killed with kill -9. Last, one busy replica and three that
are nearly idle share a budget and a floor over windows, and one process gets the same traffic.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from redis_server import redis_server
from replica_world import CountingServer, ReplicaProcess

from eccos_core.domain import Model
from eccos_core.workload import WorkloadTracker
from eccos_core.workload.shared import SharedSettings, SharedWorkload

MODELS = [Model(f"model-{number}", 0.0, 0.0, max_concurrency=8) for number in range(10)]
CAPS = {"small": 6, "large": 4}
DECISIONS, BLOCKS, LEASE_S = 400, 5, 5.0
BUSY, IDLE, SECONDS = 80.0, 2.0, 15.0  # requests per second
STREAMS = {"usd_per_hour": 720.0, "floor": 0.75, "window": 200, "seconds": SECONDS}
START_USD = 7.2  # 1 % of the hour's money. Nearly all of it is spent before, so that the pace decides


def time_decisions(workload: WorkloadTracker) -> float:
    """Return the median of a decision with its slot, in ms: the least of five, because other work disturbs."""
    medians = []
    for _ in range(BLOCKS):
        times = []
        for _ in range(DECISIONS):
            started = time.perf_counter()
            with workload.deciding() as free:
                slot = workload.hold(MODELS[int(free.argmax())].name)
                slot.__enter__()
            times.append(time.perf_counter() - started)
            slot.__exit__(None, None, None)
        medians.append(statistics.median(times))
    return 1000 * min(medians)


def measure_one(url: str) -> None:
    """Print what a decision costs."""
    alone = time_decisions(WorkloadTracker(MODELS))
    shared = SharedWorkload(MODELS, SharedSettings(url))
    while not shared.free_slots().all():
        time.sleep(0.01)
    taken = _count_takes(shared)
    together = time_decisions(shared)
    print(f"round trips per decision        {taken():.2f}")
    print(f"added ms per decision (median)  {together - alone:.2f}")
    shared.close()


def _count_takes(workload: SharedWorkload):  # type: ignore[no-untyped-def]
    """Count the round trips of decisions. Heartbeats run beside them, once a second and after an end of a call."""
    run, takes = workload.server.run, [0]

    def count(script: str, key: str, message):  # type: ignore[no-untyped-def]
        takes[0] += "take" in message
        return run(script, key, message)

    workload.server.run = count  # type: ignore[method-assign]
    return lambda: takes[0] / (BLOCKS * DECISIONS)


def measure_fleet(url: str) -> None:
    """Print whether caps hold, and how long the slots of a killed replica are gone."""
    server = CountingServer()
    asked = {"url": url, "name": "fleet", "server": server.port, "caps": CAPS, "lease_s": LEASE_S}
    killed = ReplicaProcess(**asked, seconds=60, call_s=1.0, threads=sum(CAPS.values()))
    others = [ReplicaProcess(**asked, seconds=12, call_s=0.3, fault_share=0.1) for _ in range(3)]
    for each in (killed, *others):
        each.wait_ready()
    killed.go()
    time.sleep(3)  # it holds nearly every slot by now
    for each in others:
        each.go()
    time.sleep(1)
    killed.kill()
    at = time.monotonic()
    results = [each.result() for each in others]
    passed = sum(max(0, server.most[model] - cap) for model, cap in CAPS.items())
    full = [time_s for time_s, calls in server.changes if time_s > at + 0.05 and calls == sum(CAPS.values())]
    back_s = f"{full[0] - at:.1f}" if full else "never"
    print(f"calls of three replicas         {sum(each['done'] for each in results)}")
    print(f"caps passed, as the server sees {passed}")
    print(f"s until a killed replica's slots are back (lease {LEASE_S:.0f} s)  {back_s}")
    server.close()
    assert passed == 0
    assert full


def measure_uneven(url: str, rates: list[float], name: str) -> None:
    """Print what replicas with these requests per second spend and reach, as one line."""
    spent_usd = [0.98 * START_USD, *[0.0] * (len(rates) - 1)]
    replicas = [
        ReplicaProcess(
            "stream_replica.py", url=url, name=name, requests_per_second=rate, spent_usd=usd, seed=seed, **STREAMS
        )
        for seed, (rate, usd) in enumerate(zip(rates, spent_usd, strict=True))
    ]
    for each in replicas:
        each.wait_ready()
    time.sleep(3)  # a new pool hands out room after 2.5 s
    for each in replicas:
        each.go()
    results = [each.result() for each in replicas]
    paid, answers = (_in_order(results, kind) for kind in ("paid", "answers"))
    sums = np.concatenate([[0.0], np.cumsum(answers[:, 1])])
    worst = ((sums[STREAMS["window"] :] - sums[: -STREAMS["window"]]) / STREAMS["window"]).min()
    print(
        f"{name:<32}spent {paid[:, 2].sum():.2f} USD, mean quality {paid[:, 1].mean():.3f} of {len(paid)} | "
        f"floor {STREAMS['floor']}: mean {answers[:, 1].mean():.3f}, worst window {worst:.4f}, "
        f"USD per 1,000 {1000 * answers[:, 2].mean():.2f}"
    )


def _in_order(results: list[dict[str, Any]], kind: str) -> np.ndarray:
    """Return the decisions (time, quality, USD) of all replicas, in the order of time."""
    return np.array(sorted(row for each in results for row in each[kind]))


def main() -> None:
    """Run all."""
    with redis_server() as redis:
        measure_one(redis.url)
        measure_fleet(redis.url)
        measure_uneven(redis.url, [BUSY + 3 * IDLE], "one-process")
        measure_uneven(redis.url, [BUSY, IDLE, IDLE, IDLE], "one-busy-and-three-idle")


if __name__ == "__main__":
    main()
