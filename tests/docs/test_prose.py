"""README and docs read easily: short sentences, addressed to the reader, with code to try."""

from __future__ import annotations

import pytest
from doc_pages import ROOT, pages
from prose import measure, measure_all

TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in pages()}
ALL = measure_all(TEXTS.values())


def test_a_sentence_has_at_most_15_words_on_average() -> None:
    assert ALL.words > 1000
    assert ALL.words_per_sentence <= 15


def test_at_most_one_sentence_in_ten_is_longer_than_30_words() -> None:
    assert ALL.long_share <= 0.10


def test_there_are_at_most_3_semicolons_per_1000_words() -> None:
    assert ALL.per_thousand(ALL.semicolons) <= 3


def test_the_reader_is_addressed_at_least_10_times_per_1000_words() -> None:
    assert ALL.per_thousand(ALL.yous) >= 10


def test_there_are_at_least_8_code_blocks_per_1000_words_outside_the_reference() -> None:
    outside = measure_all(text for page, text in TEXTS.items() if "docs/reference" not in str(page))
    assert outside.per_thousand(outside.code_blocks) >= 8


def test_the_readme_has_at_most_130_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_prose_is_counted() -> None:
    page = "# You\n\nYou do this. It works; see [the page](x.md).\n\n| you | you |\n"
    page += "\n```python\nyou\n```\n- one `x;y` item\n"
    counted = measure(page)
    assert (counted.sentences, counted.words, counted.semicolons) == (3, 12, 1)
    assert (counted.yous, counted.code_blocks, counted.long_sentences) == (1, 1, 0)
    assert measure(" ".join(["word"] * 31) + ".").long_sentences == 1


@pytest.mark.parametrize("page", TEXTS, ids=str)
def test_a_page_begins_with_a_title(page: object) -> None:
    assert TEXTS[page].lstrip().startswith(("# ", "<"))  # type: ignore[index]
