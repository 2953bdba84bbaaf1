"""`eccos calibrate` against a real engine: `eccos serve` before a local transformer, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_process import running_server
from typer.testing import CliRunner

from eccos_core.cli import app
from eccos_core.errors import InputError
from eccos_core.roofline import ModelPass
from eccos_core.router import Router
from eccos_core.simulation.serving.calibration import measure_server, read_calibration

pytestmark = pytest.mark.service
POOL = """
model_list:
- model_name: pocket
  litellm_params: {model: "eccos-local/pocket-medium"}
  model_info: {input_cost_per_token: 1.0e-6, output_cost_per_token: 1.0e-6, assumed_quality: 0.5, max_concurrency: 16}
eccos: {predictor: prior, decision_log: false}
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("pool")
    config = folder / "eccos.yaml"
    config.write_text(POOL)
    with Router.from_yaml(config) as router, running_server(router) as running:
        yield f"{running.address}/v1"


def test_the_costs_of_a_local_transformer_are_found(url: str, tmp_path: Path) -> None:
    """Times differ from machine to machine. What must hold: a pass takes time, and longer prompts take no less."""
    file = tmp_path / "costs.json"
    asked = ["calibrate", url, "--model", "pocket", "--longest", "16", "--save", str(file), "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    found = read_calibration(file)
    assert found.measurements == 42
    assert found.first_token_error < 1
    short, long = (found.cost.seconds(ModelPass.of([(tokens, 0)], [])) for tokens in (10, 1000))
    assert 0 < short <= long < 10
    assert 0 < found.cost.seconds(ModelPass.of([], [100] * 16)) < 10


def test_what_a_real_server_refuses_is_told(url: str) -> None:
    with pytest.raises(InputError, match=r"answers HTTP 4\d\d for the model 'other'"):
        measure_server(url, "other")
    with pytest.raises(InputError, match=r"HTTP 404 .* up to /v1"):
        measure_server(url.removesuffix("/v1") + "/v7", "pocket")
    with pytest.raises(InputError, match="lower --longest"):
        measure_server(url, "pocket", longest_words=4096)
