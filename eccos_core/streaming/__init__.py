"""Decide the requests of a stream one by one, in O(M), with prices that adapt and limits that always hold."""

from eccos_core.streaming.controller import StreamController
from eccos_core.streaming.fixed_price import FixedPrice
from eccos_core.streaming.initial_prices import InitialPrices, fit_initial_prices
from eccos_core.streaming.targets import FloorTarget, RateTarget

__all__ = ["FixedPrice", "FloorTarget", "InitialPrices", "RateTarget", "StreamController", "fit_initial_prices"]
