"""Streams: every request is decided alone, in O(M), with prices that are steered and limits that are guarded."""

from eccos_core.streaming.controller import StreamController
from eccos_core.streaming.fixed_price import FixedPrice
from eccos_core.streaming.initial_prices import InitialPrices, fit_initial_prices
from eccos_core.streaming.targets import FloorTarget, RateTarget

__all__ = ["FixedPrice", "FloorTarget", "InitialPrices", "RateTarget", "StreamController", "fit_initial_prices"]
