"""The road to production-size local serving: a real `transformers serve` on loopback, called as an OpenAI-compatible
server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from eccos_core.backends import LiteLLMBackend
from eccos_core.config.schema import Deployment
from eccos_core.domain import Float32Array, FloatArray, Forecast, Model, QualityPrice, Request
from eccos_core.encoders import SurfaceEncoder
from eccos_core.pocket import pocket_path
from eccos_core.router import Router
from eccos_core.streaming import FixedPrice

# What `transformers serve FOLDER --device cpu --host 127.0.0.1 --port PORT` runs. The command itself does not start
# with transformers 5.3 (held there by model2vec) beside huggingface_hub 1.33, and its server hides the name `Request`
# from FastAPI: both are mended in 5.23.
SERVE = """
import sys, fastapi
from transformers.cli import serve
serve.Request = fastapi.Request
serve.Serve(force_model=sys.argv[1], device="cpu", host="127.0.0.1", port=int(sys.argv[2]))
"""

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    pytest.importorskip("fastapi", reason="`transformers serve` needs fastapi")
    folder = pocket_path("pocket-small")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("logs") / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(folder), str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
    try:
        _wait_until_healthy(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1", folder
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            pytest.fail(f"`transformers serve` ended with {process.returncode}:\n{log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"`transformers serve` is not healthy:\n{log.read_text()[-2000:]}")


class Even:
    """Every model is as good as the other."""

    def __init__(self, models: tuple[str, ...]) -> None:
        self.models = models

    def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        shape = (len(vectors), len(self.models))
        half, few = np.full(shape, 0.5), np.full(shape, 5.0)
        return Forecast(self.models, half, half / 10, few, few, np.ones(len(vectors)))


def test_a_pocket_model_behind_a_real_openai_compatible_server_is_routed_to(served: tuple[str, Path]) -> None:
    url, folder = served
    ways = {
        "served": [Deployment(f"openai/{folder}", {"api_base": url, "api_key": "none"})],
        "here": [Deployment("eccos-local/pocket-small", {})],
    }
    models = [Model("served", 1e-6, 1e-6), Model("here", 2e-6, 2e-6)]
    backend = LiteLLMBackend(ways, models)
    encoder = SurfaceEncoder()
    router = Router(
        models,
        Even(("served", "here")),
        backend,
        encoder=encoder,
        steering=FixedPrice(1e-3),
        policy=QualityPrice(1e-5),
    )
    parameters = {"max_tokens": 8, "temperature": 0.0}

    there = router.complete("What is the capital of France?", **parameters)
    assert there.model == there.decision.model == "served", "both are as good, and this one costs less"
    here = backend.complete("here", Request.of("What is the capital of France?", parameters=parameters))
    assert there.text == here.text, "the same weights say the same, in this process and behind a server"
    assert there.text

    streamed = list(router.stream("What is the capital of France?", **parameters))
    assert "".join(chunk.text for chunk in streamed) == there.text
    assert streamed[-1].completion is not None
    assert streamed[-1].completion.output_tokens > 0
