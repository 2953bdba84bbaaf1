"""Cascades: ask a model, look at its answer, and ask another one if it will not do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.evaluation.asking import AnswerLedger
from eccos_core.evaluation.baselines.routellm import hull_models
from eccos_core.evaluation.metrics import Choices, PlanChoices
from eccos_core.evaluation.protocol import AnswerFunction, EncoderChoice, EvaluationSplit, TrainSplit
from eccos_core.plans import RevealedAnswers
from eccos_core.plans.logistic import fit_logistic, sigmoid
from eccos_core.plans.state import length_ratio
from eccos_core.plans.texts import agree, code_answers

MAX_MODELS = 6  # of the hull of single models, from which cascades are made
THRESHOLDS = 9
COMPONENTS = 48  # of the question's vector
_RIDGE = 20.0
_BINS = 9  # AutoMix verifies eight times, so its confidence has nine levels

Cascade: TypeAlias = tuple[tuple[int, ...], tuple[float, ...]]  # models in order, and what lets each but the last stop


@dataclass(frozen=True, slots=True)
class BestSingleBaseline:
    """Send every question to the model that was best on the training rows."""

    name: str = "best_single"
    reads: EncoderChoice = "none"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Find the best model. Where it did not answer, the next best does."""
        order = np.lexsort((train_split.cost_usd.mean(axis=0), -train_split.mean_quality))

        def answer(held_out: EvaluationSplit) -> Choices:
            first = held_out.eligible[:, order].argmax(axis=1)
            return np.asarray(order[first][None, :], dtype=np.int16)

        return answer


@dataclass(frozen=True, slots=True)
class FrugalGptBaseline:
    """A cascade as in FrugalGPT (arXiv 2305.05176, section 3).

    A scorer judges each answer from the question and the answer. The cascade stops at the first answer whose score is
    over its threshold. The list of models and the thresholds are searched on the training rows, and every cascade on
    their frontier is a setting. The paper's scorer is a fine-tuned DistilBERT. Here it is a logistic regression per
    model, on the question's vector, the answer's length and its features.
    """

    name: str = "cascade_frugalgpt"
    reads: EncoderChoice = "text"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Fit the scorers, and search the cascades by their held-out scores."""
        scorer = _AnswerScorer.fit(train_split, use_question=True)
        return _fit_cascades(train_split, scorer, lengths=(1, 2, 3))


@dataclass(frozen=True, slots=True)
class AutoMixBaseline:
    """A small and a large model as in AutoMix (arXiv 2310.12963, section 3).

    The small model's answer is verified, and a meta-verifier decides whether to ask the large model. With one noisy
    observation, the paper's POMDP is a choice for each level of confidence: ask if the expected gain is worth the
    price. The pair of models is searched on the training rows.

    Recorded outcomes have no self-verification by the small model. What stands in is a confidence learned from the
    answer's own features and its length, without the question. It has nine levels, as from eight verifications.
    """

    name: str = "cascade_automix"
    reads: EncoderChoice = "none"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Fit the confidence, and search pairs of models and levels."""
        scorer = _AnswerScorer.fit(train_split, use_question=False)
        return _fit_cascades(train_split, scorer, lengths=(1, 2), thresholds=_BINS)


