"""Streams: every request decided alone, in O(M), with prices that are steered and limits that are guarded."""

from eccos_core.routing.microbatch import MicroBatch
from eccos_core.streaming.controller import StreamChoice, StreamController
from eccos_core.streaming.initial_prices import InitialPrices, fit_initial_prices
from eccos_core.streaming.targets import FloorTarget, RateTarget

__all__ = [
    "FloorTarget",
    "InitialPrices",
    "MicroBatch",
    "RateTarget",
    "StreamChoice",
    "StreamController",
    "fit_initial_prices",
]
