"""What fitted predictors know: topics, lengths, gaps, new models, strange questions, and how sure they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from synthetic_outcomes import CHANCE, DIMENSIONS, TYPICAL_TOKENS, World, make_world

from eccos_core.domain import Float32Array, FloatArray, OutcomeTable
from eccos_core.errors import InputError, UnknownModelError
from eccos_core.history import MemoryHistory
from eccos_core.io.outcome_tables import outcomes_of
from eccos_core.predictors import (
    LEARNERS,
    GaussianProcess,
    ModelPrior,
    NearestNeighbors,
    OnlineRetrieval,
    fit_predictor,
)

LEARNING = ("retrieval", "kernel", "linear", "clusters", "trained", "hybrid")


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(800)


@pytest.fixture(scope="module")
def asked() -> World:
    return make_world(300, seed=99)


@pytest.mark.parametrize("kind", LEARNING)
def test_it_learns_which_model_is_good_at_which_topic(kind: str, world: World, asked: World) -> None:
    forecast = fit_predictor(kind, world.table, world.vectors).predict(asked.vectors, asked.input_tokens)
    assert np.abs(forecast.quality - asked.chance).mean() < 0.06
    prior = world.table.quality.mean(axis=0)
    assert np.abs(prior - asked.chance).mean() > 0.2


@pytest.mark.parametrize("kind", LEARNING)
def test_it_learns_how_long_answers_are(kind: str, world: World, asked: World) -> None:
    forecast = fit_predictor(kind, world.table, world.vectors).predict(asked.vectors, asked.input_tokens)
    expected = TYPICAL_TOKENS[asked.topic] * np.exp(0.4**2 / 2)
    assert np.abs(forecast.output_tokens / expected - 1).mean() < 0.15
    within = asked.table.output_tokens <= forecast.output_tokens_high
    assert 0.85 < within.mean() < 0.95


def test_the_forecast_total_of_tokens_is_the_bill(world: World, asked: World) -> None:
    forecast = fit_predictor("hybrid", world.table, world.vectors).predict(asked.vectors, asked.input_tokens)
    ratio = forecast.output_tokens.sum(axis=0) / asked.table.output_tokens.sum(axis=0)
    assert np.abs(ratio - 1).max() < 0.1


def test_outcomes_without_any_signal_leave_the_forecast_at_the_prior() -> None:
    noise = np.random.default_rng(5)
    for rows in (30, 100, 400):
        world = make_world(rows)
        table = replace(world.table, quality=noise.integers(2, size=(rows, 3)).astype(float))
        asked = make_world(200, seed=4)
        for kind in ("retrieval", "hybrid"):
            forecast = fit_predictor(kind, table, world.vectors).predict(asked.vectors, asked.input_tokens)
            spread = forecast.quality.std(axis=0).max()
            assert spread < 0.6 / rows**0.5, (kind, rows, spread)


def test_missing_outcomes_cost_little(asked: World) -> None:
    world = make_world(800, missing=0.6)
    forecast = fit_predictor("hybrid", world.table, world.vectors).predict(asked.vectors, asked.input_tokens)
    assert np.abs(forecast.quality - asked.chance).mean() < 0.08


def test_rows_without_any_outcome_are_left_out(world: World, asked: World) -> None:
    quality = world.table.quality.copy()
    quality[::2] = np.nan
    half = fit_predictor("kernel", replace(world.table, quality=quality), world.vectors)
    kept = np.arange(1, len(quality), 2)
    same = fit_predictor("kernel", world.table.rows(kept), world.vectors[kept])
    np.testing.assert_allclose(
        half.predict(asked.vectors, asked.input_tokens).quality, same.predict(asked.vectors, asked.input_tokens).quality
    )


@pytest.mark.parametrize(("outcomes", "bound"), [(20, 0.26), (200, 0.08)])
def test_a_new_model_is_judged_by_few_outcomes_beside_what_the_others_did(
    outcomes: int, bound: float, world: World, asked: World
) -> None:
    easy_first = np.argsort(world.topic, kind="stable") if outcomes == 20 else np.arange(800)
    quality, tokens = world.table.quality.copy(), world.table.output_tokens.copy()
    unseen = easy_first[outcomes:]
    quality[unseen, 1], tokens[unseen, 1] = np.nan, np.nan
    table = replace(world.table, quality=quality, output_tokens=tokens)
    forecast = fit_predictor("hybrid", table, world.vectors).predict(asked.vectors, asked.input_tokens)
    naive = np.nanmean(quality[:, 1])
    error = abs(forecast.quality[:, 1].mean() - asked.chance[:, 1].mean())
    assert error < bound
    if outcomes == 20:  # all of them easy questions: the others' answers to these tell that they were
        assert error < 0.75 * abs(naive - asked.chance[:, 1].mean())
    assert (np.median(forecast.quality_se, axis=0)[1] > np.median(forecast.quality_se, axis=0)[[0, 2]]).all()


def test_priors_are_checked(world: World) -> None:
    quality = world.table.quality.copy()
    quality[:, :2] = np.nan
    table = replace(world.table, quality=quality)
    circle = {"small": ModelPrior(assume_like="medium"), "medium": ModelPrior(assume_like="small")}
    with pytest.raises(InputError, match="circle: small -> medium -> small"):
        fit_predictor("prior", table, world.vectors, priors=circle)
    with pytest.raises(UnknownModelError, match="did you mean 'large'"):
        fit_predictor("prior", table, world.vectors, priors={"small": ModelPrior(assume_like="larg")})
    with pytest.raises(UnknownModelError, match="tiny"):
        fit_predictor("prior", table, world.vectors, priors={"tiny": ModelPrior(assumed_quality=0.5)})
    with pytest.raises(InputError, match="exactly one"):
        ModelPrior()
    with pytest.raises(InputError, match="must be in"):
        ModelPrior(assumed_quality=1.5)
    chain = {"small": ModelPrior(assume_like="medium"), "medium": ModelPrior(assume_like="large")}
    assert fit_predictor("prior", table, world.vectors, priors=chain).models == world.table.models


@pytest.mark.parametrize("kind", ["retrieval", "hybrid"])
def test_a_question_unlike_the_history_gets_the_prior_and_says_so(kind: str, world: World, asked: World) -> None:
    predictor = fit_predictor(kind, world.table, world.vectors)
    known = predictor.predict(asked.vectors, asked.input_tokens)
    assert np.median(known.familiarity) > 0.99
    strange = predictor.predict(_strangers(20), np.full(20, 55.0))
    assert strange.familiarity.max() < 0.1
    prior = fit_predictor("prior", world.table, world.vectors).predict(_strangers(20), np.full(20, 55.0))
    np.testing.assert_allclose(strange.quality, prior.quality, atol=0.05)
    assert (strange.quality_se.mean(axis=0) > 1.5 * known.quality_se.mean(axis=0)).all()
    assert (prior.familiarity == 0).all()


def _strangers(rows: int) -> Float32Array:
    vectors = np.random.default_rng(3).normal(size=(rows, DIMENSIONS)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


@pytest.mark.parametrize("rows", [60, 200, 800])
def test_the_truth_lies_within_two_standard_errors_as_a_rule(rows: int) -> None:
    world, asked = make_world(rows, seed=21), make_world(400, seed=22)
    forecast = fit_predictor("hybrid", world.table, world.vectors).predict(asked.vectors, asked.input_tokens)
    within = np.abs(forecast.quality - asked.chance) <= 2 * forecast.quality_se
    assert within.mean() > 0.85


def test_labels_teach_but_are_not_read(world: World, asked: World) -> None:
    unlabelled = replace(world.table, labels={})
    forecasts = [
        fit_predictor("trained", table, world.vectors).predict(asked.vectors, asked.input_tokens)
        for table in (world.table, unlabelled)
    ]
    assert np.abs(forecasts[0].quality - forecasts[1].quality).max() > 1e-4  # they were used to learn


def test_a_useless_opinion_does_no_harm(world: World, asked: World) -> None:
    plain = fit_predictor("mine", world.table, world.vectors, learners=[GaussianProcess()])
    wild = NearestNeighbors(neighbourhoods=((1, None),))
    both = fit_predictor("mine", world.table, world.vectors, learners=[GaussianProcess(), wild])
    errors = [np.abs(p.predict(asked.vectors, asked.input_tokens).quality - asked.chance).mean() for p in (plain, both)]
    assert errors[1] < errors[0] + 0.02


def test_the_papers_plain_mean_over_neighbours_is_an_option(world: World, asked: World) -> None:
    paper = fit_predictor(
        "paper", world.table, world.vectors, learners=[NearestNeighbors(neighbourhoods=((16, None),))]
    )
    assert np.abs(paper.predict(asked.vectors, asked.input_tokens).quality - asked.chance).mean() < 0.1


def test_a_part_of_a_concatenated_vector_that_tells_nothing_does_little_harm(world: World) -> None:
    draw = np.random.default_rng(0)
    wide = np.linalg.qr(draw.normal(size=(200, DIMENSIONS)))[0].T.astype(np.float32)
    features = np.linalg.qr(draw.normal(size=(12, 12)))[0][:, :2].T.astype(np.float32)
    first, narrow = world.vectors @ wide, np.eye(2, dtype=np.float32)[world.topic % 2] @ features
    noise = draw.normal(size=(800, 200)).astype(np.float32)
    second = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    vectors = np.concatenate([first, second, narrow], axis=1) / np.float32(3**0.5)
    predictor = fit_predictor("hybrid", world.table, vectors)
    forecast = predictor.predict(vectors, world.input_tokens)
    assert np.abs(forecast.quality - world.chance).mean() < 0.1


def test_a_history_of_fewer_than_ten_questions_is_the_prior() -> None:
    world = make_world(9)
    forecast = fit_predictor("hybrid", world.table, world.vectors).predict(world.vectors, world.input_tokens)
    assert (forecast.quality == forecast.quality[0]).all()
    assert (forecast.familiarity == 0).all()


def test_progress_is_told(world: World) -> None:
    told: list[str] = []
    small = world.rows(np.arange(60))
    fit_predictor("hybrid", small.table, small.vectors, progress=told.append)
    assert [line.split(",")[0] for line in told] == [
        "kernel",
        "linear",
        "clusters",
        "kernel_regression",
        "item_response",
        "trained",
    ]


@pytest.mark.parametrize("kind", LEARNERS)
def test_without_any_outcome_the_priors_speak_alone(kind: str, world: World) -> None:
    first, *others = world.table.models
    priors = {first: ModelPrior(assumed_quality=0.6)} | {name: ModelPrior(assume_like=first) for name in others}
    unknown = replace(world.table, quality=np.full(world.table.quality.shape, np.nan))
    for table, vectors in ((world.table.rows(np.arange(0)), world.vectors[:0]), (unknown, world.vectors)):
        forecast = fit_predictor(kind, table, vectors, priors=priors).predict(world.vectors[:3], np.full(3, 50.0))
        np.testing.assert_allclose(forecast.quality, 0.6)
        assert (forecast.quality_se > 0.3).all()
        assert (forecast.familiarity == 0).all()
        assert (forecast.output_tokens > 0).all()


def test_what_cannot_be_learnt_from_is_refused(world: World) -> None:
    table, vectors = world.table, world.vectors
    with pytest.raises(InputError, match="did you mean 'hybrid'"):
        fit_predictor("hybird", table, vectors)
    with pytest.raises(InputError, match="fine_tune"):
        fit_predictor("finetuned", table, vectors)
    with pytest.raises(InputError, match="one row for each"):
        fit_predictor("prior", table, vectors[:-1])
    with pytest.raises(InputError, match="NaN or infinity"):
        fit_predictor("prior", table, np.full_like(vectors, np.inf))
    with pytest.raises(InputError, match="model 'small' has no outcome"):
        fit_predictor("prior", table.rows(np.empty(0, dtype=int)), vectors[:0])
    with pytest.raises(InputError, match="model 'small' has no outcome"):
        fit_predictor("prior", replace(table, quality=np.full(table.quality.shape, np.nan)), vectors)
    with pytest.raises(InputError, match="outside"):
        fit_predictor("prior", replace(table, quality=table.quality + 0.5), vectors)
    with pytest.raises(InputError, match="negative output tokens"):
        fit_predictor("prior", replace(table, output_tokens=-table.output_tokens), vectors)


def add_all(history: MemoryHistory, world: World) -> None:
    """All of a world's outcomes."""
    place = {query: number for number, query in enumerate(world.table.queries)}
    outcomes = list(outcomes_of(world.table))
    history.add(outcomes, world.vectors[[place[outcome.query] for outcome in outcomes]])


