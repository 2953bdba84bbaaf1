"""Text from strangers on terminals, in JSON and in HTML."""

from __future__ import annotations

import html
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from eccos_core.cli.output import console, print_json, print_table
from eccos_core.io.safe_text import html_text, printable, printable_json, repair

ANY_TEXT = st.text(st.characters(exclude_categories=()))
HOSTILE = "\x1b[31mRED\x1b]0;pwned\x07\x9b2J\x08\r\ud83d \u202egnp.exe [link=http://x]click[/link] [bold]b[/bold]"


@given(ANY_TEXT)
def test_what_is_shown_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert not any(ord(each) < 32 or 127 <= ord(each) < 160 for each in shown if each not in "\n\t")
    assert printable(shown) == shown


@given(ANY_TEXT)
def test_json_reads_as_the_same_value(text: str) -> None:
    document = printable_json(json.dumps({text: [text]}, ensure_ascii=False))
    document.encode()
    assert json.loads(document) == {text: [text]}


@given(ANY_TEXT)
def test_html_shows_the_text_and_holds_no_markup_of_it(text: str) -> None:
    shown = html_text(f"<script>{text}</script>")
    shown.encode()
    assert "<" not in shown
    assert html.unescape(shown) == printable(f"<script>{text}</script>")


def test_plain_text_stays_as_it_is() -> None:
    for text in ("grüße 你好 🎉\n\tcode", ""):
        assert printable(text) == repair(text) == text


def test_halves_are_joined_and_a_lone_half_is_replaced() -> None:
    assert repair("\ud83c\udf89!") == "🎉!"
    assert repair({"a": ["\ud83d oops", 5, None]}) == {"a": ["\ufffd oops", 5, None]}


@pytest.mark.parametrize("terminal", [True, False])
def test_the_console_shows_hostile_text_as_text(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    out = console(stream)
    out._force_terminal = terminal
    out.print(HOSTILE, soft_wrap=True)
    out.print(Text(HOSTILE))
    print_table(out, HOSTILE, ["name"], [[HOSTILE]])
    shown = stream.getvalue()
    shown.encode()
    assert "\x9b" not in shown
    assert "\x1b[31m" not in shown
    assert "\x1b]0" not in shown
    assert "[bold]b[/bold]" in shown
    assert r"\ud83d" in shown


def test_json_for_programs_can_always_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"text": HOSTILE})
    written = capsys.readouterr().out
    written.encode()
    assert "\x9b" not in written
    assert json.loads(written) == {"text": HOSTILE}
