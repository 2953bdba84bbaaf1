"""Who is busy: slots, rates, speed and health of every model."""

from eccos_core.workload.breaker import BreakerSettings, BreakerState
from eccos_core.workload.tracker import UNCAPPED, ModelStatus, WorkloadStatus, WorkloadTracker

__all__ = ["UNCAPPED", "BreakerSettings", "BreakerState", "ModelStatus", "WorkloadStatus", "WorkloadTracker"]
