"""Certify a floor: choose the cheapest rule that labels show to keep it, and write the certificate."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eccos_core.assembly.forecaster import build_predictor
from eccos_core.assembly.predictor import Progress, TrainingData, cached_encoder
from eccos_core.certification import (
    BettingTest,
    BinomialTest,
    Certificate,
    CertifiedGap,
    Claim,
    MeanTest,
    read_certificate,
    run_sequence,
    write_certificate,
)
from eccos_core.config import CertifiedPolicy, Config
from eccos_core.domain import FloatArray, IntArray, OutcomeTable
from eccos_core.errors import CertificateError, InputError
from eccos_core.io.outcome_tables import with_models
from eccos_core.io.outcomes import read_outcomes
from eccos_core.io.tokens import text_key
from eccos_core.routing.certified import choose_by_price, fingerprint
from eccos_core.routing.pricing import cost_usd

# lambda, in USD per unit of quality, from "always the best" to "always the cheapest". It depends on no data, so the
# sequence is fixed before any label is seen.
PRICES = np.logspace(3, -9, 241)


@dataclass(frozen=True, slots=True)
class CertifyReport:
    """What `certify` found.

    - `certificate`: what was written to `path`. Its `usd_per_quality` is None when no setting passed.
    - `cost_usd`: forecast USD of the certified rule for one request. `dearest_usd`: of the model that costs most.
    - `more_labels`: about how many more labels the safest setting needs. None when it passed, or never would.
    - `best_mean`: labelled mean quality of the safest setting.
    """

    path: Path
    certificate: Certificate
    cost_usd: float
    dearest_usd: float
    best_mean: float
    more_labels: int | None

    @property
    def passed(self) -> bool:
        """Whether some setting passed."""
        return self.certificate.usd_per_quality is not None


def certify(
    config: Config,
    labels: Path,
    *,
    growing: bool = False,
    out: Path | None = None,
    progress: Progress | None = None,
) -> CertifyReport:
    """Test rules from the safest to the cheapest on labels, and write a certificate for the last one that passes.

    `labels`: an outcomes file with a score of every model for each question. None of its questions may be in the
    history that the predictor learned from. `growing`: use a test that you may repeat with more labels appended.
    Otherwise you have one look, and scores of 0 and 1 get the exact binomial test.

    Raises `InputError` for a policy that asks for no certificate, labels that are not complete or not new, and a
    second look that the test does not allow.
    """
    asked = config.policy
    if not isinstance(asked, CertifiedPolicy):
        raise InputError(
            f"{config.path}: eccos.policy asks for no certificate. Write policy: {{certified_floor: 0.7}} or "
            "policy: {within_points_of: {model: NAME, points: 2}}."
        )
    claim, path, say = asked.claim, out or asked.certificate, progress or (lambda _: None)
    rules = _apply_rules(config, labels, say)
    scores = [_scores(claim, rules.table, chosen) for chosen in rules.choices]
    level = 1 - claim.confidence
    test = choose_test(scores, level, growing=growing)
    digest = _digest(rules.table)
    _check_look(path, claim, rules.fingerprint, digest, test)
    say("testing")
    result = run_sequence(scores, claim.limit, level, test)
    place = result.passed
    certificate = Certificate(
        claim=claim,
        usd_per_quality=None if place is None else float(PRICES[place]),
        fingerprint=rules.fingerprint,
        labels=len(rules.table),
        labels_digest=digest,
        mean=rules.mean_quality(place or 0),
        p_value=result.p_values[place or 0],
        test=test.name,
        growing=test.growing,
        made_on=dt.datetime.now(tz=dt.UTC).date().isoformat(),
    )
    write_certificate(certificate, path)
    needed = test.labels_needed(scores[0], claim.limit, level) if place is None else None
    return CertifyReport(
        path=path,
        certificate=certificate,
        cost_usd=rules.mean_cost_usd(place or 0),
        dearest_usd=float(rules.cost_usd.mean(axis=0).max()),
        best_mean=rules.mean_quality(0),
        more_labels=None if needed is None else max(1, needed - len(rules.table)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _AppliedRules:
    """What each rule of the sequence chooses for N labelled questions.

    cost_usd (N, M) is forecast. `choices` has one array of models (N,) for each price. `fingerprint` is that of the
    parts whose forecasts they follow.
    """

    table: OutcomeTable
    cost_usd: FloatArray
    choices: list[IntArray]
    fingerprint: str

    def mean_quality(self, rule: int) -> float:
        """Return the labelled mean quality of a rule."""
        return float(_quality(self.table, self.choices[rule]).mean())

    def mean_cost_usd(self, rule: int) -> float:
        """Return the forecast USD of a rule for one request."""
        return float(self.cost_usd[np.arange(len(self.table)), self.choices[rule]].mean())


def _apply_rules(config: Config, labels: Path, say: Progress) -> _AppliedRules:
    """Forecast the labelled questions, and choose by every price. Raises `InputError` for labels that are no use."""
    say("loading the predictor")
    encoder, predictor, history = build_predictor(config, say)
    table = with_models(read_outcomes(labels), tuple(model.name for model in config.models))
    _check_labels(table, labels, {text_key(query) for query in history.table()[0].queries})
    say(f"reading {len(table)} questions")
    data = TrainingData(table, cached_encoder(encoder).encode(table.queries))
    forecast = predictor.predict(data.vectors, data.input_tokens)
    cost = forecast.with_recorded_cost(cost_usd(config.models, data.input_tokens, forecast.output_tokens))
    choices = [choose_by_price(forecast.quality, cost, price) for price in PRICES]
    return _AppliedRules(table, cost, choices, fingerprint(config.models, encoder, predictor))


def choose_test(scores: list[FloatArray], level: float, *, growing: bool) -> MeanTest:
    """Choose the exact binomial test for one look at scores of 0 and 1, and the betting test for all else."""
    binary = all(np.isin(each, (0.0, 1.0)).all() for each in scores)
    return BinomialTest() if binary and not growing else BettingTest(level, growing)


def _quality(table: OutcomeTable, chosen: IntArray) -> FloatArray:
    return np.asarray(table.quality[np.arange(len(table)), chosen])


def _scores(claim: Claim, table: OutcomeTable, chosen: IntArray) -> FloatArray:
    compared = table.quality[:, table.models.index(claim.model)] if isinstance(claim, CertifiedGap) else None
    return claim.scores(_quality(table, chosen), compared)


def _check_labels(table: OutcomeTable, labels: Path, known: set[str]) -> None:
    if not len(table):
        raise InputError(f"{labels}: holds no question. Label some with `eccos collect`.")
    missing = np.isnan(table.quality)
    if missing.any():
        row, column = np.argwhere(missing)[0]
        raise InputError(
            f"{labels}: {int(missing.any(axis=1).sum())} of {len(table)} questions lack the score of some model, "
            f"{table.question_ids[row]!r} that of {table.models[column]!r} for one. A test needs every model's score "
            "of every question. `eccos collect` gets them; remove the questions that you cannot complete."
        )
    seen = [i for i, query in enumerate(table.queries) if text_key(query) in known]
    if seen:
        raise InputError(
            f"{labels}: {len(seen)} of {len(table)} questions are in the history that the predictor learned from, "
            f"{table.question_ids[seen[0]]!r} for one. Labels must be new. Keep some outcomes out of the history, fit "
            "again, and certify with those."
        )


def _check_look(path: Path, claim: Claim, identity: str, digest: str, test: MeanTest) -> None:
    """Refuse a second look at labels that the first test did not allow for."""
    if not path.exists():
        return
    try:
        before = read_certificate(path)
    except CertificateError:
        return
    same_question = before.claim == claim and before.fingerprint == identity
    if same_question and before.labels_digest != digest and not (before.growing and test.growing):
        raise InputError(
            f"{path}: these parts were tested before, on {before.labels} labels, by the {before.test} test. A second "
            "look would make the certificate weaker than it says. Give --growing from the first look on. If every "
            f"label is new, delete {path} first."
        )


def _digest(table: OutcomeTable) -> str:
    """Return 32 hexadecimal digits of the labelled questions and their scores, in any order."""
    rows = sorted(
        f"{text_key(query)}{scores.tolist()}" for query, scores in zip(table.queries, table.quality, strict=True)
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:32]
