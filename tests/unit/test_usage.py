"""Tokens of an answer: reported, or estimated from the text where the report cannot be."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from eccos_core.backends.litellm.usage import Usage
from eccos_core.domain import Model, Request
from eccos_core.io.tokens import count_text_tokens, count_tokens

MODEL = Model("m", 1e-6, 1e-6, context_window=1000)
REQUEST = Request.of("What is the capital of France?")
ANSWER = {"role": "assistant", "content": "It is Paris, of course."}
ESTIMATE = (count_tokens(REQUEST.messages), count_text_tokens("It is Paris, of course."))


def usage(prompt: Any = None, completion: Any = None, message: Any = ANSWER, **details: Any) -> Usage:
    reported = SimpleNamespace(prompt_tokens=prompt, completion_tokens=completion, **details)
    return Usage.of(reported, MODEL, REQUEST, message)


def test_what_the_provider_reports_counts() -> None:
    read = usage(12, 7)
    assert (read.input_tokens, read.output_tokens, read.estimated) == (12, 7, False)


def test_without_a_report_the_text_is_counted() -> None:
    read = Usage.of(None, MODEL, REQUEST, ANSWER)
    assert (read.input_tokens, read.output_tokens, read.estimated) == (*ESTIMATE, True)


@pytest.mark.parametrize("nonsense", [-5, 10**12, 0, "many", 2001])
def test_nonsense_is_replaced_by_an_estimate(nonsense: Any) -> None:
    assert (usage(nonsense, 7).input_tokens, usage(nonsense, 7).estimated) == (ESTIMATE[0], True)
    assert (usage(12, nonsense).output_tokens, usage(12, nonsense).estimated) == (ESTIMATE[1], True)


def test_nonsense_is_reported_and_silence_is_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        usage(0, 0)
        assert not caplog.records
        usage(-5, 7)
    assert "m: the provider reported -5 input and 7 output tokens" in caplog.text


def test_an_empty_answer_may_have_no_tokens() -> None:
    read = usage(12, 0, {"role": "assistant", "content": ""})
    assert (read.output_tokens, read.estimated) == (0, False)


def test_tool_calls_and_reasoning_are_counted() -> None:
    call = {"function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    wordy = {"content": None, "reasoning_content": "Let me look it up.", "tool_calls": [call]}
    assert usage(12, None, wordy).output_tokens > count_text_tokens("Let me look it up.")


def test_parts_are_never_more_than_the_whole() -> None:
    details = {
        "prompt_tokens_details": SimpleNamespace(cached_tokens=500),
        "completion_tokens_details": SimpleNamespace(reasoning_tokens=-3),
    }
    read = usage(12, 7, **details)
    assert (read.cached_input_tokens, read.reasoning_tokens) == (0, 0)
