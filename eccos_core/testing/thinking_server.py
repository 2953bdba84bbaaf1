"""A scripted server that thinks: `/v1/completions` and `/v1/chat/completions`, one token a word, on loopback.

    with ThinkingServer() as server:
        litellm.completion(model="openai/thinker", api_base=server.url, ...)

The last user message holds its script: `[[think 400]] [[known 90]] [[answer 12]] [[first 7]]`. The model thinks for 400
tokens, would answer 7 before it has thought 90 of them, and 12 from then on. `[[doubt 30]]` lets it hedge before token
30. `[[sway]]` lets its early answer change with every probe.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
"""The chat template of the model that it serves."""

_DIRECTIVE = re.compile(r"\[\[([a-z]+)(?: ([^\]]*))?\]\]")
_OPEN = "<|assistant|><think>\n"
_CLOSE = "</think>"
PROBED = "The final answer is"  # a probe's text is kept in no cache: nothing follows on it


class ThinkingServer:
    """Starts the server on a free port in a thread. Stop it with `close`, or use it as a context manager.

    With `continues=False` it has no `/v1/completions`. `latency_s`: how long each answer takes. `requests` counts the
    calls by path. `tokens` counts what it wrote, `read` what it read and had not cached: it keeps every prefix, as vLLM
    and SGLang do. `bodies` are all bodies.
    """

    def __init__(self, *, continues: bool = True, latency_s: float = 0.0) -> None:
        self.continues = continues
        self.latency_s = latency_s
        self.requests: Counter[str] = Counter()
        self.tokens = self.read = 0
        self.bodies: list[dict[str, Any]] = []
        self._written: dict[str, list[str]] = {}  # the longest text of each question
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer = outer._answer(self.path, body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> ThinkingServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        path = path.removeprefix("/v1/")
        with self._lock:
            self.requests[path] += 1
            self.bodies.append(body)
        if path == "completions" and self.continues:
            prompt = body["prompt"] if isinstance(body["prompt"], str) else "".join(body["prompt"])
            limit = body.get("max_tokens", 16)
        elif path == "chat/completions":
            said = "".join(f"<|{message['role']}|>{message['content']}\n" for message in body["messages"])
            prompt, limit = said + _OPEN, body.get("max_tokens") or 10**6
        else:
            return 404, {"error": {"message": f"no such path: {path}", "code": "not_found"}}
        time.sleep(self.latency_s)
        words, finish = continue_words(prompt, limit)
        with self._lock:
            read = prompt.split()
            asked = prompt.partition(_OPEN)[0]
            cached = _common(read, self._written.get(asked, []))
            if PROBED not in prompt:
                self._written[asked] = (prompt + "".join(words)).split()
            self.tokens += len(words)
            self.read += len(read) - cached
        usage: dict[str, Any] = {"prompt_tokens": len(read), "completion_tokens": len(words)}
        usage |= {"total_tokens": len(read) + len(words), "prompt_tokens_details": {"cached_tokens": cached}}
        text = "".join(words)
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
        if path == "completions":
            return 200, _envelope(body, "text_completion", {**choice, "text": text}, usage)
        thinking, ended, answer = text.partition(_CLOSE)
        content = answer.lstrip("\n") if ended else ""
        message = {"role": "assistant", "content": content, "reasoning_content": thinking}
        return 200, _envelope(body, "chat.completion", {**choice, "message": message}, usage)


def continue_words(prompt: str, limit: int) -> tuple[list[str], str]:
    """Return what the model writes after a raw prompt, a word a token, and why it ended ("stop" or "length")."""
    asked, _, written = prompt.rpartition(_OPEN)
    given: dict[str, str] = dict(_DIRECTIVE.findall(asked.rpartition("<|user|>")[2]))
    total, known = int(given.get("think", 100)), int(given.get("known", 50))
    thinking, ended, after = written.partition(_CLOSE)
    thought = len(thinking.split())
    answer = given.get("answer", "42") if thought >= known else given.get("first", "7")
    if thought < known and "sway" in given:
        answer = str(int(answer) + thought)
    if thought < int(given.get("doubt") or 0):
        answer = "Wait, I am not sure"
    if ended:
        words = re.findall(r"\s*\S+", f"The final answer is {answer}.")[len(after.split()) :]
    else:
        final = given.get("answer", "42") if total >= known else given.get("first", "7")
        words = [f" t{place}" for place in range(thought, total)] + [f"\n{_CLOSE}\n\n"]
        words += re.findall(r"\s*\S+", f"The final answer is {final}.")
    return words[:limit], "length" if len(words) > limit else "stop"


def _envelope(body: dict[str, Any], kind: str, choice: dict[str, Any], usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "thinking-1",
        "object": kind,
        "created": 1_700_000_000,
        "model": body.get("model"),
        "choices": [choice],
        "usage": usage,
    }


def _common(one: list[str], other: list[str]) -> int:
    """Count the words that two texts begin with alike."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
