"""The parts that a router takes when you give none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eccos_core.domain import BoolArray, Budget, FloatArray, IntArray, Model, Policy, QualityPrice, StreamChoice
from eccos_core.errors import InputError, Overloaded

if TYPE_CHECKING:
    from eccos_core.protocols import Encoder, Optimizer, Steering, Workload


def default_encoder() -> Encoder:
    """Build the static encoder with the text's surface beside it, as `encoder: static` does."""
    from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder

    return ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])


def default_optimizer() -> Optimizer:
    """Build the optimizer that chooses its engine by the problem."""
    from eccos_core.optimizer import AutoOptimizer

    return AutoOptimizer()


def default_steering(policy: Policy) -> Steering:
    """Build the steering of a stream that keeps the policy of its batches.

    A floor is kept by a controller whose price starts at 0 and rises as far as it must. A budget is the budget of one
    batch, so the steering it gets refuses single requests and says what to give instead.
    """
    from eccos_core.streaming import FixedPrice, FloorTarget, InitialPrices, StreamController

    if isinstance(policy, QualityPrice):
        return FixedPrice(policy.usd_per_quality)
    if isinstance(policy, Budget):
        return _BatchesOnly()
    return StreamController(FloorTarget(policy.alpha), InitialPrices(0.0))


class _BatchesOnly:
    """The `Steering` of a router whose policy is the budget of a batch. Refuses every single request."""

    usd_per_quality = 0.0

    def decide(
        self, quality: FloatArray, cost_usd: FloatArray, open_models: BoolArray, occupancy: FloatArray | None = None
    ) -> StreamChoice:
        """Raise `InputError`."""
        raise InputError(
            "the policy is a budget, which one batch spends. To decide single requests, give the router a steering, "
            "such as StreamController(RateTarget(0.01, 'request'), InitialPrices(0.0))."
        )

    def decide_jointly(
        self,
        quality: FloatArray,
        cost_usd: FloatArray,
        open_models: BoolArray,
        free_slots: IntArray,
        optimizer: Optimizer,
        models: Sequence[str],
    ) -> list[StreamChoice | Overloaded]:
        """Raise `InputError`."""
        return [self.decide(quality[row], cost_usd[row], open_models[row]) for row in range(len(quality))]

    def retract(self, choice: StreamChoice) -> None:
        """Do nothing: no single request is ever decided."""

    def correct_cost(self, difference_usd: float) -> None:
        """Do nothing: no single request is ever decided."""


def default_workload(models: Sequence[Model]) -> Workload:
    """Build a tracker of the pool's slots, as the models' caps say."""
    from eccos_core.workload import WorkloadTracker

    return WorkloadTracker(models)
