"""A real OpenAI-compatible server on loopback, in its own process, with scripted answers and faults.

    with ModelServer() as server:
        litellm.completion(model="openai/any-name", api_base=server.url, api_key="none", messages=[...])
        print(server.statistics())

Any model name is served. What it says, and how it fails, is told by the request (`eccos_core.testing.server_script`);
besides, faults can be drawn by chance (`faults`). It counts, for every model, how many requests it had at once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any


@dataclass(frozen=True, slots=True)
class Faults:
    """Shares of requests, in [0, 1], that fail by chance; drawn from `seed` and the number of the request.

    too_many: 429 with `Retry-After: retry_after_s`; broken: 500; reset: connection broken before the answer; cut:
    stream broken after its first chunks (an answer that is not streamed is broken half way).
    """

    too_many: float = 0.0
    broken: float = 0.0
    reset: float = 0.0
    cut: float = 0.0
    retry_after_s: float = 0.05
    seed: int = 0


@dataclass(frozen=True, slots=True)
class BatchFaults:
    """Faults of the batch APIs. lost_answers: so many batches are taken, and then the connection breaks.
    refused_looks: so many looks at a batch are answered with 503."""

    lost_answers: int = 0
    refused_looks: int = 0


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """What the server saw, by model name. `most_at_once`: highest number of requests in flight at one moment."""

    requests: Mapping[str, int] = field(default_factory=dict)
    in_flight: Mapping[str, int] = field(default_factory=dict)
    most_at_once: Mapping[str, int] = field(default_factory=dict)
    answered: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)  # the caller went away
    batches: Mapping[str, int] = field(default_factory=dict)  # submitted to a batch API
    batched: Mapping[str, int] = field(default_factory=dict)  # their rows


class ModelServer:
    """Starts the server on a free port; stop it with `close`, or use it as a context manager.

    `latency_s`: how long every answer takes; `chunk_s`: pause between the chunks of a stream; `api_key`: when given,
    any other key is answered with 401. `script` maps text that the last user message may contain to directives.
    `batch_s`: how long a batch takes (`eccos_core.testing.batch_script`). `port` is a free one unless you name it.
    `folder` keeps batches, so that they outlive the server.
    """

    def __init__(
        self,
        *,
        latency_s: float = 0.0,
        chunk_s: float = 0.0,
        faults: Faults | None = None,
        api_key: str | None = None,
        script: Mapping[str, str] | None = None,
        batch_s: float = 0.05,
        batch_faults: BatchFaults | None = None,
        port: int = 0,
        folder: Path | None = None,
    ) -> None:
        settings = {
            "latency_s": latency_s,
            "chunk_s": chunk_s,
            "faults": asdict(faults or Faults()),
            "api_key": api_key,
            "script": dict(script or {}),
            "batch_s": batch_s,
            "batch_faults": asdict(batch_faults or BatchFaults()),
            "port": port,
            "folder": None if folder is None else str(folder),
        }
        command = [sys.executable, "-m", "eccos_core.testing.server_process"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(settings) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the test server did not start (exit code {self._process.wait()})")
        self._root = f"http://127.0.0.1:{json.loads(line)['port']}"
        self.url = f"{self._root}/v1"

    def statistics(self) -> ServerStatistics:
        """What the server has seen so far."""
        return ServerStatistics(**self._ask("/statistics"))

    def reset(self) -> None:
        """Forget what was seen."""
        self._ask("/reset")

    def last_request(self) -> dict[str, Any]:
        """The body of the latest request for a chat completion or for embeddings."""
        return self._ask("/last-request")

    def close(self) -> None:
        """Stop the server."""
        self._process.terminate()
        self._process.wait(timeout=10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> ModelServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self._root + path, timeout=30) as response:  # noqa: S310 - our own address
            answer: dict[str, Any] = json.load(response)
        return answer
