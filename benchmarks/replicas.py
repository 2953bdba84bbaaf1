"""What sharing limits through Redis costs and keeps: `python benchmarks/replicas.py`. Needs `redis-server`.

One replica decides with and without Redis, to show what a decision costs more. Then four replicas work as processes on
a server that counts the calls it sees, and one of them is killed with kill -9.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from redis_server import redis_server
from replica_world import CountingServer, ReplicaProcess

from eccos_core.domain import Model
from eccos_core.workload import WorkloadTracker
from eccos_core.workload.shared import SharedSettings, SharedWorkload

MODELS = [Model(f"model-{number}", 0.0, 0.0, max_concurrency=8) for number in range(10)]
CAPS = {"small": 6, "large": 4}
DECISIONS, BLOCKS, LEASE_S = 400, 5, 5.0


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


def main() -> None:
    """Run both."""
    with redis_server() as redis:
        measure_one(redis.url)
        measure_fleet(redis.url)


if __name__ == "__main__":
    main()
