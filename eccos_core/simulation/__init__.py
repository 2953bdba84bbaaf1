"""A discrete-event simulation of a stream: recorded outcomes arrive, wait, are served, and are counted."""

from eccos_core.simulation.arrivals import bursty_arrivals, poisson_arrivals
from eccos_core.simulation.engine import SimulationResult, simulate
from eccos_core.simulation.hindsight import compute_hindsight_cost
from eccos_core.simulation.routers import StreamRouter, stream_routers_named
from eccos_core.simulation.scenario import Scenario, Service, scenario_of

__all__ = [
    "Scenario",
    "Service",
    "SimulationResult",
    "StreamRouter",
    "bursty_arrivals",
    "compute_hindsight_cost",
    "poisson_arrivals",
    "scenario_of",
    "simulate",
    "stream_routers_named",
]
