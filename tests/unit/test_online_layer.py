"""The online layer against a plain Bayesian regression, and its rules for labels."""

import itertools

import numpy as np
import pytest

from eccos_core.errors import InputError
from eccos_core.learning import OnlineLayer, choice_probabilities
from eccos_core.learning.linear_posterior import LinearPosterior, Prior

MODELS = ("small", "large")
DIMENSIONS = 12


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32)


def taught(count: int, *, order: np.ndarray | None = None, forget: float = 1.0) -> OnlineLayer:
    layer = OnlineLayer(MODELS, DIMENSIONS, forget=forget, questions=vectors(300, 1))
    read = vectors(count)
    for row in np.arange(count) if order is None else order:
        layer.learn(f"d{row}", MODELS[row % 2], read[row], 0.3 * (row % 2) + 0.1 * float(read[row, 0]))
    return layer


def dense_rows(features: np.ndarray) -> np.ndarray:
    """Return the inputs (3, 14) of three models with four features and parts of two."""
    rows = np.zeros((3, 14))
    for model in range(3):
        rows[model, :5] = 1.0, *features
        rows[model, 5 + 3 * model : 8 + 3 * model] = 1.0, *features[:2]
    return rows


def test_the_posterior_is_that_of_a_plain_bayesian_regression() -> None:
    random = np.random.default_rng(0)
    posterior = LinearPosterior(3, 4, 2, Prior())
    precision, moment = np.linalg.inv(posterior.covariance), np.zeros(14)
    for model in (0, 1, 2, 1, 1, 0):
        features, target = random.standard_normal(4), float(random.standard_normal())
        posterior.update(model, features, target)
        row = dense_rows(features)[model]
        precision += np.outer(row, row)
        moment += row * target
    np.testing.assert_allclose(posterior.covariance, np.linalg.inv(precision), atol=1e-10)
    np.testing.assert_allclose(posterior.weights, np.linalg.solve(precision, moment), atol=1e-10)
    rows = dense_rows(random.standard_normal(4))
    np.testing.assert_allclose(posterior.predict(rows[0, 1:5]), rows @ posterior.weights, atol=1e-12)
    expected = Prior().noise * rows @ posterior.covariance @ rows.T
    np.testing.assert_allclose(posterior.covariance_of_means(rows[0, 1:5]), expected, atol=1e-12)


@pytest.mark.parametrize("forget", [1.0, 0.999])
def test_the_fitted_prior_is_that_of_the_labels_and_makes_them_likelier(forget: float) -> None:
    random = np.random.default_rng(1)
    first = Prior(noise=0.2)
    weights = random.standard_normal(14) * np.array([0.1] + 4 * [0.25] + 3 * [0.3, 0.6, 0.6])
    posterior = LinearPosterior(3, 4, 2, first)
    inputs, targets = [], []
    for number in range(3000):
        row = dense_rows(random.standard_normal(4))[number % 3]
        target = float(row @ weights + 0.1 * random.standard_normal())
        posterior.update(number % 3, row[1:5], target, forget=forget)
        inputs.append(row)
        targets.append(target)
    posterior.fit_prior()
    assert posterior.prior.model_part > 2 * first.model_part  # sqrt(2) * .6 is true
    assert posterior.prior.question < first.question  # 2 * .25 is true
    kept = forget ** np.arange(2999, -1, -1)
    count = kept.sum()
    assert posterior.prior.noise == pytest.approx((0.01 * count + 20 * first.noise) / (count + 20), rel=0.1)
    x, y = np.array(inputs), np.array(targets)
    precision = (x.T * kept) @ x + np.diag(1 / posterior._prior_variance())
    np.testing.assert_allclose(posterior.weights, np.linalg.solve(precision, (x.T * kept) @ y), atol=1e-8)


def test_a_corrected_label_counts_in_the_fitted_prior_as_if_it_came_first() -> None:
    features = np.random.default_rng(2).standard_normal((50, 4))
    corrected, direct = LinearPosterior(3, 4, 2, Prior()), LinearPosterior(3, 4, 2, Prior())
    for row in range(50):
        corrected.update(row % 3, features[row], 0.9 if row == 7 else 0.1 * row % 1)
        direct.update(row % 3, features[row], 0.1 * row % 1)
    corrected.shift(7 % 3, features[7], 0.9, 0.1 * 7 % 1)
    for each in (corrected, direct):
        each.fit_prior()
    np.testing.assert_allclose(corrected.weights, direct.weights, atol=1e-9)
    assert corrected.prior.noise == pytest.approx(direct.prior.noise)


