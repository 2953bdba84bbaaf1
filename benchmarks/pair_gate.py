"""The gate of `pair_decoding.py`: a small network on the small model's hidden state, taught by rollouts.

After CITER (Zheng et al. 2025, arXiv 2502.01976, section 3.3). A token matters where the two models choose differently
and the final answer is better after one of them. Who writes the tokens after it is the gate of the round before, and
the small model alone in the first round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pair_decoding import LARGE, SMALL, Tree
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eccos_core.domain import BoolArray, Float32Array, FloatArray, IntArray

HIDDEN = 128
NETWORKS = 2
ROUNDS = 2
WORTH_ASKING = 0.3  # of the gate that rolls out the next round
LEAST_NEED = 1e-6  # above 0, so that the threshold 0 always asks


@dataclass(frozen=True, slots=True)
class NetworkGate:
    """The mean of a few networks. Safe to copy, costs `parameters` multiplications a token."""

    networks: Sequence[Any]

    def need(self, hidden: Float32Array) -> FloatArray:
        """Return the expected gain of asking (K,), 1e-6 where none is expected."""
        expected = np.mean([network.predict(hidden) for network in self.networks], axis=0)
        return np.asarray(np.clip(expected, LEAST_NEED, 1.0), dtype=np.float64)

    @property
    def parameters(self) -> int:
        """Count the weights."""
        fitted = [network[-1] for network in self.networks]
        return sum(array.size for network in fitted for array in (*network.coefs_, *network.intercepts_))


def fit_networks(hidden: Float32Array, gain: FloatArray, seed: int, networks: int = NETWORKS) -> NetworkGate:
    """Learn the expected gain (K,) from hidden states (K, width). A tenth of the rows says when to stop."""
    found = []
    for number in range(networks):
        learner = MLPRegressor(
            hidden_layer_sizes=(HIDDEN,),
            alpha=1e-2,
            early_stopping=True,
            n_iter_no_change=15,
            max_iter=300,
            random_state=1000 * seed + number,
        )
        found.append(make_pipeline(StandardScaler(), learner).fit(hidden, gain))
    return NetworkGate(found)


def advantages(tree: Tree, asks: BoolArray) -> FloatArray:
    """Return what the large model's token is worth over the small one's (K,), -1 to 1, when `asks` (K,) goes on."""
    values = tree.values(asks)
    return np.where(tree.differs, values[:, LARGE] - values[:, SMALL], 0.0)


def fit_gate(tree: Tree, rows: IntArray, seed: int, networks: int = NETWORKS) -> NetworkGate:
    """Teach a gate on the questions `rows` of a tree only."""
    learned = np.flatnonzero(np.isin(tree.question, rows))
    asks = np.zeros(len(tree.child), dtype=bool)
    gate = NetworkGate(())
    for _ in range(ROUNDS):
        gate = fit_networks(tree.hidden[learned], advantages(tree, asks)[learned], seed, networks)
        asks = gate.need(tree.hidden) > WORTH_ASKING
    return gate
