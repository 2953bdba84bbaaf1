"""A serving engine, pass by pass: continuous batching, chunked prefill, a limited cache, and its schedulers."""

from eccos_core.simulation.serving.cluster import EngineResult, EngineSettings, simulate_engine
from eccos_core.simulation.serving.lengths import LearnedLengths, LengthForecast, TrueLengths, split_to_learn
from eccos_core.simulation.serving.replica import EngineReplica
from eccos_core.simulation.serving.schedulers import SCHEDULERS, EngineScheduler, scheduler_named
from eccos_core.simulation.serving.workload import ServingWorkload, read_serving_workload, serving_workload

__all__ = [
    "SCHEDULERS",
    "EngineReplica",
    "EngineResult",
    "EngineScheduler",
    "EngineSettings",
    "LearnedLengths",
    "LengthForecast",
    "ServingWorkload",
    "TrueLengths",
    "read_serving_workload",
    "scheduler_named",
    "serving_workload",
    "simulate_engine",
    "split_to_learn",
]
