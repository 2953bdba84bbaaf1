"""A real LiteLLM proxy in a process of its own, on a free port of loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MASTER_KEY = "sk-0123456789abcdef0123456789abcdef"
START_S = 240.0


@dataclass(frozen=True)
class Answer:
    """What the proxy answered. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: str

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Proxy:
    """A running proxy: its address without a path, and the file that it writes its log into."""

    address: str
    log: Path

    def post(self, path: str, body: Mapping[str, Any], key: str = MASTER_KEY) -> Answer:
        """Send a request."""
        headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        request = urllib.request.Request(self.address + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, _lower(answer.headers), answer.read().decode())
        except urllib.error.HTTPError as error:
            return Answer(error.code, _lower(error.headers), error.read().decode())


@contextmanager
def running_proxy(config: Path, **environment: str) -> Iterator[Proxy]:
    """Run `litellm --config ...` until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    log = config.parent / "proxy.log"
    command = [Path(sys.executable).parent / "litellm", "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    given = {**os.environ, "LITELLM_MASTER_KEY": MASTER_KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True", **environment}
    with log.open("w") as lines:
        process = subprocess.Popen(command, env=given, stdout=lines, stderr=subprocess.STDOUT, cwd=config.parent)
    try:
        _wait_until_alive(process, port, log)
        yield Proxy(f"http://127.0.0.1:{port}", log)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_until_alive(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    ends_at = time.monotonic() + START_S
    while time.monotonic() < ends_at:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=2).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"the proxy did not start:\n{log.read_text()[-3000:]}")


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
