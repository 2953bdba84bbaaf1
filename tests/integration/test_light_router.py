"""A router with the static encoder is light: no neural network is loaded to decide, whatever its history."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pocket_pool import write_outcomes_part, write_pool_config

from eccos_core import ArtifactError, Router
from eccos_core.cli import app
from eccos_core.cli.output import DONE, run

pytestmark = pytest.mark.timeout(300)

HEAVY = ("torch", "sentence_transformers", "transformers", "litellm", "sklearn", "scipy", "onnxruntime")
DECIDE = f"""
import json, sys
from eccos_core import Router
router = Router.from_yaml(sys.argv[1])
router.decide("Is 7 larger than 3?")
assert "pandas" not in sys.modules  # CP-SAT imports it, and only a batch needs CP-SAT
router.route([f"What is {{number}} + 1?" for number in range(300)])
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""


@pytest.mark.parametrize("history", ["{outcomes: outcomes.jsonl}", "{path: history}"])
def test_a_fitted_router_on_static_embeddings_decides_without_a_neural_network(history: str, tmp_path: Path) -> None:
    outcomes = write_outcomes_part(tmp_path)
    config = write_pool_config(tmp_path, history)
    if "path" in history:
        assert run(app, ["ingest", str(outcomes), "-c", str(config)]) == DONE
    config.write_text(config.read_text().replace("predictor: retrieval", "predictor: {kind: hybrid, artifact: fitted}"))
    assert run(app, ["fit", "-c", str(config), "--data", str(outcomes)]) == DONE
    done = subprocess.run([sys.executable, "-c", DECIDE, str(config)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_a_service_without_a_history_starts_with_the_prices_of_one_that_has_it(tmp_path: Path) -> None:
    outcomes = write_outcomes_part(tmp_path)
    config = write_pool_config(tmp_path, "{outcomes: outcomes.jsonl}")
    config.write_text(config.read_text().replace("predictor: retrieval", "predictor: {kind: hybrid, artifact: fitted}"))
    assert run(app, ["fit", "-c", str(config), "--data", str(outcomes)]) == DONE
    service = tmp_path / "service.yaml"
    service.write_text(config.read_text().replace("{outcomes: outcomes.jsonl}", "in_memory"))
    with Router.from_yaml(config) as full, Router.from_yaml(service) as light:
        price = full.parts.steering.usd_per_quality
        assert price > 0
        assert light.parts.steering.usd_per_quality == pytest.approx(price)


def test_a_damaged_training_forecast_is_named(tmp_path: Path) -> None:
    outcomes = write_outcomes_part(tmp_path)
    config = write_pool_config(tmp_path, "in_memory")
    config.write_text(config.read_text().replace("predictor: retrieval", "predictor: {kind: hybrid, artifact: fitted}"))
    assert run(app, ["fit", "-c", str(config), "--data", str(outcomes)]) == DONE
    (tmp_path / "fitted" / "training_forecast.safetensors").write_bytes(b"half")
    with pytest.raises(ArtifactError, match="training_forecast"):
        Router.from_yaml(config)
