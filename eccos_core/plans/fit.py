"""Learn a verifier and a plan rule from graded answers, and choose on held-out questions how far to trust them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.plans.fit_joint import fit_joint
from eccos_core.plans.joint import JointModel
from eccos_core.plans.logistic import fit_logistic, logit
from eccos_core.plans.replay import RevealedAnswers, run_plans
from eccos_core.plans.rule import MAX_CALLS, PlanRule
from eccos_core.plans.state import PlanState
from eccos_core.plans.training import GradedAnswers
from eccos_core.plans.verifier import LearnedVerifier

MIN_QUESTIONS = 60  # with fewer, nothing is learned
FOLDS = 3
TRUSTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_MOST_HELD_OUT = 3000
_PRICES = 12
MAX_FOLLOWERS = 8
_PLATT_PRECISION = np.array([4.0, 1.0])


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What a fit learned, measured on held-out questions.

    log_loss, auc: of P(this answer is good) once two models were asked. forecast_log_loss, forecast_auc: the same for
    the forecast alone. trust: how far the rule trusts the verifier, 0 where plans did not beat single calls.
    gain, gain_se: what plans gain over single calls, in units of quality at the same price of quality, with its error.
    """

    questions: int
    log_loss: float
    forecast_log_loss: float
    auc: float
    forecast_auc: float
    trust: float
    gain: float
    gain_se: float


def fit_plan_rule(
    graded: GradedAnswers, *, max_calls: int = MAX_CALLS, seed: int = 0
) -> tuple[PlanRule, PlanReport] | None:
    """Learn from graded answers with held-out forecasts. Returns None where nothing can be learned.

    Nothing can be learned from answers that tell nothing (neither texts nor features), from one model, and from fewer
    than 60 questions.
    """
    if not graded.tells or len(graded) < MIN_QUESTIONS or len(graded.models) < 2:
        return None
    draw = np.random.default_rng(seed)
    fold = draw.permutation(len(graded)) % FOLDS
    joints = [fit_joint(graded.rows(np.flatnonzero(fold != each))) for each in range(FOLDS)]
    chosen = np.sort(draw.permutation(len(graded))[:_MOST_HELD_OUT])
    held_out = [graded.rows(chosen[fold[chosen] == each]) for each in range(FOLDS)]
    prices = telling_prices(held_out)
    followers = choose_followers(graded, prices)
    gains = np.concatenate(
        [_gains(joint, each, prices, max_calls, followers) for joint, each in zip(joints, held_out, strict=True)],
        axis=1,
    )
    trust, gain, error = choose_trust(gains)
    slope, intercept, judged = _calibrate(joints, held_out, max_calls, draw)
    verifier = LearnedVerifier(graded.models, fit_joint(graded), slope, intercept)
    report = PlanReport(len(graded), **judged, trust=trust, gain=gain, gain_se=error)
    return PlanRule(verifier, trust, max_calls, followers), report


def choose_trust(gains: FloatArray) -> tuple[float, float, float]:
    """Return the trust, its mean gain over single calls, and the standard error of that gain.

    gains (T, N): of each trust in `TRUSTS` on each held-out question. The smallest trust counts that is not worse than
    the best by more than one standard error of their difference, if the best one gains more than its standard error.
    """
    mean = gains.mean(axis=1)
    errors = gains.std(axis=1) / np.sqrt(gains.shape[1])
    best = int(mean.argmax())
    if mean[best] <= errors[best]:
        return 0.0, 0.0, float(errors[best])
    behind = gains[best] - gains
    within = behind.mean(axis=1) <= behind.std(axis=1) / np.sqrt(gains.shape[1])
    within[0] = False
    chosen = int(np.flatnonzero(within)[0])
    return TRUSTS[chosen], float(mean[chosen]), float(errors[chosen])


