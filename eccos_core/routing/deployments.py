"""Which models of a pool share slots: the efforts of one deployment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eccos_core.domain import BoolArray, GroupShare, IntArray, Model


class Deployments:
    """The D deployments behind the M models of a pool.

    Efforts of one deployment show the same free slots. A slot that one of them takes is gone for all.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        names = [model.deployment for model in models]
        self.names = tuple(dict.fromkeys(names))
        self.of_model = dict(zip((model.name for model in models), names, strict=True))
        self._index = np.array([self.names.index(name) for name in names], dtype=np.int64)
        self._first = np.array([names.index(name) for name in self.names], dtype=np.int64)

    @property
    def has_shared_slots(self) -> bool:
        """Whether any two models share slots."""
        return len(self.names) < len(self._index)

    def take(self, free_slots: IntArray, calls: IntArray) -> IntArray:
        """Return the free slots (M,) after each model took `calls` (M,) of them."""
        taken = np.bincount(self._index, weights=calls, minlength=len(self.names)).astype(np.int64)
        return free_slots - taken[self._index]

    def merge(self, allowed: BoolArray) -> BoolArray:
        """Return (R, D) the deployments that a request may go to, of the models that it may go to (R, M)."""
        if not self.has_shared_slots:
            return allowed
        merged = np.zeros((len(allowed), len(self.names)), dtype=np.bool_)
        for column, deployment in enumerate(self._index):
            merged[:, deployment] |= allowed[:, column]
        return merged

    def first(self, of_models: IntArray) -> IntArray:
        """Return (D,) what all models of each deployment have in common, of (M,)."""
        return of_models[self._first]

    def spread(self, of_deployments: IntArray) -> IntArray:
        """Return (M,) what each model has of (D,)."""
        return of_deployments[self._index]

    def can_overflow(self, free_slots: IntArray, requests: int) -> bool:
        """Whether models that are filled up one by one could exceed the slots that they share."""
        members = np.bincount(self._index, minlength=len(self.names))
        return bool(((members > 1) & (self.first(free_slots) < requests)).any())

    def shared_caps(self, capacity: IntArray, requests: int) -> tuple[GroupShare, ...]:
        """Return the caps of shared slots as shares of a batch, where they can bind. capacity (M,)."""
        if not self.can_overflow(capacity, requests):
            return ()
        caps = self.first(capacity)
        return tuple(
            GroupShare(f"slots of {name}", self._index == row, at_most=max(0, int(caps[row])) / requests)
            for row, name in enumerate(self.names)
            if (self._index == row).sum() > 1 and caps[row] < requests
        )
