"""The parts of a predictor, each on its own: ridge, stack, calibration, lengths, imputation, distances."""

from __future__ import annotations

import numpy as np
import pytest

from eccos_core.predictors.ensemble.calibration import ProbabilityCalibration, fit_calibration, identity
from eccos_core.predictors.ensemble.token_lengths import fit_token_lengths
from eccos_core.predictors.ensemble.weights import fit_stacking_weights
from eccos_core.predictors.features.block_scaling import block_weights, find_blocks, surface_columns
from eccos_core.predictors.features.nearness import fit_nearness
from eccos_core.predictors.features.projection import (
    Projection,
    nearest_distances,
    nearest_neighbors,
    nearest_other_landmarks,
    nearest_other_rows,
    squared_distances,
)
from eccos_core.predictors.learners.knn import kernel_weights
from eccos_core.predictors.learners.ridge import fit_ridge
from eccos_core.predictors.learners.training_set import assign_folds
from eccos_core.predictors.targets.imputation import conditional_expectation, covariance, impute
from eccos_core.predictors.targets.prior import TYPICAL_OUTPUT_TOKENS, shrunk_means

DRAW = np.random.default_rng


def test_ridge_predicts_each_fold_as_if_fitted_without_it() -> None:
    draw = DRAW(0)
    features = draw.normal(size=(60, 5)).astype(np.float32)
    values = (features @ draw.normal(size=(5, 2)) + draw.normal(size=(60, 2))).astype(np.float32)
    fold = assign_folds(60, 0)
    _, held_out = fit_ridge(features, values, fold, (2.0,), np.array([0, 0]))
    for k in range(5):
        others = features[fold != k].astype(np.float64)
        weights = np.linalg.solve(others.T @ others + 2.0 * np.eye(5), others.T @ values[fold != k])
        np.testing.assert_allclose(held_out[fold == k], features[fold == k] @ weights, atol=1e-3)


def test_ridge_takes_the_strength_that_predicts_a_group_best() -> None:
    draw = DRAW(1)
    features = draw.normal(size=(200, 30)).astype(np.float32)
    clear = features @ draw.normal(size=(30, 1))
    values = np.concatenate([clear, draw.normal(size=(200, 1))], axis=1).astype(np.float32)
    weights, held_out = fit_ridge(features, values, assign_folds(200, 0), (0.1, 1e5), np.array([0, 1]))
    assert np.corrcoef(held_out[:, 0], values[:, 0])[0, 1] > 0.99
    assert np.abs(weights[:, 1]).max() < 0.01  # nothing to learn: the strong ridge


def test_a_stack_gives_noise_nothing_and_truth_its_weight() -> None:
    draw = DRAW(2)
    truth = draw.normal(size=2000)
    values = np.stack([truth + draw.normal(size=2000), draw.normal(size=2000)], axis=1)
    predictions = np.stack([np.stack([truth, draw.normal(size=2000)]), draw.normal(size=(2, 2000))]).transpose(2, 0, 1)
    weights = fit_stacking_weights([predictions.astype(np.float32)], values).weights
    assert weights[0, 0] > 0.85
    assert weights[1, 0] < 0.1
    assert weights[:, 1].max() < 0.05


def test_a_stack_starts_from_the_self_shrinking_learner_and_leaves_it_with_more_rows() -> None:
    draw = DRAW(12)

    def weights(rows: int) -> list[float]:
        truth = draw.normal(size=rows)
        each = [
            draw.normal(size=(rows, 1)),
            truth[:, None],
            draw.normal(size=(rows, 2)),
        ]  # the first learner predicts nothing
        predictions = [prediction[:, :, None].astype(np.float32) for prediction in each]
        return fit_stacking_weights(predictions, truth[:, None], self_shrinking=0).weights[:, 0].tolist()

    few, many = weights(4), weights(20_000)
    assert few[0] > 0.2
    assert few[2] == pytest.approx(few[3], abs=0.05)
    np.testing.assert_allclose(many, [0.0, 1.0, 0.0, 0.0], atol=0.05)


def test_learners_that_cannot_be_told_apart_share_the_weight() -> None:
    draw = DRAW(3)
    truth = draw.normal(size=40)
    predictions = np.stack([truth + 0.5 * draw.normal(size=40) for _ in range(4)], axis=1)[:, :, None]
    weights = fit_stacking_weights([predictions.astype(np.float32)], truth[:, None]).weights[:, 0]
    assert weights.max() / weights.min() < 1.7
    assert weights.sum() > 0.8