def telling_prices(held_out: list[GradedAnswers]) -> FloatArray:
    """Return prices of quality between always the cheapest model and always the best one, by forecast."""
    quality = np.concatenate([each.forecast for each in held_out])
    cost = np.concatenate([each.cost_usd for each in held_out])
    grid = np.logspace(-5, 4, 91) * max(float(cost.mean(axis=0).max()), 1e-12)
    spent = np.array(
        [np.take_along_axis(cost, (cost - price * quality).argmin(axis=1)[:, None], axis=1).mean() for price in grid]
    )
    low, high = spent[0] + 0.01 * (spent[-1] - spent[0]), spent[0] + 0.99 * (spent[-1] - spent[0])
    telling = grid[(spent >= low) & (spent <= high)]
    if not len(telling):
        telling = grid[[len(grid) // 2]]
    return np.asarray(telling[np.linspace(0, len(telling) - 1, min(_PRICES, len(telling))).astype(np.int64)])


def choose_followers(graded: GradedAnswers, prices: FloatArray) -> tuple[str, ...]:
    """Return the models that may follow a first answer: those that single calls choose most often at these prices."""
    if len(graded.models) <= MAX_FOLLOWERS:
        return graded.models
    used = np.zeros(len(graded.models))
    for price in prices:
        chosen = (graded.cost_usd - price * graded.forecast).argmin(axis=1)
        used += np.bincount(chosen, minlength=len(used))
    most = np.lexsort((-graded.forecast.mean(axis=0), -used))[:MAX_FOLLOWERS]
    return tuple(graded.models[place] for place in np.sort(most))


@dataclass(frozen=True, slots=True, eq=False)
class _GradedSource:
    """Gives the answers of graded questions. Codes stand for texts."""

    graded: GradedAnswers
    paid: FloatArray  # (S, R), filled as answers are asked for

    def ask(self, setting: IntArray, row: IntArray, model: IntArray) -> RevealedAnswers:
        """Return the answers, and charge them."""
        graded = self.graded
        np.add.at(self.paid, (setting, row), graded.paid_usd[row, model])
        codes = graded.codes[row, model]
        texts = np.array([None if code < 0 else str(code) for code in codes], dtype=object)
        features = {name: values[row, model] for name, values in graded.features.items() if name != "length_ratio"}
        ratio = graded.features.get("length_ratio")
        tokens = np.full(len(row), np.nan) if ratio is None else (ratio * graded.output_tokens)[row, model]
        return RevealedAnswers(texts, features, tokens)


def _gains(
    joint: JointModel, held_out: GradedAnswers, prices: FloatArray, max_calls: int, followers: tuple[str, ...]
) -> FloatArray:
    """Return what plans gain on each held-out question, (T, R), as the mean over prices of quality - cost / price."""
    open_models = ~np.isnan(held_out.quality)
    verifier = LearnedVerifier(held_out.models, joint, np.ones(max_calls), np.zeros(max_calls))
    state = PlanState.start(held_out.models, held_out.forecast, held_out.cost_usd, held_out.output_tokens)
    settings = np.tile(prices, len(TRUSTS))
    source = _GradedSource(held_out, np.zeros((len(settings), len(held_out))))
    rule = PlanRule(verifier, 1.0, max_calls, followers)
    accepted = run_plans(rule, state, settings, open_models, source, np.repeat(TRUSTS, len(prices)))
    quality = np.take_along_axis(held_out.quality, accepted.T, axis=1).T
    worth = (quality - source.paid / settings[:, None]).reshape(len(TRUSTS), len(prices), -1).mean(axis=1)
    return np.asarray(worth - worth[0])


def _calibrate(
    joints: list[JointModel], held_out: list[GradedAnswers], max_calls: int, draw: np.random.Generator
) -> tuple[FloatArray, FloatArray, dict[str, float]]:
    """Return Platt's slopes and intercepts (C,) after each number of answers, and how good the judgement is.

    Held-out questions are asked in random orders.
    """
    slope, intercept = np.ones(max_calls), np.zeros(max_calls)
    judged = {"log_loss": np.nan, "forecast_log_loss": np.nan, "auc": np.nan, "forecast_auc": np.nan}
    raw: list[list[FloatArray]] = [[] for _ in range(max_calls)]
    for joint, each in zip(joints, held_out, strict=True):
        verifier = LearnedVerifier(each.models, joint, slope, intercept)
        for calls, found in enumerate(_random_states(each, max_calls, draw)):
            state, quality = found
            belief = verifier.belief(state).given_quality()
            forecast = np.take_along_axis(state.quality, state.asked, axis=1)
            raw[calls].append(np.stack([belief.ravel(), quality.ravel(), forecast.ravel()]))
    for calls in range(max_calls):
        if not raw[calls]:
            slope[calls], intercept[calls] = slope[calls - 1], intercept[calls - 1]
            continue
        belief, quality, forecast = np.concatenate(raw[calls], axis=1)
        odds = logit(belief)
        weights = fit_logistic(np.column_stack([odds, np.ones(len(odds))]), quality, odds, _PLATT_PRECISION)
        slope[calls], intercept[calls] = max(1 + weights[0], 0.1), weights[1]
        if calls == min(1, max_calls - 1):
            odds = slope[calls] * odds + intercept[calls]
            judged = {
                "log_loss": log_loss(odds, quality),
                "forecast_log_loss": log_loss(logit(forecast), quality),
                "auc": auc(odds, quality >= 0.5),
                "forecast_auc": auc(forecast, quality >= 0.5),
            }
    return slope, intercept, judged


def _random_states(
    graded: GradedAnswers, max_calls: int, draw: np.random.Generator
) -> list[tuple[PlanState, FloatArray]]:
    """Return states after 1, 2, ... calls in random orders, with the quality (R, n) of the answers given."""
    known = ~np.isnan(graded.quality)
    order = np.argsort(np.where(known, draw.random(known.shape), 2.0), axis=1)
    state = PlanState.start(graded.models, graded.forecast, graded.cost_usd, graded.output_tokens)
    kept = np.arange(len(graded))
    found = []
    for call in range(min(max_calls, known.shape[1])):
        enough = known[kept].sum(axis=1) > call
        kept, state = kept[enough], state.rows(np.flatnonzero(enough))
        if not len(kept):
            break
        model = order[kept, call]
        codes = graded.codes[kept, model]
        before = np.take_along_axis(graded.codes[kept], state.asked, axis=1)
        same = (before == codes[:, None]).astype(np.float64)
        told = {name: values[kept, model] for name, values in graded.features.items()}
        state = state.after_each(model, told, same, codes >= 0)
        found.append((state, np.take_along_axis(graded.quality[kept], state.asked, axis=1)))
    return found


def log_loss(odds: FloatArray, quality: FloatArray) -> float:
    """Return the mean log loss of log odds (N,) for qualities (N,) in [0, 1]."""
    return float(np.mean(np.logaddexp(0, odds) - quality * odds))


def auc(score: FloatArray, good: BoolArray) -> float:
    """Return the probability that a good answer scores more than a bad one, NaN without both kinds."""
    positive = int(good.sum())
    negative = len(good) - positive
    if not positive or not negative:
        return float("nan")
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    return float((rank[good].sum() - positive * (positive + 1) / 2) / (positive * negative))
