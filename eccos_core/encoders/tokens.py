"""The distinct tokens of a text, fast.

Tokenizing is three quarters of a static encoder's time. A BERT-style WordPiece tokenizer splits ASCII text into words
and punctuation marks without looking at their neighbours, so that the tokens of each word can be remembered: a text is
then split by a byte table and a set, and only words never seen before reach the tokenizer. Text beyond ASCII, and any
other kind of tokenizer, goes through the tokenizer as it is. Both ways give the same tokens, and a test says so.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eccos_core.domain import IntArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer  # type: ignore[import-untyped, unused-ignore]

MOST_WORDS = 100_000  # remembered at once, about 15 MB; then it starts again
LONGEST_WORD = 32  # bytes; longer ones are rarely words, and are not remembered

_SPACES = b" \t\n\r"
_MARKS = frozenset(string.punctuation.encode())
_SPLIT = bytes(
    ord(" ") if code in _MARKS or code in _SPACES else ord(chr(code).lower()) if code < 128 else code
    for code in range(256)
)


class DistinctTokens:
    """Token ids of texts, each once, in no particular order; `unknown` is left out."""

    def __init__(self, tokenizer: Tokenizer, unknown: int | None) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True  # "[PAD]" in a question is only text
        self._without = {unknown}
        self._by_word = splits_ascii_like_bert(json.loads(tokenizer.to_str()))
        self._words: dict[bytes, tuple[int, ...]] = {}
        self._mark_ids = {mark: self._ids_of(chr(mark)) for mark in _MARKS} if self._by_word else {}

    def of(self, texts: Sequence[str]) -> list[IntArray]:
        """For each text its distinct token ids."""
        found: list[IntArray | None] = [
            self._of_ascii(text) if self._by_word and text.isascii() else None for text in texts
        ]
        rest = [i for i, ids in enumerate(found) if ids is None]
        if rest:
            encodings = self._tokenizer.encode_batch_fast([texts[i] for i in rest], add_special_tokens=False)
            for i, encoding in zip(rest, encodings, strict=True):
                found[i] = _array(sorted(set(encoding.ids) - self._without))
        return [ids for ids in found if ids is not None]

    def _of_ascii(self, text: str) -> IntArray:
        raw = text.encode("ascii")
        ids: set[int] = set()
        known = self._words
        for word in set(raw.translate(_SPLIT).split(b" ")):
            ids.update(known[word] if word in known else self._learned(word))
        for mark in _MARKS.intersection(raw):
            ids.update(self._mark_ids[mark])
        return _array(sorted(ids))

    def _learned(self, word: bytes) -> tuple[int, ...]:
        ids = self._ids_of(word.decode("ascii"))
        if len(word) <= LONGEST_WORD:
            if len(self._words) >= MOST_WORDS:
                self._words = {}
            self._words[word] = ids
        return ids

    def _ids_of(self, word: str) -> tuple[int, ...]:
        if not word:
            return ()
        ids: list[int] = self._tokenizer.encode(word, add_special_tokens=False).ids
        return tuple(sorted(set(ids) - self._without))


def splits_ascii_like_bert(description: dict[str, Any]) -> bool:
    """Whether a tokenizer (its `tokenizer.json`) lower-cases and splits ASCII text into words and marks, as BERT's."""
    normalizer, splitter, model = (description.get(key) or {} for key in ("normalizer", "pre_tokenizer", "model"))
    return (
        normalizer.get("type") == "BertNormalizer"
        and normalizer.get("lowercase") is True
        and normalizer.get("clean_text") is True
        and splitter.get("type") == "BertPreTokenizer"
        and model.get("type") == "WordPiece"
        and all(token.get("special") for token in description.get("added_tokens") or ())
    )


def _array(ids: list[int]) -> IntArray:
    return np.fromiter(ids, dtype=np.int64, count=len(ids))
