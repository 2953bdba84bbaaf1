"""Streams: every request decided alone, in O(M), with prices that are steered and limits that are guarded."""

from eccos_core.streaming.controller import StreamChoice, StreamController
from eccos_core.streaming.guards import FloorTarget, RateTarget
from eccos_core.streaming.microbatch import MicroBatch
from eccos_core.streaming.prices import StreamPrices, offline_prices

__all__ = [
    "FloorTarget",
    "MicroBatch",
    "RateTarget",
    "StreamChoice",
    "StreamController",
    "StreamPrices",
    "offline_prices",
]
