"""Thinking that is stopped once its answer no longer changes, against a scripted server that thinks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from eccos_core import Router
from eccos_core.backends.chat_template import ChatTemplate
from eccos_core.backends.stop_early import USUAL_LIMIT
from eccos_core.backends.thinking_steps import (
    MOST_PROBE_TOKENS,
    PROBE,
    Ask,
    StopEarlySettings,
    Written,
    normalize_answer,
    think_in_steps,
)
from eccos_core.config import load_config
from eccos_core.domain import Completion, Request
from eccos_core.errors import ConfigError, EccosError, InputError
from eccos_core.testing.thinking_server import TEMPLATE, ThinkingServer

pytestmark = [pytest.mark.service, pytest.mark.timeout(120)]

POOL = """\
model_list:
- model_name: thinker
  litellm_params: {{model: {model}, api_key: none{place}}}
  model_info: {{input_cost_per_token: 1.0e-6, output_cost_per_token: 2.0e-6, cache_read_input_token_cost: 1.0e-7,
               assumed_quality: 0.8}}
eccos:
  encoder: static
  predictor: prior
  history: in_memory
  decision_log: off
  retries: {{attempts: 1, fallbacks: 0, deadline_s: 30}}
  {stop}
"""
STOP = "stop_early: {probe_every: 50, agree: 3, templates: {thinker: template.jinja}}"
QUESTION = "What is it? [[think 900]] [[known 150]] [[answer 12]] [[sway]]"


@pytest.fixture
def server() -> Iterator[ThinkingServer]:
    with ThinkingServer() as running:
        yield running


def pool(folder: Path, url: str, stop: str = STOP, model: str = "openai/thinker") -> Path:
    (folder / "template.jinja").write_text(TEMPLATE)
    file = folder / "eccos.yaml"
    file.write_text(POOL.format(model=model, place=f", api_base: '{url}'" if url else "", stop=stop))
    return file


def test_it_is_off_by_default(tmp_path: Path, server: ThinkingServer) -> None:
    with Router.from_yaml(pool(tmp_path, server.url, stop="")) as router:
        assert router.complete(QUESTION).text == "The final answer is 12."
    assert server.requests == {"chat/completions": 1}


@pytest.mark.parametrize("way", ["complete", "acomplete", "stream", "astream"])
def test_thinking_stops_when_the_last_answers_agree(tmp_path: Path, server: ThinkingServer, way: str) -> None:
    pieces: list[dict[str, Any]] = []
    with Router.from_yaml(pool(tmp_path, server.url)) as router:
        if way == "complete":
            answer = router.complete(QUESTION)
        elif way == "acomplete":
            answer = asyncio.run(router.acomplete(QUESTION))
        elif way == "stream":
            chunks = list(router.stream(QUESTION))
            pieces = [dict(chunk.delta) for chunk in chunks]
            assert chunks[-1].completion is not None
            answer = chunks[-1].completion
        else:

            async def collect() -> Completion:
                found: Completion | None = None
                async for chunk in router.astream(QUESTION):
                    pieces.append(dict(chunk.delta))
                    found = chunk.completion or found
                assert found is not None
                return found

            answer = asyncio.run(collect())
    assert answer.text == "The final answer is 12."
    thought = answer.message["reasoning_content"].split()
    assert thought == [f"t{place}" for place in range(250)], "known at 150, and agreed at 150, 200 and 250"
    if pieces:
        streamed = "".join(piece.get("reasoning_content", "") for piece in pieces).split()
        assert streamed == thought, "no thought is streamed twice"
        assert "".join(piece.get("content", "") for piece in pieces) == answer.text
    assert answer.output_tokens == server.tokens, "probes are charged"
    fresh = answer.input_tokens - answer.cached_input_tokens
    assert fresh == server.read
    paid = fresh * 1e-6 + answer.cached_input_tokens * 1e-7 + answer.output_tokens * 2e-6
    assert answer.cost_usd == pytest.approx(paid)
    assert answer.output_tokens < 0.4 * 900
    assert server.requests.keys() == {"completions"}


def test_a_model_that_ends_its_thinking_itself_is_left_to_it(tmp_path: Path, server: ThinkingServer) -> None:
    with Router.from_yaml(pool(tmp_path, server.url)) as router:
        answer = router.complete("What is it? [[think 60]] [[known 55]] [[answer 5]]")
        assert answer.text == "The final answer is 5."
        assert answer.message["reasoning_content"].split()[-1] == "t59"
        hedged = router.complete("What? [[think 300]] [[known 20]] [[doubt 270]] [[answer 5]]")
        assert len(hedged.message["reasoning_content"].split()) == 300, "answers that are hedged do not agree"


def test_a_limit_of_the_answer_holds_and_the_deadline_too(tmp_path: Path, server: ThinkingServer) -> None:
    with Router.from_yaml(pool(tmp_path, server.url)) as router:
        short = router.complete("What? [[think 900]] [[known 800]] [[sway]]", max_tokens=120)
        assert len(short.message["reasoning_content"].split()) == 120
        assert short.finish_reason == "length"
    file = pool(tmp_path, server.url)
    file.write_text(file.read_text().replace("deadline_s: 30", "deadline_s: 0.5"))
    server.latency_s = 0.12  # five calls of eleven
    with Router.from_yaml(file) as router:
        started = time.perf_counter()
        with pytest.raises(EccosError, match="timeout"):
            router.complete(QUESTION)
        assert time.perf_counter() - started < 2.0


def test_requests_that_raw_text_cannot_carry_are_called_as_they_are(tmp_path: Path, server: ThinkingServer) -> None:
    with Router.from_yaml(pool(tmp_path, server.url)) as router:
        assert router.complete(QUESTION, stop=["never"]).text == "The final answer is 12."
    assert server.requests == {"chat/completions": 1}


@pytest.mark.parametrize("streamed", [False, True])
def test_an_endpoint_that_continues_nothing_is_called_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, streamed: bool
) -> None:
    with ThinkingServer(continues=False) as server, caplog.at_level(logging.WARNING, "eccos.backend"):
        with Router.from_yaml(pool(tmp_path, server.url)) as router:
            for _ in range(2):
                assert router.complete(QUESTION).text == "The final answer is 12."
        assert server.requests == {"completions": 1, "chat/completions": 2}
    (event,) = [record.eccos for record in caplog.records if hasattr(record, "eccos")]
    assert (event["event"], event["model"], event["kind"]) == ("stop_early_refused", "thinker", "not_found")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "anthropic/claude-haiku-4-5", "url": ""}, "templates.thinker: names a model that cannot continue"),
        ({"url": ""}, "templates.thinker: names a model that cannot continue raw text"),
        ({"stop": STOP.replace("thinker", "thinkr")}, "names 'thinkr', must name models of the pool (thinker)"),
        ({"stop": STOP.replace("template.jinja", "none.jinja")}, "which does not exist. Give a Jinja file"),
        ({"stop": STOP.replace("agree: 3", "agree: 1")}, "eccos.stop_early.agree: is 1"),
        ({"stop": "stop_early: {agree: 3}"}, "eccos.stop_early.templates"),
    ],
)
def test_a_pool_that_cannot_is_refused_at_the_start(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(pool(tmp_path, **{"url": "http://127.0.0.1:9/v1", **changes}))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (" **42**.", "42"),
        (": $\\boxed{3.5}$ because", "3.5"),
        ("\n\n(B)\nmore", "b"),
        (" 1,234. I am sure.", "1234"),
        ("", ""),
        (" Wait, let me see", ""),
        (" probably 7", ""),
    ],
)
def test_answers_are_compared_in_one_spelling(said: str, answer: str) -> None:
    assert normalize_answer(said) == answer


def test_answers_that_disagree_stop_nothing() -> None:
    """The public code of the paper stops where they disagree, too."""
    steps, asked = think_in_steps("P", StopEarlySettings(10, 2), 60), []
    answers = cycle(["1", "2"])
    step: Ask | Written | None = next(steps)
    while step is not None:
        sent = None
        if isinstance(step, Ask):
            asked.append(step)
            text = f" {next(answers)}" if step.prompt.endswith(PROBE) else " x" * step.max_tokens
            sent = Completion(text, "m", 1, min(10, step.max_tokens), 0.0, 0.0, finish_reason="length")
        try:
            step = steps.send(sent)
        except StopIteration:
            step = None
    assert sum(step.max_tokens for step in asked if step.max_tokens != MOST_PROBE_TOKENS) == 60


def test_a_chat_template_is_that_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(
        '{"bos_token": {"content": "<s>"}, "chat_template": '
        '"{{ bos_token }}{{ messages[0].content }}|{{ reasoning_effort }}"}'
    )
    request = Request.of("hello", parameters={"reasoning_effort": "low"})
    assert ChatTemplate(tmp_path)(request) == "<s>hello|low"
    (tmp_path / "bad.jinja").write_text("{% if %}")
    with pytest.raises(InputError, match="this chat template cannot be read"):
        ChatTemplate(tmp_path / "bad.jinja")
    (tmp_path / "strict.jinja").write_text("{{ raise_exception('no system role') }}")
    with pytest.raises(InputError, match="no system role"):
        ChatTemplate(tmp_path / "strict.jinja")(request)


def test_without_any_limit_the_usual_one_holds() -> None:
    assert USUAL_LIMIT == 8192