def test_calibration_repairs_what_is_too_sure_and_leaves_what_is_right() -> None:
    draw = DRAW(4)
    chance = draw.uniform(0.2, 0.8, size=(4000, 2))
    quality = (draw.random((4000, 2)) < chance).astype(float)
    right = fit_calibration(chance, quality)
    assert right.slope == pytest.approx(1, abs=0.08)
    odds = 3 * np.log(chance / (1 - chance))
    sure = 1 / (1 + np.exp(-odds))
    repaired = fit_calibration(sure, quality)
    assert repaired.slope == pytest.approx(1 / 3, abs=0.03)
    np.testing.assert_allclose(repaired.apply(sure), chance, atol=0.03)


def test_few_outcomes_hardly_move_the_calibration() -> None:
    found = fit_calibration(np.full((3, 1), 0.6), np.zeros((3, 1)))
    assert abs(found.apply(np.array([[0.6]]))[0, 0] - 0.6) < 0.06


def test_impossible_raw_forecasts_become_possible() -> None:
    assert identity().apply(np.array([-0.5, 1.5])) == pytest.approx([0.01, 0.99])
    assert ProbabilityCalibration(1.0, 0.0).apply(np.array([0.3])) == pytest.approx([0.3])


def test_lengths_have_the_right_mean_and_quantile() -> None:
    draw = DRAW(5)
    logs = draw.normal(5, 0.7, size=(5000, 2))
    tokens = np.exp(logs + draw.normal(size=(5000, 2)) * np.array([0.2, 1.0]))
    lengths = fit_token_lengths(logs, tokens)
    direct = np.tile(tokens.mean(axis=0), (5000, 1))
    smooth = 2 * lengths.mean(logs, direct) - np.maximum(direct, 0)
    np.testing.assert_allclose(smooth.mean(axis=0), tokens.mean(axis=0), rtol=0.02)
    high = lengths.high_quantile(logs, np.zeros_like(logs))
    np.testing.assert_allclose((tokens <= high).mean(axis=0), 0.9, atol=0.01)


def test_lengths_of_a_model_nobody_counted_follow_the_pool() -> None:
    logs = np.full((50, 2), np.log1p(100.0))
    tokens = np.stack([np.full(50, 200.0), np.full(50, np.nan)], axis=1)
    lengths = fit_token_lengths(logs, tokens)
    mean = lengths.mean(logs, np.full((50, 2), 200.0))
    np.testing.assert_allclose(mean, 200.0, rtol=0.05)
    nobody = fit_token_lengths(np.full((5, 1), np.log1p(TYPICAL_OUTPUT_TOKENS)), np.full((5, 1), np.nan))
    at = np.full((5, 1), np.log1p(TYPICAL_OUTPUT_TOKENS))
    np.testing.assert_allclose(nobody.mean(at, np.full((5, 1), TYPICAL_OUTPUT_TOKENS)), TYPICAL_OUTPUT_TOKENS)


def test_the_expectation_from_other_cells_is_the_gaussian_one() -> None:
    draw = DRAW(6)
    truth = np.array([[1.0, 0.6, 0.3], [0.6, 1.0, 0.5], [0.3, 0.5, 1.0]])
    values = draw.multivariate_normal(np.zeros(3), truth, size=50)
    values[::3, 0] = np.nan
    values[1, 1:] = np.nan
    found = conditional_expectation(values, truth)
    for row in range(50):
        for cell in range(3):
            seen = [c for c in range(3) if c != cell and not np.isnan(values[row, c])]
            right = truth[cell, seen] @ np.linalg.solve(truth[np.ix_(seen, seen)], values[row, seen]) if seen else 0.0
            assert found[row, cell] == pytest.approx(right, abs=1e-4)
    filled = impute(values, truth)
    np.testing.assert_array_equal(filled[~np.isnan(values)], values[~np.isnan(values)])


def test_the_covariance_is_shrunk_and_positive() -> None:
    draw = DRAW(7)
    values = draw.normal(size=(8, 6))
    found = covariance(values, {})
    assert np.linalg.eigvalsh(found).min() > 0
    off = found[~np.eye(6, dtype=bool)] / found.diagonal().mean()
    assert off.std() < 0.15  # eight questions cannot tell pairs apart
    many = draw.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], size=20_000)
    assert covariance(many, {})[0, 1] == pytest.approx(0.9, abs=0.02)


def test_means_are_drawn_to_their_priors() -> None:
    values = np.array([[1.0, 0.0, np.nan], [1.0, 0.0, np.nan]])
    np.testing.assert_allclose(shrunk_means(values, {}, {}, 0.5, 0.0), [1.0, 0.0, 0.5])
    drawn = shrunk_means(values, {2: 0}, {1: 0.9}, 0.5)
    assert drawn[2] == drawn[0]
    assert drawn[1] == pytest.approx(0.9 * 20 / 22)
    assert shrunk_means(np.full((2, 1), np.nan), {}, {}, 0.5)[0] == 0.5


