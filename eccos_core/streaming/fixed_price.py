"""Decide every request at one fixed price of quality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray, StreamChoice
from eccos_core.errors import Overloaded
from eccos_core.protocols import Optimizer


class FixedPrice:
    """A `Steering` with a fixed price: argmin over open models of cost_usd - usd_per_quality * quality.

    Requests that arrive together are decided in the order of arrival. It has no state, so you can share it.
    """

    def __init__(self, usd_per_quality: float) -> None:
        self._usd_per_quality = float(usd_per_quality)

    @property
    def usd_per_quality(self) -> float:
        """The price of quality (lambda), in USD per unit."""
        return self._usd_per_quality

    def decide(
        self, quality: FloatArray, cost_usd: FloatArray, open_models: BoolArray, occupancy: FloatArray | None = None
    ) -> StreamChoice:
        """See `Steering`. Ignores occupancy. Raises `Overloaded` when no model is open."""
        if not open_models.any():
            raise Overloaded("no model that may answer this request is open", retry_after_s=1.0)
        model = int(np.argmin(np.where(open_models, cost_usd - self._usd_per_quality * quality, np.inf)))
        return StreamChoice(model, float(quality[model]), float(cost_usd[model]), self._usd_per_quality, guarded=False)

    def decide_jointly(
        self,
        quality: FloatArray,
        cost_usd: FloatArray,
        open_models: BoolArray,
        free_slots: IntArray,
        optimizer: Optimizer,
        models: Sequence[str],
    ) -> list[StreamChoice | Overloaded]:
        """See `Steering`. First come, first served."""
        left = np.asarray(free_slots).copy()
        choices: list[StreamChoice | Overloaded] = []
        for row in range(len(quality)):
            try:
                choice = self.decide(quality[row], cost_usd[row], open_models[row] & (left > 0))
            except Overloaded as error:
                choices.append(error)
            else:
                left[choice.model] -= 1
                choices.append(choice)
        return choices

    def retract(self, choice: StreamChoice) -> None:
        """See `Steering`. A fixed price does not depend on what was chosen."""

    def correct_cost(self, difference_usd: float) -> None:
        """See `Steering`. A fixed price does not depend on what was spent."""
