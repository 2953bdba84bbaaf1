"""Slots, rates and circuit breakers that replicas share through Redis or Valkey."""

from eccos_core.workload.shared.server import SharedServer, StateAway
from eccos_core.workload.shared.settings import SharedSettings
from eccos_core.workload.shared.workload import SharedWorkload

__all__ = ["SharedServer", "SharedSettings", "SharedWorkload", "StateAway"]
