"""Slots, rates and circuit breakers that replicas share through Redis or Valkey."""

from eccos_core.workload.shared.look import FleetLoad, look_at_fleet
from eccos_core.workload.shared.server import SharedServer, StateAway
from eccos_core.workload.shared.settings import SharedSettings
from eccos_core.workload.shared.workload import SharedWorkload

__all__ = ["FleetLoad", "SharedServer", "SharedSettings", "SharedWorkload", "StateAway", "look_at_fleet"]
