"""ECCOS-T, fine-tuned end to end: learns, is resumed after a kill, and is refused where it does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_encoder import make_tiny_model

from eccos_core.domain import OutcomeTable
from eccos_core.errors import ArtifactError, InputError
from eccos_core.predictors import FineTuning, fine_tune, load_fine_tuned
from eccos_core.predictors.finetune.settings import bucket_edges, bucket_tokens
from eccos_core.protocols import Encoder, Predictor

SETTINGS = FineTuning(
    epochs=6, batch_size=16, learning_rate=3e-3, head_learning_rate=1e-2, patience=6, max_tokens=16, device="cpu"
)
WORDS = {0: ("capital", "france", "paris", "berlin"), 1: ("sum", "two", "three", "plus")}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_model(folder)
    return folder / "source"


def world(rows: int, seed: int = 0) -> tuple[OutcomeTable, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Questions about capitals, which model one knows, and sums, which model two knows and answers at length."""
    draw = np.random.default_rng(seed)
    topic = draw.integers(2, size=rows)
    chance = np.where(topic[:, None] == 0, [[0.95, 0.1]], [[0.1, 0.95]])
    table = OutcomeTable(
        question_ids=tuple(f"{seed}-{number}" for number in range(rows)),
        queries=tuple(" ".join(draw.choice(WORDS[int(t)], size=5)) for t in topic),
        models=("one", "two"),
        quality=(draw.random((rows, 2)) < chance).astype(float),
        input_tokens=np.full((rows, 2), 5.0),
        output_tokens=np.where(topic[:, None] == 0, 10.0, 400.0) * np.exp(0.1 * draw.normal(size=(rows, 2))),
    )
    return table, topic


def test_it_learns_from_the_text_and_loads_as_it_was(source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, float]] = []
    encoder, predictor = fine_tune(
        world(240)[0], source, tmp_path / "out", SETTINGS, progress=lambda *step: told.append(step)
    )
    assert isinstance(encoder, Encoder)
    assert isinstance(predictor, Predictor)
    asked, topic = world(40, seed=1)
    vectors = encoder.encode(asked.queries)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    forecast = predictor.predict(vectors, np.full(40, 5.0))
    assert forecast.quality[topic == 0, 0].mean() > 0.75 > 0.35 > forecast.quality[topic == 0, 1].mean()
    assert forecast.output_tokens[topic == 1].mean() > 3 * forecast.output_tokens[topic == 0].mean()
    assert (forecast.output_tokens_high >= forecast.output_tokens).all()
    assert told[-1][0] <= told[-1][1] == 6 * 14
    assert told[-1][2] < told[0][2]
    again, same = load_fine_tuned(tmp_path / "out", device="cpu")
    assert again.name == encoder.name
    np.testing.assert_allclose(same.predict(again.encode(asked.queries), np.full(40, 5.0)).quality, forecast.quality)
    with pytest.raises(InputError, match="fine-tuned with it"):
        predictor.predict(vectors[:, :-1], np.full(40, 5.0))


def test_an_interrupted_run_ends_like_one_that_was_not(source: Path, tmp_path: Path) -> None:
    table, settings = world(60)[0], replace(SETTINGS, epochs=3)

    class KilledError(Exception):
        pass

    def kill(done: int, total: int, loss: float) -> None:
        if done == total // 3 + 2:
            raise KilledError

    with pytest.raises(KilledError):
        fine_tune(table, source, tmp_path / "killed", settings, progress=kill)
    steps: list[int] = []
    fine_tune(table, source, tmp_path / "killed", settings, progress=lambda done, total, loss: steps.append(done))
    assert steps[0] == 4 + 1  # four steps an epoch; the first epoch was whole
    assert not (tmp_path / "killed" / "checkpoint").exists()
    fine_tune(table, source, tmp_path / "whole", settings)
    ends = [load_fine_tuned(tmp_path / name, device="cpu") for name in ("killed", "whole")]
    forecasts = [p.predict(e.encode(table.queries[:5]), np.full(5, 5.0)).quality for e, p in ends]
    np.testing.assert_array_equal(forecasts[0], forecasts[1])


def test_a_checkpoint_of_another_run_is_refused(source: Path, tmp_path: Path) -> None:
    def kill(done: int, total: int, loss: float) -> None:
        if done == total - 1:
            raise KeyboardInterrupt

    settings = replace(SETTINGS, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(world(40)[0], source, tmp_path / "out", settings, progress=kill)
    with pytest.raises(ArtifactError, match="another run"):
        fine_tune(world(40, seed=5)[0], source, tmp_path / "out", settings)


def test_what_cannot_be_fine_tuned_is_refused(source: Path, tmp_path: Path) -> None:
    table = world(40)[0]
    with pytest.raises(InputError, match="at least 8"):
        fine_tune(table.rows(np.arange(3)), source, tmp_path / "out", SETTINGS)
    unseen = np.where([[True, False]], table.quality, np.nan)
    with pytest.raises(InputError, match="no outcome of two"):
        fine_tune(replace(table, quality=unseen), source, tmp_path / "out", SETTINGS)
    with pytest.raises(ArtifactError, match="no Hugging Face encoder"):
        fine_tune(table, tmp_path / "nothing", tmp_path / "out", SETTINGS)
    with pytest.raises(ArtifactError, match="no fine-tuned predictor"):
        load_fine_tuned(tmp_path / "nothing")


def test_missing_outcomes_and_uncounted_tokens_are_no_obstacle(source: Path, tmp_path: Path) -> None:
    table = world(40)[0]
    quality = table.quality.copy()
    quality[::2, 0] = np.nan
    nowhere = replace(table, quality=quality, output_tokens=np.full((40, 2), np.nan))
    encoder, predictor = fine_tune(nowhere, source, tmp_path / "out", replace(SETTINGS, epochs=1))
    forecast = predictor.predict(encoder.encode(["capital of france"]), np.array([5.0]))
    assert np.isfinite(forecast.quality).all()
    assert (forecast.output_tokens == 256).all()


def test_buckets_split_the_counts_and_remember_each_models_mean() -> None:
    tokens = np.array([[10.0, np.nan], [20.0, 2000.0], [400.0, 1000.0], [500.0, np.nan]])
    edges = bucket_edges(tokens, 2)
    assert len(edges) == 1
    means = bucket_tokens(tokens, edges)
    assert means.shape == (2, 2)
    assert means[0, 0] < 150 < means[0, 1] == 500 < means[1, 1] == 1500
    assert means[1, 0] == means[0, 0]  # never seen: the pool's
    assert bucket_edges(np.full((3, 2), np.nan), 4).size == 0
