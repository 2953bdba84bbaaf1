"""Optimizers: forecasts to assignments under constraints."""

from eccos_core.optimizer.dual import DualOptimizer

__all__ = ["DualOptimizer"]
