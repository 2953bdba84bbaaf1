"""What is believed after some answers: the joint probability of which are right, and what another call would change.

Axes: R requests, M models, K nodes of the hidden difficulty, n answers so far, P = 2 ** n patterns of right and wrong,
O = n + 2 ways in which another answer can fall out (it says the same as answer i, it says something new, it cannot be
compared), B strengths of evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.plans.joint import NODE_WEIGHTS, JointModel, QuestionTerms

_MOST = 0.98  # all ways to agree together have at most this probability
_ROWS_AT_ONCE = 256  # small enough for the cache of a processor
_SAME = 0.5  # answers that agree more than this count as one


@dataclass(frozen=True, slots=True, eq=False)
class Belief:
    """The belief about R requests after n answers each.

    weights (R, P, K): joint probability of pattern, node of z and all that was seen, up to a factor that `mass` holds.
    right (P, n): which answers are right in each pattern. asked (R, n). distinct (R, n): the answer is known, and no
    earlier one says the same.
    """

    model: JointModel
    terms: QuestionTerms
    weights: FloatArray
    right: BoolArray
    asked: IntArray
    distinct: BoolArray

    @classmethod
    def start(cls, model: JointModel, terms: QuestionTerms) -> Belief:
        """Return the belief before any call."""
        rows = len(terms.quality)
        return cls(
            model,
            terms,
            np.broadcast_to(NODE_WEIGHTS, (rows, 1, len(NODE_WEIGHTS))),
            np.empty((1, 0), dtype=np.bool_),
            np.empty((rows, 0), dtype=np.int64),
            np.empty((rows, 0), dtype=np.bool_),
        )

    @property
    def mass(self) -> FloatArray:
        """(R,) probability of all that was seen."""
        return np.asarray(self.weights.sum(axis=(1, 2)))

    def after(self, asked: IntArray, log_ratio: FloatArray, same: FloatArray, known: BoolArray) -> Belief:
        """Return the belief after one more answer to each request, scaled to mass 1.

        asked (R,): columns. log_ratio (R,): evidence of its features. same (R, n): agreement with each answer so far,
        NaN where unknown. known (R,): whether the answer can be compared.
        """
        rows = np.arange(len(asked))
        joins = np.where(self.distinct & known[:, None], np.nan_to_num(same), 0.0)
        joins = joins / np.maximum(joins.sum(axis=1, keepdims=True), 1.0)
        if self.asked.shape[1]:
            likelihood = self._ways(self.terms.same_wrong[rows[:, None], self.asked, asked[:, None]].T)
            new = (1 - likelihood.sum(axis=0)).transpose(2, 0, 1)
            told = np.einsum("rn,npgr->rpg", joins, likelihood) + (1 - joins.sum(axis=1))[:, None, None] * new
            told = np.where((known & self.distinct.any(axis=1))[:, None, None], told, 1.0)
        else:
            told = np.ones((len(asked), 1, 2))
        strength = np.stack([-log_ratio / 2, log_ratio / 2], axis=-1)
        told = told * np.exp(strength)[:, None, :]
        weights, right = self._split(asked, told)
        weights = weights / np.maximum(weights.sum(axis=(1, 2), keepdims=True), 1e-300)
        new_one = known & (joins.max(axis=1, initial=0.0) <= _SAME)
        return Belief(
            self.model,
            self.terms,
            weights,
            right,
            np.column_stack([self.asked, asked]),
            np.column_stack([self.distinct, new_one]),
        )

    def quality(self) -> FloatArray:
        """Return P(good) of every model (R, M): of the answers given, and of those that were not asked for."""
        mass = np.maximum(self.mass, 1e-300)
        found = np.einsum("rk,rmk->rm", self.weights.sum(axis=1), self.terms.good) / mass[:, None]
        if self.asked.shape[1]:
            np.put_along_axis(found, self.asked, self._given(mass), axis=1)
        return np.asarray(found)

    def given_quality(self) -> FloatArray:
        """Return P(good) of the answers given, (R, n)."""
        return self._given(np.maximum(self.mass, 1e-300))

    def look_ahead(self, columns: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return what accepting the best answer now is worth (R,), and what asking each model first is worth (R, F).

        Both are the probability of a good answer times `mass`. Without an answer, accepting is worth 0. columns (F,):
        the models to ask.
        """
        if len(self.asked) > _ROWS_AT_ONCE:
            parts = [
                self.rows(np.arange(at, min(at + _ROWS_AT_ONCE, len(self.asked)))).look_ahead(columns)
                for at in range(0, len(self.asked), _ROWS_AT_ONCE)
            ]
            return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        by_pattern = self.weights.sum(axis=2)
        now = (by_pattern @ self.right).max(axis=1) if self.asked.shape[1] else np.zeros(len(self.asked))
        ways = self._outcomes(columns)
        answers = self.asked.shape[1]
        chosen = np.concatenate([self.right.T, np.ones((1, len(self.right)))])  # (n + 1, P)
        # (n + 1, O, 2, R, F): P(this one is right, and the new one is wrong or right)
        kinds = np.tensordot(chosen, ways, axes=([1], [1]))
        kinds[answers, :, 0] = 0.0  # the last one is the new one itself
        kinds = kinds.reshape(*kinds.shape[:3], -1)  # R and F in one axis, so that numpy has long rows to work on
        strengths = self.model.evidence.strengths[columns].transpose(2, 1, 0)  # (2, B, F)
        wrong, right = np.tile(strengths, len(self.asked))
        best = kinds[0, :, 0, None] * wrong + kinds[0, :, 1, None] * right  # (O, B, R * F)
        for each in range(1, answers + 1):
            best = np.maximum(best, kinds[each, :, 0, None] * wrong + kinds[each, :, 1, None] * right)
        return now, best.sum(axis=(0, 1)).reshape(len(self.asked), len(columns))

    def imagine(self, columns: IntArray) -> Belief:
        """Return the beliefs after every way in which each model can answer, (R * F * O * B,) in this order.

        Their `mass` is the probability of that way, times this belief's own. columns (F,): the models to ask.
        """
        rows, models = len(self.asked), len(columns)
        answers = self.asked.shape[1]
        told = self._likelihood(columns).transpose(3, 4, 0, 1, 2)  # (R, F, O, P, 2)
        share = self.model.evidence.strengths[columns]  # (F, B, 2)
        spread = told[:, :, :, None] * share[None, :, None, :, None, :]  # (R, F, O, B, P, 2)
        good = self.terms.good[:, columns][:, :, None, None, None, :]
        before = self.weights[:, None, None, None]
        split = np.stack([before * (1 - good) * spread[..., 0, None], before * good * spread[..., 1, None]], axis=-2)
        shape = split.shape  # (R, F, O, B, P, 2, K)
        total = int(np.prod(shape[:4]))
        index = np.repeat(np.arange(rows), total // rows)
        per_way = (rows, models, answers + 2, share.shape[1])
        asked = np.broadcast_to(columns[None, :, None, None], per_way).reshape(total)
        says_new = np.zeros(answers + 2, dtype=np.bool_)
        says_new[answers] = True
        new_one = np.broadcast_to(says_new[None, None, :, None], per_way).reshape(total)
        return Belief(
            self.model,
            self.terms.rows(index),
            split.reshape(total, shape[4] * 2, shape[6]),
            _patterns(self.right),
            np.column_stack([self.asked[index], asked]),
            np.column_stack([self.distinct[index], new_one]),
        )

    def rows(self, index: IntArray) -> Belief:
        """Return the belief about the chosen requests."""
        return Belief(
            self.model,
            self.terms.rows(index),
            self.weights[index],
            self.right,
            self.asked[index],
            self.distinct[index],
        )

    def _given(self, mass: FloatArray) -> FloatArray:
        return np.asarray(self.weights.sum(axis=2) @ self.right / mass[:, None])

    def _split(self, asked: IntArray, told: FloatArray) -> tuple[FloatArray, BoolArray]:
        """Split each pattern by whether the new answer is right. told (R, P, 2): likelihood of what was seen."""
        good = self.terms.good[np.arange(len(asked)), asked][:, None, :]
        wrong_part = self.weights * (1 - good) * told[:, :, 0, None]
        right_part = self.weights * good * told[:, :, 1, None]
        rows, patterns, nodes = self.weights.shape
        return np.stack([wrong_part, right_part], axis=2).reshape(rows, patterns * 2, nodes), _patterns(self.right)

    def _ways(self, same_wrong: FloatArray) -> FloatArray:
        """Return P(a known new answer says the same as answer i | pattern, whether it is right), (n, P, 2, R, ...).

        same_wrong (n, R, ...): P(it says the same as answer i, if both are wrong). Only distinct answers count.
        """
        count, rows, *rest = same_wrong.shape
        right = self.right.T.reshape(count, len(self.right), 1, *(1 for _ in rest))
        ways = np.empty((count, len(self.right), 2, rows, *rest))
        ways[:, :, 0] = np.where(right, self.model.mixed, same_wrong[:, None])
        ways[:, :, 1] = np.where(right, self.model.both_right, self.model.mixed)
        ways *= self.distinct.T.reshape(count, 1, 1, rows, *(1 for _ in rest))
        ways *= _MOST / np.maximum(ways.sum(axis=0), _MOST)
        return ways

    def _likelihood(self, columns: IntArray) -> FloatArray:
        """Return P(the way in which each model's answer falls out | pattern, whether it is right), (O, P, 2, R, F)."""
        rows, answers = self.asked.shape
        known = self.terms.known[:, columns]
        pairs = self.terms.same_wrong[np.arange(rows)[:, None], self.asked][:, :, columns].transpose(1, 0, 2)
        ways = self._ways(pairs)
        told = np.empty((answers + 2, len(self.right), 2, rows, len(columns)))
        told[:answers] = ways * known
        told[answers] = (1 - ways.sum(axis=0)) * known
        told[answers + 1] = 1 - known
        return told

    def _outcomes(self, columns: IntArray) -> FloatArray:
        """Return P(way, pattern, whether each model's answer is right, and all that was seen), (O, P, 2, R, F)."""
        right = (self.weights @ self.terms.good[:, columns].transpose(0, 2, 1)).transpose(1, 0, 2)
        both = np.stack([self.weights.sum(axis=2).T[:, :, None] - right, right], axis=1)
        return np.asarray(self._likelihood(columns) * both)


def _patterns(right: BoolArray) -> BoolArray:
    """Return the patterns with one more answer: each of before, then wrong or right."""
    before = np.repeat(right, 2, axis=0)
    return np.column_stack([before, np.tile([False, True], len(right))])
