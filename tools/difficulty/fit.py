"""Fit the difficulty that ships with eccos: `python -m tools.difficulty.fit`.

Run it after you change `questions.txt`, or the static or the surface encoder. A test compares the result.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder
from eccos_core.encoders.surface import FEATURES
from eccos_core.io.files import atomic_writer
from eccos_core.predictors.difficulty import difficulty_path

QUESTIONS = Path(__file__).with_name("questions.txt")
PENALTY = 10.0  # of the ridge regression: with 156 questions, only the broad direction counts
LENGTH_SHARE = 0.3  # of what length explains, taken off: a long question already costs more
FOLDS = 10
_LENGTHS = ("log characters", "log words", "log lines", "log characters of the first line", "log sentences")
DIGITS = 6


def read_questions(path: Path = QUESTIONS) -> tuple[list[str], FloatArray]:
    """Read the texts, and their levels (N,) from 1 to 5. A line holds a level, a space and a question."""
    rows = [line.split(" ", 1) for line in path.read_text(encoding="utf-8").splitlines()]
    return [text for _, text in rows], np.array([float(level) for level, _ in rows])


def fit_direction(vectors: FloatArray, levels: FloatArray) -> tuple[FloatArray, float]:
    """Return weights (D,) and offset of a ridge regression of standardised levels (N,) on vectors (N, D).

    The surface features of length, and the one that fills the vector up to length one, have no weight of their own.
    """
    surface = vectors.shape[1] - len(FEATURES) - 1
    lengths = [surface + at for at, (name, _, _) in enumerate(FEATURES) if name in _LENGTHS]
    kept = np.setdiff1d(np.arange(vectors.shape[1]), [*lengths, vectors.shape[1] - 1])
    mean = vectors.mean(axis=0)
    centred = (vectors - mean)[:, kept]
    target = (levels - levels.mean()) / levels.std()
    gram = centred @ centred.T + PENALTY * np.eye(len(centred))
    weights = np.zeros(vectors.shape[1])
    weights[kept] = centred.T @ np.linalg.solve(gram, target)
    fitted = (vectors - mean) @ weights
    weights, fitted = weights / fitted.std(), fitted / fitted.std()
    characters = vectors[:, surface]
    weights[surface] -= LENGTH_SHARE * np.polyfit(characters, fitted, 1)[0]
    return weights, float(-mean @ weights)


def held_out_correlation(vectors: FloatArray, levels: FloatArray) -> float:
    """Return the correlation of levels with difficulties that ten folds predict for one another."""
    fold = np.random.default_rng(0).permutation(len(levels)) % FOLDS
    forecast = np.empty(len(levels))
    for at in range(FOLDS):
        weights, offset = fit_direction(vectors[fold != at], levels[fold != at])
        forecast[fold == at] = vectors[fold == at] @ weights + offset
    return float(np.corrcoef(forecast, levels)[0, 1])


def make_direction() -> dict[str, object]:
    """Fit the direction, and describe what it was made from."""
    encoder = ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])
    texts, levels = read_questions()
    vectors = encoder.encode(texts).astype(np.float64)
    weights, offset = fit_direction(vectors, levels)
    return {
        "encoder": encoder.name,
        "questions": len(texts),
        "questions_sha256": hashlib.sha256(QUESTIONS.read_bytes()).hexdigest(),
        "held_out_correlation": round(held_out_correlation(vectors, levels), 2),
        "offset": round(offset, DIGITS),
        "weights": [round(float(weight), DIGITS) for weight in weights],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, write, and say how well levels are told apart."""
    parser = argparse.ArgumentParser(prog="python -m tools.difficulty.fit", description=__doc__)
    parser.add_argument("--out", type=Path, default=difficulty_path(), help="file to write to")
    out = parser.parse_args(arguments).out
    made = make_direction()
    with atomic_writer(out) as stream:
        stream.write(json.dumps(made).encode() + b"\n")
    sys.stderr.write(f"{out}: {out.stat().st_size} bytes, held-out correlation {made['held_out_correlation']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