@dataclass(frozen=True, slots=True)
class AgreementOfTwoBaseline:
    """Ask two models. If their answers agree, accept. Else accept the answer of a third.

    The three models are searched on the training rows. An unknown answer agrees with nothing.
    """

    name: str = "agreement_of_two"
    reads: EncoderChoice = "none"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Search the triples of models."""
        table = train_split.table
        models = hull_models(train_split)[-MAX_MODELS:] if len(table.models) > MAX_MODELS else range(len(table.models))
        codes = np.full(table.quality.shape, -1) if table.answers is None else code_answers(table.answers, {})
        triples = [
            (*pair, third)
            for pair in combinations(models, 2)
            for third in (*(each for each in models if each not in pair), pair[1], pair[0])
        ]
        cost, quality = [], []
        for first, second, third in triples:
            rows = train_split.known[:, [first, second, third]].all(axis=1)
            same = agree(codes[rows, first], codes[rows, second]) > 0
            accepted = np.where(same, first, third)
            again = np.where(same | (third in (first, second)), 0.0, train_split.cost_usd[rows, third])
            cost.append((train_split.cost_usd[rows][:, [first, second]].sum(axis=1) + again).mean())
            quality.append(table.quality[rows, accepted].mean())
        chosen = [triples[place] for place in _frontier(np.array(cost), np.array(quality))]

        def answer(held_out: EvaluationSplit) -> PlanChoices:
            assert held_out.answers is not None
            ledger = held_out.answers.ledger(len(chosen))
            accepted = [_run_triple(at, triple, held_out, ledger) for at, triple in enumerate(chosen)]
            return ledger.accept(np.stack(accepted))

        return answer


def _run_triple(at: int, triple: Sequence[int], held_out: EvaluationSplit, ledger: AnswerLedger) -> IntArray:
    """Return whose answer counts (R,). A model that did not answer a question is replaced by one that did."""
    rows = np.arange(len(held_out))
    first, second, third = (_answering(model, held_out.eligible) for model in triple)
    setting, numbers = np.full(len(rows), at), dict[str, int]()
    codes = [code_answers(ledger.ask(setting, rows, model).texts, numbers) for model in (first, second)]
    differ = ~(agree(codes[0], codes[1]) > 0)
    ledger.ask(setting[differ], rows[differ], third[differ])
    return np.where(differ, third, first)


def _answering(model: int, eligible: BoolArray) -> IntArray:
    return np.where(eligible[:, model], model, eligible.argmax(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class _AnswerScorer:
    """P(an answer is good) by model: centre (D,) and axes (D, P) of question vectors, weights (Q, M).

    tokens (M,): typical output tokens. held_out (N, M): scores of the training rows, each by weights of other rows.
    """

    centre: FloatArray
    axes: FloatArray
    names: tuple[str, ...]
    means: FloatArray
    tokens: FloatArray
    weights: FloatArray
    held_out: FloatArray

    @classmethod
    def fit(cls, train_split: TrainSplit, *, use_question: bool) -> _AnswerScorer:
        """Fit on training rows. use_question: read the question's vector, else the answer alone."""
        table, vectors = train_split.table, train_split.vectors.astype(np.float64)
        centre = vectors.mean(axis=0)
        axes = np.zeros((vectors.shape[1], 0))
        if use_question and vectors.shape[1]:
            _, _, right = np.linalg.svd(vectors[:: max(1, len(vectors) // 2000)] - centre, full_matrices=False)
            axes = right[:COMPONENTS].T * len(vectors) ** 0.5 / 10
        names = tuple(sorted(table.features))
        known = {name: ~np.isnan(table.features[name]) for name in names}
        means = np.array([table.features[name][known[name]].mean() if known[name].any() else 0.0 for name in names])
        tokens = train_split.price_table.typical_output_tokens
        blank = np.zeros((axes.shape[1] + len(names) + 3, len(table.models)))
        scorer = cls(centre, axes, names, means, tokens, blank, np.zeros(table.quality.shape))
        fold = np.random.default_rng(0).permutation(len(table)) % 2
        weights, scores = blank.copy(), np.zeros(table.quality.shape)
        for model in range(len(table.models)):
            column = np.full(len(table), model)
            told = {name: table.features[name][:, model] for name in names}
            design = scorer._design(vectors, column, told, table.output_tokens[:, model])
            rows = train_split.known[:, model]
            precision = np.full(design.shape[1], _RIDGE)
            precision[0] = 1e-3
            for part in (0, 1):
                use = rows & (fold != part)
                found = fit_logistic(design[use], table.quality[use, model], np.zeros(use.sum()), precision)
                scores[fold == part, model] = sigmoid(design[fold == part] @ found)
            weights[:, model] = fit_logistic(design[rows], table.quality[rows, model], np.zeros(rows.sum()), precision)
        return cls(centre, axes, names, means, tokens, weights, scores)

    def score(self, vectors: FloatArray, model: IntArray, told: RevealedAnswers) -> FloatArray:
        """Return the scores (K,) of answers to questions with these vectors (K, D)."""
        design = self._design(vectors, model, told.features, told.output_tokens)
        return sigmoid((design * self.weights[:, model].T).sum(axis=1))

    def _design(
        self, vectors: FloatArray, model: IntArray, features: dict[str, FloatArray] | object, tokens: FloatArray
    ) -> FloatArray:
        told = features if isinstance(features, dict) else {}
        length = np.nan_to_num(np.log(np.maximum(length_ratio(tokens, self.tokens[model]), 0.02)))
        columns = [np.ones(len(model)), length, length**2]
        for name, mean in zip(self.names, self.means, strict=True):
            values = told.get(name, np.full(len(model), np.nan))
            columns.append(np.where(np.isnan(values), 0.0, values - mean))
        return np.column_stack([*columns, (vectors - self.centre) @ self.axes])


def _fit_cascades(
    train_split: TrainSplit, scorer: _AnswerScorer, lengths: Sequence[int], thresholds: int = THRESHOLDS
) -> AnswerFunction:
    """Search cascades on the training rows. Those on the frontier become the settings."""
    cascades = list(_all_cascades(train_split, scorer.held_out, lengths, thresholds))
    points = np.array([_cascade_point(train_split, scorer.held_out, cascade) for cascade in cascades])
    chosen = [cascades[place] for place in _frontier(points[:, 0], points[:, 1])]

    def answer(held_out: EvaluationSplit) -> PlanChoices:
        assert held_out.answers is not None
        ledger = held_out.answers.ledger(len(chosen))
        vectors = held_out.vectors.astype(np.float64)
        return ledger.accept(
            np.stack([_run_cascade(at, one, held_out, vectors, scorer, ledger) for at, one in enumerate(chosen)])
        )

    return answer


def _all_cascades(
    train_split: TrainSplit, scores: FloatArray, lengths: Sequence[int], thresholds: int
) -> list[Cascade]:
    models = hull_models(train_split)[-MAX_MODELS:]
    shares = np.linspace(0.1, 0.9, thresholds)
    quantiles = {model: np.quantile(scores[:, model], shares).tolist() for model in models}
    found: list[Cascade] = []
    for length in lengths:
        for listed in combinations(models, length):
            places: list[tuple[float, ...]] = [()]
            for model in listed[:-1]:
                places = [(*before, each) for before in places for each in quantiles[model]]
            found += [(listed, place) for place in places]
    return found


def _cascade_point(train_split: TrainSplit, scores: FloatArray, cascade: Cascade) -> tuple[float, float]:
    """Return the mean cost and quality of a cascade on the training rows that all its models answered."""
    models, stops = cascade
    rows = np.flatnonzero(train_split.known[:, models].all(axis=1))
    going, cost, quality = np.ones(len(rows), dtype=np.bool_), np.zeros(len(rows)), np.zeros(len(rows))
    for place, model in enumerate(models):
        cost += np.where(going, train_split.cost_usd[rows, model], 0.0)
        stop = going if place == len(stops) else going & (scores[rows, model] >= stops[place])
        quality = np.where(stop, train_split.table.quality[rows, model], quality)
        going = going & ~stop
    return (float(cost.mean()), float(quality.mean())) if len(rows) else (np.inf, 0.0)


def _run_cascade(
    at: int,
    cascade: Cascade,
    held_out: EvaluationSplit,
    vectors: FloatArray,
    scorer: _AnswerScorer,
    ledger: AnswerLedger,
) -> IntArray:
    """Return whose answer counts (R,)."""
    models, stops = cascade
    accepted, going = np.zeros(len(held_out), dtype=np.int64), np.arange(len(held_out))
    for place, listed in enumerate(models):
        model = _answering(listed, held_out.eligible)[going]
        told = ledger.ask(np.full(len(going), at), going, model)
        accepted[going] = model
        if place < len(stops):
            going = going[scorer.score(vectors[going], model, told) < stops[place]]
    return accepted


def _frontier(cost: FloatArray, quality: FloatArray) -> list[int]:
    """Return the places of points that no cheaper one equals, the cheapest first."""
    kept: list[int] = []
    for place in np.lexsort((-quality, cost)):
        if np.isfinite(cost[place]) and (not kept or quality[place] > quality[kept[-1]]):
            kept.append(int(place))
    return kept
