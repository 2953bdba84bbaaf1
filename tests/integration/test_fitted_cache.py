"""What was fitted is kept, and found again only by the code that fitted it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import eccos_core

FIT = """
import sys
import numpy as np
from eccos_core.assembly.predictor import TrainingData, load_or_fit
from eccos_core.config import load_config
from eccos_core.domain import OutcomeTable
from eccos_core.testing import WordEncoder

words = [f"word{number}" for number in range(20)]
encoder = WordEncoder(words)
quality = np.tile([[0.0, 1.0], [1.0, 1.0]], (10, 1))
table = OutcomeTable(tuple(words), tuple(words), ("a", "b"), quality, np.full((20, 2), 9.0), np.full((20, 2), 5.0))
stages = []
load_or_fit(load_config(sys.argv[1]), encoder, TrainingData(table, encoder.encode(words)), stages.append)
print("fitted" if stages else "loaded")
"""

CONFIG = """
model_list:
- {model_name: a, litellm_params: {model: openai/a, api_key: none}, model_info: {input_cost_per_token: 1.0e-6, output_cost_per_token: 1.0e-6}}
- {model_name: b, litellm_params: {model: openai/b, api_key: none}, model_info: {input_cost_per_token: 1.0e-6, output_cost_per_token: 1.0e-6}}
eccos: {predictor: retrieval}
"""


def test_the_cache_answers_the_code_that_fitted_it_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "eccos.yaml"
    file.write_text(CONFIG)
    ours = Path(eccos_core.__file__).parent
    copy = tmp_path / "changed" / "eccos_core"
    shutil.copytree(ours, copy, ignore=shutil.ignore_patterns("__pycache__", "models"))

    def fit(root: Path) -> str:
        environment = {**os.environ, "PYTHONPATH": str(root), "ECCOS_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, "-c", FIT, str(file)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout.strip()

    assert [fit(ours.parent), fit(ours.parent)] == ["fitted", "loaded"]
    assert fit(copy.parent) == "loaded", "the same code, elsewhere"
    learner = copy / "predictors" / "learners" / "knn.py"
    learner.write_text(learner.read_text() + "\n# another learner\n")
    assert fit(copy.parent) == "fitted"
    assert fit(ours.parent) == "loaded", "the first one is still kept"
