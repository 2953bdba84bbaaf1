"""What the features of one answer say about it: the logarithm of a likelihood ratio, good against bad.

A logistic regression with the forecast's log odds as offset learns it. So an answer without features changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import ANSWER_FEATURES, BoolArray, FloatArray, IntArray
from eccos_core.plans.logistic import fit_logistic, logit

EVIDENCE = (*ANSWER_FEATURES, "length_ratio")
"""The features that count as evidence: those of outcomes files, and the real output tokens over the forecast."""

LIMIT = 4.0  # no features of one answer change its odds by more than e to this
BINS = 3
_SQUARED = ("mean_logprob", "length_ratio")  # both very low and very high may be bad
_COLUMNS = len(EVIDENCE) + len(_SQUARED)
_SHARED_PRECISION, _OWN_PRECISION = 4.0, 40.0
_MOST_STEPS = 3.0  # standardised features are clipped to this


@dataclass(frozen=True, slots=True, eq=False)
class AnswerEvidence:
    """Weights of features per model, and how often each strength of evidence is seen.

    centre, scale (M, F) of the features as `transform` gives them. weights (M, P) of them and their squares. edges
    (M, B - 1) cut log likelihood ratios into B bins. share (M, B, 2): of bad answers and of good ones in each bin.
    """

    centre: FloatArray
    scale: FloatArray
    weights: FloatArray
    edges: FloatArray
    share: FloatArray

    @classmethod
    def none(cls, models: int) -> AnswerEvidence:
        """Return the evidence that never says anything."""
        share = np.zeros((models, BINS, 2))
        share[:, BINS // 2] = 1.0
        wide = np.full(len(EVIDENCE), 1.0)
        edges = np.tile([-1e-9, 1e-9], (models, 1))
        return cls(
            np.tile(0 * wide, (models, 1)), np.tile(wide, (models, 1)), np.zeros((models, _COLUMNS)), edges, share
        )

    @property
    def strengths(self) -> FloatArray:
        """`share` (M, B, 2) of the bins that some model has answers in. One bin if features say nothing."""
        return self.share[:, self.share.any(axis=(0, 2))]

    def log_ratio(self, features: Mapping[str, FloatArray], model: IntArray) -> FloatArray:
        """Return log P(features | good) - log P(features | bad), of any shape. `model` has the same shape."""
        if not features:
            return np.zeros(model.shape)
        design = expand((stack(features, model.shape) - self.centre[model]) / self.scale[model])
        return np.asarray(np.clip((design * self.weights[model]).sum(axis=-1), -LIMIT, LIMIT))

    def for_pool(self, columns: Sequence[int]) -> AnswerEvidence:
        """The same evidence for these models, in this order."""
        chosen = list(columns)
        return AnswerEvidence(
            self.centre[chosen], self.scale[chosen], self.weights[chosen], self.edges[chosen], self.share[chosen]
        )


def fit_evidence(features: Mapping[str, FloatArray], forecast: FloatArray, quality: FloatArray) -> AnswerEvidence:
    """Learn from graded answers: features, forecast and quality are (N, M), NaN where unknown.

    Each model has weights of its own, drawn towards those that all models share.
    """
    models = quality.shape[1]
    column = np.broadcast_to(np.arange(models), quality.shape)
    raw = stack(features, quality.shape)
    centre, scale = _standardise(raw)
    graded = ~np.isnan(quality)
    design = expand((raw - centre[column]) / scale[column])[graded]
    offset, observed, of = logit(forecast[graded]), quality[graded], column[graded]
    shared = fit_logistic(design, observed, offset, np.full(_COLUMNS, _SHARED_PRECISION))
    weights = np.empty((models, _COLUMNS))
    for each in range(models):
        own = of == each
        base = offset[own] + design[own] @ shared
        weights[each] = shared + fit_logistic(design[own], observed[own], base, np.full(_COLUMNS, _OWN_PRECISION))
    nothing = AnswerEvidence.none(models)
    unbinned = AnswerEvidence(centre, scale, weights, nothing.edges, nothing.share)
    ratio = unbinned.log_ratio(features, column)
    edges, share = _bin(ratio, forecast, graded)
    return AnswerEvidence(centre, scale, weights, edges, share)


def transform(name: str, values: FloatArray) -> FloatArray:
    """Return a feature on a scale where differences mean the same everywhere."""
    return np.log(np.maximum(values, 0.02)) if name == "length_ratio" else values


def stack(features: Mapping[str, FloatArray], shape: tuple[int, ...]) -> FloatArray:
    """Return all features as (..., F), NaN where unknown."""
    found = np.full((*shape, len(EVIDENCE)), np.nan)
    for name, values in features.items():
        found[..., EVIDENCE.index(name)] = transform(name, values)
    return found


def expand(standardised: FloatArray) -> FloatArray:
    """Return the design (..., P): each feature and the squares of some. What is unknown is 0, so it says nothing."""
    known = np.clip(np.nan_to_num(standardised), -_MOST_STEPS, _MOST_STEPS)
    squared = [EVIDENCE.index(name) for name in _SQUARED]
    centred = np.where(np.isnan(standardised[..., squared]), 0.0, known[..., squared] ** 2 - 1)
    return np.concatenate([known, centred], axis=-1)


def _standardise(raw: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return centre and scale (M, F) of the known cells of raw (N, M, F). A feature that never varies gets scale 1."""
    known = ~np.isnan(raw)
    count = np.maximum(known.sum(axis=0), 1)
    centre = np.where(known, raw, 0.0).sum(axis=0) / count
    variance = np.where(known, (raw - centre) ** 2, 0.0).sum(axis=0) / count
    return centre, np.where(variance > 1e-12, np.sqrt(np.maximum(variance, 1e-12)), 1.0)


def _bin(ratio: FloatArray, forecast: FloatArray, graded: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return edges (M, B - 1) and shares (M, B, 2) of log likelihood ratios (N, M).

    Each bin's share among good and bad answers follows from its mean ratio, so that it means what the ratio says.
    """
    models = ratio.shape[1]
    nothing = AnswerEvidence.none(models)
    edges, share = nothing.edges.copy(), nothing.share.copy()
    for each in range(models):
        seen = ratio[graded[:, each], each]
        if not len(seen) or np.ptp(seen) < 1e-9:
            continue
        edges[each] = np.quantile(seen, np.arange(1, BINS) / BINS)
        odds = np.exp(seen)
        good = forecast[graded[:, each], each] * odds
        bad = 1 - forecast[graded[:, each], each]
        total = good + bad
        place = np.searchsorted(edges[each], seen)
        for kind, weight in enumerate((bad / total, good / total)):
            counts = np.bincount(place, weights=weight, minlength=BINS) + 0.5 / BINS
            share[each, :, kind] = counts / counts.sum()
    return edges, share