def test_it_learns_what_the_predictor_misses_and_becomes_surer() -> None:
    before, after = OnlineLayer(MODELS, DIMENSIONS), taught(400)
    question, quality = vectors(1, 9)[0], np.array([0.5, 0.5])
    np.testing.assert_array_equal(before.correct(question, quality).quality, quality)
    made = after.correct(question, quality)
    expected = np.clip(quality + np.array([0.1, 0.1]) * question[0] + np.array([0.0, 0.3]), 0, 1)
    np.testing.assert_allclose(made.quality, expected, atol=0.08)
    assert (made.quality_se < 0.5 * before.correct(question, quality).quality_se).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_labels_does_not_matter(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(60)
    question, quality = vectors(1, 9)[0], np.array([0.5, 0.5])
    ordered, shuffled = taught(60).correct(question, quality), taught(60, order=order).correct(question, quality)
    np.testing.assert_allclose(shuffled.quality, ordered.quality, atol=1e-9)
    np.testing.assert_allclose(shuffled.covariance, ordered.covariance, atol=1e-9)


def test_the_same_label_again_changes_nothing_and_another_replaces_it() -> None:
    question, quality = vectors(1, 9)[0], np.array([0.5, 0.5])
    layer, read = taught(40), vectors(40)
    before = layer.correct(question, quality).quality
    layer.learn("d3", MODELS[1], read[3], 0.3 + 0.1 * float(read[3, 0]))
    np.testing.assert_allclose(layer.correct(question, quality).quality, before, atol=1e-12)
    layer.learn("d3", MODELS[1], read[3], -0.9)
    assert not np.allclose(layer.correct(question, quality).quality, before, atol=1e-4)
    layer.learn("d3", MODELS[1], read[3], 0.3 + 0.1 * float(read[3, 0]))
    np.testing.assert_allclose(layer.correct(question, quality).quality, before, atol=1e-12)
    assert len(layer) == 40


def test_axes_are_fitted_on_the_labelled_questions() -> None:
    layer, read = OnlineLayer(MODELS, DIMENSIONS), vectors(400)
    for row in range(400):
        layer.learn(f"d{row}", "small", read[row], 0.2 * float(read[row, 0]))
    low, high = np.zeros(DIMENSIONS, np.float32), np.zeros(DIMENSIONS, np.float32)
    low[0], high[0] = -1, 1
    quality = np.array([0.5, 0.5])
    assert layer.correct(high, quality).quality[0] - layer.correct(low, quality).quality[0] > 0.2


def test_a_model_that_changed_is_followed_sooner_by_forgetting() -> None:
    found = []
    for forget in (1.0, 0.98):
        layer, read = OnlineLayer(MODELS, DIMENSIONS, forget=forget, questions=vectors(300, 1)), vectors(600)
        for row in range(600):
            layer.learn(f"d{row}", "small", read[row], 0.3 if row < 500 else -0.3)
        found.append(layer.correct(np.zeros(DIMENSIONS, np.float32), np.array([0.5, 0.5])).quality[0])
    assert found[1] < 0.35 < found[0]


@pytest.mark.parametrize(
    ("model", "vector", "missed", "message"),
    [
        ("other", np.zeros(DIMENSIONS), 0.1, "does not know the model 'other'; it knows small, large"),
        ("small", np.zeros(3), 0.1, r"shape \(3,\), must be \(12,\)"),
        ("small", np.zeros(DIMENSIONS), float("nan"), "not finite"),
        ("small", np.full(DIMENSIONS, np.inf), 0.1, "not finite"),
    ],
)
def test_a_label_that_cannot_be_learned_is_refused(model: str, vector: np.ndarray, missed: float, message: str) -> None:
    layer = OnlineLayer(MODELS, DIMENSIONS)
    with pytest.raises(InputError, match=message):
        layer.learn("d", model, vector.astype(np.float32), missed)
    assert len(layer) == 0


@pytest.mark.parametrize("forget", [0.0, -1.0, 1.01])
def test_a_weight_of_older_labels_outside_its_range_is_refused(forget: float) -> None:
    with pytest.raises(InputError, match="must be above 0 and at most 1"):
        OnlineLayer(MODELS, DIMENSIONS, forget=forget)


@pytest.mark.parametrize(("explore", "share"), list(itertools.product(("thompson", "epsilon", "off"), (0.0, 0.3, 1.0))))
def test_probabilities_sum_to_one_and_only_allowed_models_have_one(explore, share) -> None:  # type: ignore[no-untyped-def]
    value, allowed = np.array([0.5, 0.9, 0.6, 0.1]), np.array([True, False, True, True])
    random = np.random.default_rng(0)
    found = choice_probabilities(explore, share, 2, value, 0.05 * np.eye(4), allowed, random)
    assert found.sum() == pytest.approx(1.0)
    assert found[1] == 0.0
    if explore == "off" or share == 0:
        np.testing.assert_array_equal(found, [0, 0, 1, 0])
    else:
        assert (found[allowed] > 0).all()
        assert found[2] > 1 - share - 1e-9


def test_thompson_sampling_explores_where_the_values_are_unsure() -> None:
    value, allowed = np.array([0.5, 0.6]), np.ones(2, dtype=np.bool_)
    sure = choice_probabilities("thompson", 1.0, 1, value, 1e-6 * np.eye(2), allowed, np.random.default_rng(0))
    unsure = choice_probabilities("thompson", 1.0, 1, value, 1.0 * np.eye(2), allowed, np.random.default_rng(0))
    shared = choice_probabilities("thompson", 1.0, 1, value, np.ones((2, 2)), allowed, np.random.default_rng(0))
    assert sure[1] > 0.99
    assert unsure[1] < 0.8
    assert shared[1] > 0.99  # what both do not know cannot change their order
