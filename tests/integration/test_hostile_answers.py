"""What a hostile model or question says, shown by `eccos ask` and `eccos log`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from eccos_core.cli import app
from eccos_core.cli.output import DONE, YOUR_INPUT, run
from eccos_core.testing import ModelServer

pytestmark = pytest.mark.service
ESCAPES = "\x1b[31mRED\x1b]0;pwned\x07\x1b[2J [link=http://x]click[/link] \x9b1m"
HALF = "\ud83d oops"
CONFIG = """\
model_list:
  - model_name: own
    litellm_params: {{model: openai/own, api_base: {url}, api_key: none}}
    model_info: {{input_cost_per_token: 1.0e-6, output_cost_per_token: 1.0e-6, assumed_quality: 0.9}}
eccos: {{encoder: static, predictor: prior, history: in_memory, decision_log: {{path: log.sqlite, log_prompts: true}}}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    script = {"escapes": f"[[say {ESCAPES}]]", "half": f"[[say {HALF}]]"}
    with ModelServer(script=script) as server:
        path: Path = tmp_path_factory.mktemp("hostile") / "eccos.yaml"
        path.write_text(CONFIG.format(url=server.url))
        yield str(path)


@pytest.mark.parametrize(("question", "shown"), [("escapes", "\\x1b[31mRED"), ("half", "\ufffd oops")])
def test_an_answer_is_shown_as_text(config: str, question: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["ask", question, "-c", config]) == DONE
    written = capsys.readouterr()
    (written.out + written.err).encode()
    assert shown in written.out
    assert not set("\x1b\x9b\x07") & set(written.out + written.err)


def test_json_holds_the_answer_itself(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["ask", "escapes", "-c", config, "--json"]) == DONE
    out = capsys.readouterr().out
    assert not set("\x1b\x9b\x07") & set(out)
    assert json.loads(out)["text"] == ESCAPES


def test_a_hostile_question_is_refused_or_logged_and_shown_as_text(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, ["ask", f"lone {HALF}", "-c", config]) == YOUR_INPUT
    assert "half a character" in capsys.readouterr().err
    assert run(app, ["ask", f"{ESCAPES} <script>alert(1)</script>", "-c", config]) == DONE
    capsys.readouterr()
    assert run(app, ["log", "-c", config]) == DONE
    assert not set("\x1b\x9b\x07") & set(capsys.readouterr().out)
