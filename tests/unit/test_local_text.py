"""Incremental decoding: whatever arrives piece by piece equals what is decoded at once."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from eccos_core.backends.local.detokenize import IncrementalDetokenizer


def decode_bytes(ids: Sequence[int]) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


def written(text: str, stops: Sequence[str]) -> tuple[str, list[str], bool]:
    growing = IncrementalDetokenizer(decode_bytes, stops)
    pieces = []
    for token in text.encode():
        growing.append(token)
        pieces.append(growing.release())
        if growing.stopped:
            break
    growing.finish()
    pieces.append(growing.release(final=True))
    return growing.text, pieces, growing.stopped


@given(st.text(max_size=60))
def test_the_pieces_make_the_text_even_when_tokens_are_half_characters(text: str) -> None:
    whole, pieces, stopped = written(text, [])
    assert whole == text == "".join(pieces)
    assert not stopped


@given(st.text(alphabet="ab\n", max_size=40), st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3))
def test_the_text_ends_before_the_stop_string_that_is_complete_first(text: str, stops: list[str]) -> None:
    whole, pieces, stopped = written(text, stops)
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    expected = text
    if ends:
        first = min(end for end, _ in ends)
        expected = text[: min(start for end, start in ends if end == first)]
    assert whole == expected == "".join(pieces)
    assert stopped == bool(ends)


def test_a_possible_beginning_of_a_stop_string_is_held_back_until_it_is_clear() -> None:
    growing = IncrementalDetokenizer(decode_bytes, ["END"])
    released = []
    for character in "xEEN.":
        growing.append(ord(character))
        released.append(growing.release())
    assert released == ["x", "", "E", "", "EN."]


def test_half_a_character_at_the_end_becomes_a_replacement_character() -> None:
    growing = IncrementalDetokenizer(decode_bytes, [])
    growing.append("é".encode()[0])
    assert growing.release() == ""
    growing.finish()
    assert growing.release(final=True) == "\ufffd"
