"""The general difficulty that ships with eccos: reproducible, small, and only a shift of the means."""

import json

import numpy as np
import pytest

from eccos_core.domain import OutcomeTable
from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder
from eccos_core.errors import InputError
from eccos_core.predictors import DifficultyPredictor, ModelPrior, digest_predictor, fit_predictor, with_difficulty
from eccos_core.predictors.difficulty import MAX_DIFFICULTY, difficulty_path, shipped_difficulty
from tools.difficulty.fit import make_direction

MODELS = ("small", "large")
EASY = ("What is the capital of Italy?", "What is 2 + 2?", "Which animal barks?")
HARD = (
    "Determine the splitting field of x^6 - 3 over the rationals and the degree of its subfields.",
    "Compute the partition function of a one-dimensional Ising chain with next-nearest interactions.",
    "A remainder is subject to an executory limitation. Analyse the rule against perpetuities for three grantees.",
)


@pytest.fixture(scope="module")
def encoder() -> ConcatenatedEncoder:
    return ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])


@pytest.fixture(scope="module")
def predictor(encoder: ConcatenatedEncoder) -> DifficultyPredictor:
    none = np.empty((0, 2))
    priors = {"small": ModelPrior(assumed_quality=0.6), "large": ModelPrior(assumed_quality=0.9)}
    table = OutcomeTable((), (), MODELS, none, none, none)
    means = fit_predictor("hybrid", table, np.empty((0, encoder.dimensions), np.float32), priors=priors)
    found = with_difficulty(means, encoder.name)
    assert isinstance(found, DifficultyPredictor)
    return found


def test_the_shipped_direction_is_what_its_command_makes() -> None:
    shipped, made = json.loads(difficulty_path().read_text()), make_direction()
    assert {key: made[key] for key in ("encoder", "questions", "questions_sha256", "held_out_correlation")} == {
        key: shipped[key] for key in ("encoder", "questions", "questions_sha256", "held_out_correlation")
    }, "run `python -m tools.difficulty.fit`"
    assert made["weights"] == pytest.approx(shipped["weights"], abs=1e-4)
    assert made["offset"] == pytest.approx(shipped["offset"], abs=1e-4)
    assert difficulty_path().stat().st_size < 3_000_000


def test_it_tells_hard_questions_from_easy_ones_that_it_never_saw(encoder: ConcatenatedEncoder) -> None:
    score = shipped_difficulty().score
    assert score(encoder.encode(EASY)).max() < score(encoder.encode(HARD)).min()
    strange = encoder.encode(["", "?" * 50_000, "\x00"])
    assert (np.abs(score(strange)) <= MAX_DIFFICULTY).all()


def test_a_hard_question_lowers_every_forecast_and_keeps_the_order_of_models(
    encoder: ConcatenatedEncoder, predictor: DifficultyPredictor
) -> None:
    vectors = encoder.encode([*EASY, *HARD])
    forecast = predictor.predict(vectors, np.full(6, 20.0))
    assert (forecast.quality[:3] > forecast.quality[3:].max(axis=0)).all()
    assert (forecast.quality[:, 1] > forecast.quality[:, 0]).all()
    assert np.abs(forecast.quality - [0.6, 0.9]).max() < 0.16  # a small shift
    assert (forecast.quality_se > 0.3).all()
    turned = predictor.for_pool(("large", "small")).predict(vectors, np.full(6, 20.0))
    assert np.array_equal(turned.quality, forecast.quality[:, ::-1])


def test_difficulty_counts_only_while_nothing_was_learned_and_with_its_own_encoder(
    encoder: ConcatenatedEncoder, predictor: DifficultyPredictor
) -> None:
    assert with_difficulty(predictor.means, "another encoder") is predictor.means
    rng = np.random.default_rng(0)
    quality, tokens = rng.integers(0, 2, (40, 2)).astype(float), np.full((40, 2), 30.0)
    ids = tuple(f"question {row}" for row in range(40))
    table = OutcomeTable(ids, ids, MODELS, quality, tokens, tokens)
    learned = fit_predictor("linear", table, encoder.encode(ids))
    assert with_difficulty(learned, encoder.name) is learned
    assert learned.graded == frozenset(MODELS)
    assert predictor.graded == frozenset()
    prior = fit_predictor("prior", table, encoder.encode(ids))
    assert with_difficulty(prior, encoder.name) is prior


def test_it_has_a_digest_of_its_own_and_refuses_vectors_that_do_not_fit(predictor: DifficultyPredictor) -> None:
    assert digest_predictor(predictor) != digest_predictor(predictor.means)
    with pytest.raises(InputError, match="vectors have shape"):
        predictor.predict(np.zeros((1, 3), np.float32), np.ones(1))
