"""`eccos serve` as a command: what the demo tells you to type, and curl against it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eccos_core.cli.demo import chat_advice, serve_command


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("has_config", [False, True])
def test_the_command_of_the_demo_serves_the_pocket_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_config: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if has_config:
        Path("eccos.yaml").write_text("model_list: []\n")
    command = shlex.split(serve_command())
    assert command[:2] == ["eccos", "serve"]
    with serving(command[1:]) as (line, address):
        assert "without keys, for this machine only" in line
        told = ask_by_curl(address, [{"role": "user", "content": "What is the capital of France?"}])
        assert told["choices"][0]["message"]["content"]
        assert told["model"].startswith("pocket-")
        assert told["eccos"]["decision_id"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_command_of_the_demo_for_chats_serves_a_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three turns. SmolLM2 takes the two that no pocket model knows, and reads what was said before."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    command = shlex.split(chat_advice().rpartition(": ")[2])
    assert command == ["eccos", "serve", "--smol"]
    said: list[dict[str, str]] = []
    models, read = [], []
    with serving(command[1:]) as (_, address):
        for text in ("Hello! My name is Ada, and I live in Oslo.", "In which city do I live?", "What is 12 + 7?"):
            said.append({"role": "user", "content": text})
            told = ask_by_curl(address, said)
            said.append({"role": "assistant", "content": told["choices"][0]["message"]["content"]})
            models.append(told["model"])
            read.append(told["usage"]["prompt_tokens"])
    assert models[:2] == ["smollm2", "smollm2"]
    assert read[1] > read[0]
    assert all(each["content"] for each in said)


@contextlib.contextmanager
def serving(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """Start `eccos` on a free port. Gives the line that says where it listens, and the address."""
    command = [sys.executable, "-m", "eccos_core.cli", *arguments, "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        line = next(line for line in server.stderr if "http://" in line)
        yield line, line.split(" at ")[1].split(" (")[0]
    finally:
        server.terminate()
        assert server.wait(timeout=60) == 0


def ask_by_curl(address: str, messages: list[dict[str, str]]) -> Any:
    """Return the answer to a conversation, as the API gives it."""
    body = {"model": "eccos", "messages": messages, "temperature": 0, "max_tokens": 32}
    curl = ["curl", "-s", f"{address}/chat/completions", "-d", json.dumps(body)]
    return json.loads(subprocess.run(curl, capture_output=True, check=True, timeout=280).stdout)