def living(world: World) -> tuple[MemoryHistory, World, Callable[[], float]]:
    """(a history, what it knows, what is now expected of the first model for a question of topic 1)."""
    history = MemoryHistory("test", DIMENSIONS)
    kept = world.rows(np.arange(200))
    add_all(history, kept)
    predictor = OnlineRetrieval(history, kept.table.models)
    question = kept.vectors[kept.topic == 1][:1]
    return history, kept, lambda: float(predictor.predict(question, np.array([50.0])).quality[0, 0])


def test_a_living_history_counts_new_outcomes_at_once(world: World) -> None:
    history, _, quality = living(world)
    before = quality()
    near = make_world(120, seed=77)
    good = near.table.rows(near.topic == 1)
    good = replace(good, quality=np.ones_like(good.quality), queries=tuple(f"new {q}" for q in good.queries))
    ids = tuple(f"new {i}" for i in good.question_ids)
    add_all(history, replace(near.rows(np.flatnonzero(near.topic == 1)), table=replace(good, question_ids=ids)))
    after = quality()
    assert before < CHANCE[1, 0] + 0.15
    assert after > before + 0.1


def test_another_outcome_of_a_known_question_counts_at_once(world: World) -> None:
    history, kept, quality = living(world)
    before = quality()
    known = kept.rows(np.flatnonzero(kept.topic == 1))
    add_all(history, replace(known, table=replace(known.table, quality=np.ones_like(known.table.quality))))
    assert quality() > before + 0.1


