"""What of a conversation is embedded, and how many tokens it is counted as."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eccos_core.domain import ConversationView
from eccos_core.io import tokens
from eccos_core.io.tokens import (
    _cl100k,
    conversation_text,
    count_text_tokens,
    count_tokens,
    message_text,
    text_key,
)

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who wrote Faust?"},
    {"role": "assistant", "content": "Goethe."},
    {"role": "user", "content": [{"type": "text", "text": "And when?"}, {"type": "text", "text": "Year only."}]},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    {"role": "tool", "content": "1808"},
]


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("last_user", "And when?\nYear only."),
        ("all_user", "And when?\nYear only.\n\nWho wrote Faust?"),
        ("everything", "1808\n\nAnd when?\nYear only.\n\nGoethe.\n\nWho wrote Faust?\n\nBe brief."),
    ],
)
def test_a_view_says_what_of_a_conversation_is_embedded_latest_first(view: ConversationView, expected: str) -> None:
    assert conversation_text(TALK, view) == expected


def test_the_default_is_the_last_user_message() -> None:
    assert conversation_text(TALK) == conversation_text(TALK, "last_user")


def test_pictures_say_nothing_and_the_text_beside_them_counts() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    asked = {"role": "user", "content": [picture, {"type": "text", "text": "What is this?"}]}
    assert conversation_text([asked]) == "What is this?"
    assert conversation_text([asked, {"role": "user", "content": [picture]}]) == "What is this?"
    assert conversation_text([{"role": "user", "content": [picture]}]) == ""


def test_a_system_only_conversation_gives_the_system_text() -> None:
    for view in ("last_user", "all_user", "everything"):
        assert conversation_text([{"role": "system", "content": "Tell a joke."}], view) == "Tell a joke."


def test_nested_and_foreign_parts_are_read_for_their_text() -> None:
    result = {"type": "tool_result", "content": [{"type": "text", "text": "42"}]}
    assert message_text({"role": "user", "content": ["plain", {"type": "input_text", "text": "typed"}, result, 7]}) == (
        "plain\ntyped\n42"
    )


def test_half_a_surrogate_pair_never_reaches_an_encoder() -> None:
    text = conversation_text([{"role": "user", "content": "odd \ud83d one"}])
    assert text.encode() == b"odd ? one"
    assert len(text_key("odd \ud83d one")) == 32


def test_one_text_has_one_key() -> None:
    assert text_key("a") == text_key("a") != text_key("a ")


def test_tokens_are_those_of_cl100k() -> None:
    # counts as published with tiktoken
    assert count_text_tokens("hello world") == 2
    assert count_text_tokens("tiktoken is great!") == 6
    assert count_text_tokens("antidisestablishmentarianism") == 6
    assert count_text_tokens("2 + 2 = 4") == 7
    assert count_text_tokens("お誕生日おめでとう") == 9
    assert count_text_tokens("<|endoftext|>") > 1, "a special token in a question is only text"
    assert count_text_tokens("") == 0


def test_a_conversation_counts_its_messages_names_calls_tools_and_pictures() -> None:
    plain = count_tokens([{"role": "user", "content": "hello world"}])
    assert plain == 2 + 3 + 3
    two = count_tokens([{"role": "user", "content": "hello world"}, {"role": "user", "content": "hello world"}])
    assert two == 2 * (2 + 3) + 3
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10_000, "detail": "low"}}
    assert count_tokens([{"role": "user", "content": [{"type": "text", "text": "hello world"}, picture]}]) == plain + 85
    picture["image_url"] = {"url": "x"}
    assert count_tokens([{"role": "user", "content": [picture]}]) == 3 + 3 + 765
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    assert count_tokens([{"role": "assistant", "content": None, "tool_calls": [call]}]) > 15
    assert count_tokens([{"role": "user", "content": "hello world"}], tools=[call]) > plain + 15
    assert count_tokens([{"role": "user", "name": "ann", "content": "hello world"}]) > plain


def test_a_huge_text_is_counted_in_part_and_scaled() -> None:
    whole = "The quick brown fox jumps over the lazy dog. " * 20_000
    assert count_text_tokens(whole) == pytest.approx(20_000 * 10, rel=0.01)


PIECES = st.sampled_from(
    [
        *" ab1.,'\n\r\t\v\f\x1c\x85\xa0\u2003\u3000\u0301ü中\ud83d\ude00",
        "  ",
        "\n\n",
        "word",
        "don't",
        "123456",
        "<|",
        "|>",
        "x" * 40,
    ]
)


@settings(deadline=None, max_examples=400)
@given(st.lists(PIECES | st.characters(), max_size=12).map("".join))
def test_counting_by_words_gives_the_tokens_of_the_whole_text(text: str) -> None:
    assert count_text_tokens(text) == len(_cl100k().encode_ordinary(text))
    assert count_text_tokens(text) == len(_cl100k().encode_ordinary(text))  # now every word is remembered


def test_a_new_word_is_counted_when_too_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST_WORDS", 3)
    text = " ".join(f"word{n}" for n in range(20))
    assert count_text_tokens(text) == len(_cl100k().encode_ordinary(text))
    assert len(tokens._other_words()) <= 3


def test_counting_loads_neither_litellm_nor_the_network() -> None:
    code = (
        "import sys, socket; socket.socket.connect = None\n"
        "from eccos_core.io.tokens import count_tokens\n"
        "assert count_tokens([{'role': 'user', 'content': 'hello world'}]) == 8\n"
        "assert not {'litellm', 'requests', 'torch'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
