"""`eccos calibrate` finds the costs of a server that takes exactly what it is told to take."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from eccos_core.cli import app
from eccos_core.errors import DataError, InputError
from eccos_core.simulation.serving import calibration
from eccos_core.simulation.serving.calibration import (
    ServerMeasurement,
    fit_server,
    measure_server,
    read_calibration,
    write_calibration,
)

START_S, PREFILL_S, DECODE_S = 0.004, 1e-4, 0.0005
OUTPUT = 12


class TimedHandler(BaseHTTPRequestHandler):
    """Streams tokens: the first after a start and its prompt's share, the others at the pace of all that run."""

    running: ClassVar[set[int]] = set()
    refuses: ClassVar[bool] = False

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.refuses:
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b'{"error": "no such model"}')
            return
        prompt = len(asked["messages"][0]["content"].split())
        self.send_response(200)
        self.end_headers()
        self.running.add(id(self))
        time.sleep(START_S + PREFILL_S * prompt)
        for token in range(OUTPUT):
            if token:
                time.sleep(START_S + DECODE_S * len(self.running))
            self._send({"choices": [{"delta": {"content": "x"}}]})
        self.running.discard(id(self))
        self._send({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": OUTPUT}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, piece: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(piece).encode() + b"\n\n")
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class TimedServer(ThreadingHTTPServer):
    """Sixteen connections come at once, more than wait in line by default."""

    request_queue_size = 64


@pytest.fixture
def server() -> Iterator[str]:
    with TimedServer(("127.0.0.1", 0), TimedHandler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/v1"
        listening.shutdown()


def test_the_costs_of_a_server_are_found_and_written(server: str, tmp_path: Path) -> None:
    """Sleeps are never shorter than asked. On a busy machine they are longer, so the limits upwards are wide."""
    file = tmp_path / "costs.json"
    done = CliRunner().invoke(app, ["calibrate", server, "--model", "timed", "--save", str(file), "--json"])
    assert done.exit_code == 0, done.output
    found = read_calibration(file)
    assert json.loads(done.stdout)["cost"]["start_s"] == found.cost.start_s
    assert found.measurements == 42
    assert 0.5 * PREFILL_S < found.cost.prefill_token_s < 3 * PREFILL_S
    pass_of_16 = found.cost.start_s + 16 * found.cost.decode_s + 16 * 80 * found.cost.context_token_s
    assert 0.7 * (START_S + 16 * DECODE_S) < pass_of_16 < 3 * (START_S + 16 * DECODE_S)


def test_a_server_that_refuses_or_is_away_is_named(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimedHandler, "refuses", True)
    with pytest.raises(InputError, match=r"answers HTTP 404 for the model 'gone': .*no such model"):
        measure_server(server, "gone")
    with pytest.raises(InputError, match="cannot be reached"):
        measure_server("http://127.0.0.1:9/v1", "gone")


class OddHandler(BaseHTTPRequestHandler):
    """Answers with what it is told to, and with the key that it was asked with."""

    status: ClassVar[int] = 200
    body: ClassVar[str] = ""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(self.body.replace("KEY", self.headers.get("Authorization", "")).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


TOKEN = 'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'
LAST = 'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, "<html>welcome</html>", r"answers without a stream \(text/html\). Does the address end in /v1"),
        (200, "data: {not json\n\n", "streams what is no chat completion"),
        (200, "data: [1, 2]\n\n", "streams what is no chat completion"),
        (200, TOKEN, "streams no `usage` with its tokens"),
        (200, TOKEN + LAST, r"42 of 42 answers of 'm' have fewer than 2 tokens"),
        (401, "wrong key KEY", r"HTTP 401 .* wrong key Bearer \*\*\* Give its key with --api-key-env"),
        (500, "out of memory", "HTTP 500 .* out of memory"),
    ],
)
def test_a_server_that_answers_differently_is_told_and_the_key_is_not(
    monkeypatch: pytest.MonkeyPatch, status: int, body: str, says: str
) -> None:
    monkeypatch.setattr(OddHandler, "status", status)
    monkeypatch.setattr(OddHandler, "body", body)
    with TimedServer(("127.0.0.1", 0), OddHandler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        with pytest.raises(InputError, match=says) as caught:
            measure_server(f"http://127.0.0.1:{listening.server_address[1]}/v1", "m", "sk-secret")
        listening.shutdown()
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "longest", "says"),
    [
        ("http://me:sk-secret@x/v1", 64, "Give the key with --api-key-env"),
        ("http://x/v1", 4, "has 4 words, must be >= 8"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_it_is(url: str, longest: int, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        measure_server(url, "m", None, longest)
    assert "sk-secret" not in str(caught.value)


def test_a_pass_takes_time_even_where_the_cache_explains_all() -> None:
    """Times that only the cached tokens explain: a fit without a start could not be simulated."""
    measured = [ServerMeasurement(t, p, 20, 0.01, 1e-6 * t * (p + 10)) for t in (1, 4, 16) for p in (10, 500, 2000)]
    found = fit_server("m", measured)
    assert found.cost.start_s > 0


def test_a_key_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    done = CliRunner().invoke(app, ["calibrate", "http://x/v1", "--model", "m", "--api-key-env", "NO_SUCH_KEY"])
    assert isinstance(done.exception, InputError)
    assert "NO_SUCH_KEY" in str(done.exception)


def exact(together: int, prompt: int) -> ServerMeasurement:
    token_s = START_S + DECODE_S * together + 1e-7 * together * (prompt + 10)
    return ServerMeasurement(together, prompt, 20, 0.01 + PREFILL_S * prompt, token_s)


def test_the_fit_is_exact_on_exact_measurements() -> None:
    measured = [exact(together, prompt) for together in (1, 4, 16) for prompt in (10, 500, 2000)]
    found = fit_server("m", measured)
    assert found.cost.start_s == pytest.approx(START_S)
    assert found.cost.prefill_token_s == pytest.approx(PREFILL_S)
    assert found.cost.decode_s == pytest.approx(DECODE_S)
    assert found.cost.context_token_s == pytest.approx(1e-7)
    assert found.request_s == pytest.approx(0.01 - START_S)
    assert found.token_error < 1e-9 > found.first_token_error


def test_tokens_that_arrive_in_one_piece_do_not_outweigh_the_others() -> None:
    """A client that was busy sees the first and the last token at once. Such a time is near 0."""
    measured = [exact(together, prompt) for together in (1, 4, 16) for prompt in (10, 500, 2000)] * 2
    found = fit_server("m", [*measured, replace(exact(16, 10), token_s=1e-7)])
    assert found.cost.start_s == pytest.approx(START_S, rel=0.2)
    assert found.cost.decode_s == pytest.approx(DECODE_S, rel=0.2)


def test_too_few_measurements_cannot_be_fitted() -> None:
    with pytest.raises(InputError, match="3 measurements of 1 batch sizes"):
        fit_server("m", [exact(1, 10)] * 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "other"}, "no file of `eccos calibrate`"),
        ({"cost": {"start_s": 1.0}}, "lacks a number"),
        ({"request_s": -1.0}, "negative"),
    ],
)
def test_a_file_that_is_no_calibration_says_why(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    file = tmp_path / "costs.json"
    write_calibration(file, fit_server("m", [exact(t, p) for t in (1, 4, 16) for p in (10, 500, 2000)]))
    assert read_calibration(file).model == "m"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}), encoding="utf-8")
    with pytest.raises(DataError, match=says):
        read_calibration(file)


def test_a_file_that_is_no_json_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_calibration(tmp_path / "away.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DataError, match="no JSON"):
        read_calibration(tmp_path / "x.json")
    assert calibration.FORMAT.endswith("1")