def test_a_living_history_that_begins_empty_grows_from_its_priors(world: World) -> None:
    history = MemoryHistory("test", DIMENSIONS)
    names = world.table.models
    with pytest.raises(InputError, match="model 'small' has no outcome"):
        OnlineRetrieval(history, names)
    predictor = OnlineRetrieval(history, names, priors={name: ModelPrior(assumed_quality=0.6) for name in names})
    asked = world.vectors[:40]
    first = predictor.predict(asked, np.full(40, 50.0))
    np.testing.assert_allclose(first.quality, 0.6)
    assert (first.familiarity == 0).all()
    for start in range(0, 240, 3):
        add_all(history, world.rows(np.arange(start, start + 3)))
        forecast = predictor.predict(asked, np.full(40, 50.0))
    assert forecast.familiarity.mean() > 0.8
    assert np.abs(forecast.quality - world.chance[:40]).mean() < np.abs(first.quality - world.chance[:40]).mean() - 0.1


def _tokens(kind: str) -> FloatArray:
    """(60, 2) output tokens of which some or all are 0."""
    tokens = np.tile([0.0, 20.0], (60, 1))
    match kind:
        case "all of both":
            tokens[:, 1] = 0.0
        case "one single answer":
            tokens[:, 0] = np.nan
            tokens[3, 0] = 0.0
        case "some beside unknown ones":
            tokens[::2, 0] = np.nan
        case "the only ones counted":
            tokens[:, 1] = np.nan
    return tokens


