"""Optimizers: forecasts to assignments under constraints. OR-Tools is imported by the functions that need it."""

from eccos_core.optimizer.auto import AutoOptimizer
from eccos_core.optimizer.dual import DualOptimizer
from eccos_core.optimizer.exact import ExactOptimizer
from eccos_core.optimizer.explain import WhatIf, explain, what_if
from eccos_core.optimizer.greedy import GreedyOptimizer

__all__ = ["AutoOptimizer", "DualOptimizer", "ExactOptimizer", "GreedyOptimizer", "WhatIf", "explain", "what_if"]
