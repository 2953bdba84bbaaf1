"""The predictor that ships with the pocket pool is what our code makes of the bundled history."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eccos_core.assembly.encoder import build_encoder
from eccos_core.backends.local.model import EngineOptions, load_model
from eccos_core.backends.local.worker import new_batch
from eccos_core.config import load_config
from eccos_core.io.outcomes import read_outcomes
from eccos_core.pocket import (
    pocket_models_folder,
    pocket_names,
    pocket_path,
    pocket_predictor_path,
    pool_config_path,
    pool_history_path,
)
from eccos_core.predictors import load_predictor
from tools.pocket.fit_predictor import COMMAND, current_digests, fit_pocket_predictor, recorded_digests


def test_the_shipped_predictor_was_made_from_this_code_and_this_history() -> None:
    assert recorded_digests(pocket_predictor_path()) == current_digests(), f"run `{COMMAND}`"


def test_the_shipped_predictor_is_small() -> None:
    assert sum(file.stat().st_size for file in pocket_predictor_path().iterdir()) < 5_000_000


@pytest.mark.timeout(300)
def test_fitting_again_gives_the_same_forecasts(tmp_path: Path) -> None:
    config = load_config(pool_config_path())
    encoder = build_encoder(config.encoder)
    fit_pocket_predictor(tmp_path / "again")
    table = read_outcomes(pool_history_path()).rows(np.arange(200))
    vectors = encoder.encode(table.queries)
    tokens = np.full(200, 12.0)
    shipped, again = (
        load_predictor(folder, encoder=encoder.name).predict(vectors, tokens)
        for folder in (pocket_predictor_path(), tmp_path / "again")
    )
    np.testing.assert_allclose(shipped.quality, again.quality, atol=0.01)
    np.testing.assert_allclose(shipped.output_tokens, again.output_tokens, rtol=0.02)


@pytest.mark.parametrize("name", pocket_names())
def test_numpy_computes_what_torch_computes(name: str) -> None:
    """Rows of different length that join and leave: the same logits to 1e-4, the same tokens, the same text."""
    import torch

    folder = pocket_path(name)
    assert folder.parent == pocket_models_folder()
    ours, theirs = (load_model(name, folder, EngineOptions(device=device)) for device in (None, "cpu"))
    assert (ours.context_window, ours.end_ids, ours.max_new_tokens) == (256, theirs.end_ids, theirs.max_new_tokens)
    questions = ["What is 17 + 25?", "What is the capital of France?", "Is 7 larger than 3?", "2 * 3", "", "naïve ½"]
    prompts = [ours.prompt_ids([{"role": "user", "content": text}]) for text in questions]
    assert prompts == [theirs.prompt_ids([{"role": "user", "content": text}]) for text in questions]
    mine, torchs = new_batch(ours), new_batch(theirs)
    greedy = (0.0, 1.0, 0.0)
    with torch.inference_mode():
        for some in (prompts[:4], prompts[4:]):
            (logits, *rows), (expected, *their_rows) = mine.prefill(some), torchs.prefill(some)
            np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)
            mine.join(*rows)
            torchs.join(*their_rows)
            tokens = [1] * mine.size
            for _ in range(3):
                logits, expected = mine.step(tokens), torchs.step(tokens)
                np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)
                tokens = mine.choose(logits, [greedy] * mine.size)
                assert tokens == torchs.choose(expected, [greedy] * torchs.size)
            mine.keep([2, 0])
            torchs.keep([2, 0])
        for draw in ((0.7, 0.9, 0.31), (1.3, 1.0, 0.99), (1.0, 0.2, 0.0)):
            assert mine.choose(logits, [draw] * len(logits)) == torchs.choose(expected, [draw] * len(logits))
    assert ours.decode([*prompts[0], *tokens]) == theirs.decode([*prompts[0], *tokens])