ZEROS = ("all of one model", "all of both", "one single answer", "some beside unknown ones", "the only ones counted")


@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("kind", LEARNERS)
def test_answers_without_a_token_are_learned_from(kind: str, zeros: str) -> None:
    draw = np.random.default_rng(7)
    tokens = _tokens(zeros)
    names = tuple(f"q{row}" for row in range(len(tokens)))
    quality = (draw.random((len(tokens), 2)) < [0.6, 0.8]).astype(float)
    table = OutcomeTable(names, names, ("silent", "other"), quality, np.full((len(tokens), 2), 10.0), tokens)
    vectors = draw.normal(size=(len(tokens), 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with np.errstate(all="raise", under="ignore"):
        forecast = fit_predictor(kind, table, vectors).predict(vectors[:5], np.full(5, 10.0))
    for values in (forecast.quality, forecast.quality_se, forecast.output_tokens, forecast.output_tokens_high):
        assert np.isfinite(values).all()
    assert (forecast.output_tokens >= 0).all()
    assert (forecast.output_tokens[:, 0] < (3.0 if zeros == "one single answer" else 0.1)).all()
    if zeros in ("all of one model", "one single answer", "some beside unknown ones"):
        assert forecast.output_tokens[:, 1] == pytest.approx(20.0, abs=1.0)


def test_a_history_without_input_tokens_knows_questions_that_have_some(world: World, asked: World) -> None:
    table = replace(world.table, input_tokens=np.full_like(world.table.input_tokens, np.nan))
    predictor = fit_predictor("linear", table, world.vectors)
    unknown = predictor.predict(asked.vectors, np.full(len(asked.vectors), np.nan))
    told = predictor.predict(asked.vectors, np.full(len(asked.vectors), 5000.0))
    np.testing.assert_array_equal(told.familiarity, unknown.familiarity)
    np.testing.assert_array_equal(told.quality, unknown.quality)
