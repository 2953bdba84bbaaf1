"""`eccos serve` as a command: what the demo tells you to type, and curl against it."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eccos_core.cli.demo import serve_command


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("has_config", [False, True])
def test_the_command_of_the_demo_serves_the_pocket_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_config: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{shutil.os.environ['PATH']}")  # type: ignore[attr-defined]
    if has_config:
        Path("eccos.yaml").write_text("model_list: []\n")
    command = shlex.split(serve_command())
    assert command[:2] == ["eccos", "serve"]
    server = subprocess.Popen(
        [sys.executable, "-m", "eccos_core.cli", *command[1:], "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    try:
        line = next(line for line in server.stderr if "http://" in line)
        address = line.split(" at ")[1].split(" (")[0]
        assert "without keys, for this machine only" in line
        body = {"model": "eccos", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
        curl = ["curl", "-s", f"{address}/chat/completions", "-d", json.dumps(body)]
        told = json.loads(subprocess.run(curl, capture_output=True, check=True, timeout=120).stdout)
        assert told["choices"][0]["message"]["content"]
        assert told["model"].startswith("pocket-")
        assert told["eccos"]["decision_id"]
    finally:
        server.terminate()
        assert server.wait(timeout=30) == 0
