"""Builds the optimizer that a configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eccos_core.config import OptimizerConfig
    from eccos_core.protocols import Optimizer


def build_optimizer(config: OptimizerConfig) -> Optimizer:
    """Build the optimizer that `eccos.optimizer` names."""
    from eccos_core import optimizer

    match config.kind:
        case "auto":
            return optimizer.AutoOptimizer()
        case "dual":
            return optimizer.DualOptimizer()
        case "exact":
            return optimizer.ExactOptimizer(time_limit_s=config.time_limit_s)
        case "greedy":
            return optimizer.GreedyOptimizer()
