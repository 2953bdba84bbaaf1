"""Who is busy: slots, rates, speed and health of every model."""

from eccos_core.domain import BreakerState, ModelStatus, WorkloadStatus
from eccos_core.workload.circuit_breaker import BreakerSettings
from eccos_core.workload.load import UNCAPPED
from eccos_core.workload.tracker import WorkloadTracker

__all__ = ["UNCAPPED", "BreakerSettings", "BreakerState", "ModelStatus", "WorkloadStatus", "WorkloadTracker"]