def test_distances_and_neighbours_are_exact() -> None:
    draw = DRAW(8)
    points = draw.normal(size=(50, 6)).astype(np.float32)
    squared = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(squared_distances(points, points), squared, atol=1e-4)
    near = nearest_neighbors(squared[:3].astype(np.float32), 5)
    np.testing.assert_array_equal(near.rows, np.argsort(squared[:3], axis=1, kind="stable")[:, :5])
    others = nearest_other_rows(points, 4)
    np.testing.assert_array_equal(others.rows, np.argsort(squared, axis=1, kind="stable")[:, 1:5])
    assert nearest_other_rows(points[:3], 10).rows.shape == (3, 2)


def test_the_nearest_landmarks_leave_out_the_row_itself_and_put_the_closest_first() -> None:
    points = DRAW(13).normal(size=(600, 4)).astype(np.float32)
    landmarks = np.arange(0, 600, 3)
    found = nearest_other_landmarks(points, landmarks)
    squared = ((points[:, None].astype(np.float64) - points[None, landmarks]) ** 2).sum(axis=2)
    squared[landmarks, np.arange(200)] = np.inf
    exact = np.sort(squared, axis=1)[:, :64]
    np.testing.assert_allclose(np.sort(found, axis=1), exact, atol=1e-4)
    np.testing.assert_allclose(np.sort(found[:, :8], axis=1), exact[:, :8], atol=1e-4)
    assert nearest_other_landmarks(points[:3], np.array([0, 2])).shape == (3, 1)
    assert not np.isinf(nearest_other_landmarks(points[:3], np.array([0, 2]))).any()


def test_kernel_weights_sum_to_one_and_fall_with_distance() -> None:
    weights = kernel_weights(np.array([[0.1, 0.2, 5.0]], dtype=np.float32), 3, 0.5)
    assert weights.sum() == pytest.approx(1)
    assert (np.diff(weights[0]) < 0).all()
    np.testing.assert_allclose(kernel_weights(np.array([[0.1, 0.2, 5.0]], np.float32), 2, np.inf), [[0.5, 0.5, 0.0]])


def test_an_unknown_input_length_counts_as_typical() -> None:
    vectors = np.eye(12, dtype=np.float32)
    projection = Projection.fit(vectors, np.exp(np.linspace(3, 6, 12)))
    typical = float(np.expm1(projection.log_length[0]))
    np.testing.assert_allclose(
        projection.features(vectors[:1], np.array([np.nan])),
        projection.features(vectors[:1], np.array([typical])),
        atol=1e-5,
    )


def test_the_parts_of_a_concatenated_vector_are_found() -> None:
    draw = DRAW(9)

    def unit(width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        rows = draw.normal(size=(40, width)).astype(np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)

    whole = np.concatenate([0.6 * unit(256), 0.7 * unit(200), 0.3 * unit(18)], axis=1)
    assert [(p.start, p.stop) for p in find_blocks(whole)] == [(0, 256), (256, 456), (456, 474)]
    assert [p.stop for p in find_blocks(unit(384))] == [384]
    assert [p.stop for p in find_blocks(whole[:5])] == [474]  # too few rows to tell
    assert surface_columns(find_blocks(whole)).tolist() == list(range(456, 474))
    assert not len(surface_columns([slice(0, 18)]))  # of one piece: no telling what is how a text looks


def test_every_block_is_scaled_to_the_same_deviation() -> None:
    draw = DRAW(11)
    wide, faint = draw.normal(size=(500, 200)), 3.0 + 0.01 * draw.normal(size=(500, 300))
    words, still = draw.normal(size=(500, 100)), np.ones((500, 20))
    vectors = np.concatenate([wide, faint, words, still], axis=1).astype(np.float32)
    blocks = [slice(0, 200), slice(200, 500), slice(500, 600), slice(600, 620)]
    scaled = vectors * block_weights(vectors, blocks)
    deviations = [float(np.sqrt(scaled[:, part].var(axis=0).sum())) for part in blocks]
    assert deviations[1] == pytest.approx(deviations[0], rel=1e-3)
    assert deviations[2] == pytest.approx(0.7 * deviations[0], rel=1e-3)
    assert deviations[3] == 0.0  # a part that never varied


def test_nearness_falls_with_distance_and_never_within_the_history() -> None:
    points = DRAW(10).normal(size=(300, 8)).astype(np.float32)
    others = nearest_other_landmarks(points, np.arange(300))
    model = fit_nearness(others, np.zeros(300))
    assert np.median(model.score(model.distance(others, np.zeros(300)))) == 1
    far = [nearest_distances(squared_distances(points[:1] + np.float32(shift), points)) for shift in (0, 1, 2, 4)]
    scores = [float(model.score(model.distance(near, np.zeros(1)))[0]) for near in far]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.01
    assert model.score(model.distance(others, np.full(300, 50.0))).max() < 0.01  # what the axes leave out counts too
