"""Who is busy: slots, rates, speed and health of every model."""

from eccos_core.status import BreakerState, ModelStatus, WorkloadStatus
from eccos_core.workload.breaker import BreakerSettings
from eccos_core.workload.tracker import UNCAPPED, WorkloadTracker

__all__ = ["UNCAPPED", "BreakerSettings", "BreakerState", "ModelStatus", "WorkloadStatus", "WorkloadTracker"]
