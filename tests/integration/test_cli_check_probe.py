"""`eccos check --probe` against a real server on this machine."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from eccos_core.cli import app
from eccos_core.cli.output import YOUR_INPUT, run


class _OneAnswer(BaseHTTPRequestHandler):
    """An OpenAI-compatible server with one model."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        known = asked["model"] == "mine"
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        message = {"role": "assistant", "content": "ok"}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "mine", "usage": usage}
        answer["choices"] = [{"index": 0, "finish_reason": "stop", "message": message}]
        wrong = {"error": {"message": "The model does not exist", "type": "invalid_request_error", "code": "x"}}
        body = json.dumps(answer if known else wrong).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _OneAnswer) as serving:
        serving.asked = []
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.mark.service
def test_probe_calls_each_deployment_once_and_tells_latency_or_the_plain_cause(
    server: ThreadingHTTPServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = unused.getsockname()[1]
    here = f"http://127.0.0.1:{server.server_address[1]}/v1"
    entry = "- {{model_name: {}, litellm_params: {{model: openai/{}, api_base: '{}', api_key: hunter2-key}}, {}}}\n"
    free = "model_info: {free: true}"
    file = tmp_path / "eccos.yaml"
    file.write_text(
        "model_list:\n"
        + entry.format("good", "mine", here, free)
        + entry.format("missing", "other", here, free)
        + entry.format("two", "mine", here, free)
        + entry.format("two", "mine", f"http://127.0.0.1:{nobody}/v1", free)
    )
    assert run(app, ["check", str(file), "--probe", "--json"]) == YOUR_INPUT
    told = json.loads(capsys.readouterr().out)
    answered = {probe["deployment"]: probe for probe in told["probes"]}
    assert [label for label, probe in answered.items() if probe["ok"]] == ["good", "two (deployment 1 of 2)"]
    assert answered["good"]["latency_s"] > 0
    assert "The model does not exist" in answered["missing"]["cause"]
    assert answered["two (deployment 2 of 2)"]["latency_s"] is None
    assert told["ok"] is False
    assert "hunter2" not in json.dumps(told)
    assert sorted(asked["model"] for asked in server.asked) == ["mine", "mine", "other"]
    assert all(asked["max_tokens"] == 1 for asked in server.asked)
