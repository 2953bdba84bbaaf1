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

import pytest

from eccos_core.backends import LiteLLMBackend
from eccos_core.config.values import Deployment
from eccos_core.domain import Model, Request
from eccos_core.testing import build_tiny_model

# What `transformers serve FOLDER --device cpu --host 127.0.0.1 --port PORT` runs. The command itself does not start with
# transformers 5.3 (held there by model2vec) beside huggingface_hub 1.33, and its server hides the name `Request` from
# FastAPI: both are mended in 5.23.
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
    folder = build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder.parent / "serve.log"
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


def test_the_backend_calls_a_real_openai_compatible_server(served: tuple[str, Path]) -> None:
    url, folder = served
    ways = {
        "served": [Deployment(f"openai/{folder}", {"api_base": url, "api_key": "none"})],
        "here": [Deployment(f"eccos-local/{folder}", {})],
    }
    backend = LiteLLMBackend(ways, [Model("served", 1e-6, 1e-6), Model("here", 1e-6, 1e-6)])
    request = Request.of("What is 12 + 7?", parameters={"max_tokens": 8, "temperature": 0.0})
    there, here = backend.complete("served", request), backend.complete("here", request)
    assert there.text == here.text, "the same weights say the same, in this process and behind a server"
    assert there.text
    streamed = list(backend.stream("served", request))
    assert "".join(chunk.text for chunk in streamed) == there.text
    assert streamed[-1].completion is not None
    assert streamed[-1].completion.output_tokens > 0
