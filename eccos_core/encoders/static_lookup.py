"""The distinct tokens of a text, fast.

Tokenizing is three quarters of a static encoder's time. A BERT-style WordPiece tokenizer cuts text at ASCII spaces and
punctuation without looking at the neighbours of a cut, so that the tokens of each piece can be remembered: a text is
then split by a byte table and a set, and only words never seen before reach the tokenizer. Any other kind of tokenizer
is used as it is. Both ways give the same tokens, and a test says so.
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
_MARKS = string.punctuation.encode()
_SPLIT = bytes(  # on UTF-8, whose bytes beyond ASCII are left as they are
    ord(" ") if code in _MARKS or code in _SPACES else ord(chr(code).lower()) if code < 128 else code
    for code in range(256)
)
_NO_MARKS = bytes(code for code in range(256) if code not in _MARKS)


class DistinctTokens:
    """Token ids of texts, each once, in no particular order; `unknown` is left out."""

    def __init__(self, tokenizer: Tokenizer, unknown: int | None) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True  # "[PAD]" in a question is only text
        self._without = {unknown}
        self._by_word = cuts_like_bert(json.loads(tokenizer.to_str()))
        self._words: dict[bytes, tuple[int, ...]] = {}
        self._mark_ids = {mark: self._ids_of(chr(mark)) for mark in _MARKS} if self._by_word else {}

    def of(self, texts: Sequence[str]) -> list[IntArray]:
        """For each text its distinct token ids."""
        if self._by_word:
            return [self._of_words(text.encode("utf-8", "replace")) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [_array(set(encoding.ids) - self._without) for encoding in encodings]

    def _of_words(self, text: bytes) -> IntArray:
        words, known = set(text.translate(_SPLIT).split(b" ")), self._words
        try:
            ids = set().union(*map(known.__getitem__, words))
        except KeyError:
            ids = set().union(*[known[word] if word in known else self._learned(word) for word in words])
        for mark in set(text.translate(None, _NO_MARKS)):
            ids.update(self._mark_ids[mark])
        return _array(ids)

    def _learned(self, word: bytes) -> tuple[int, ...]:
        ids = self._ids_of(word.decode())
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


def cuts_like_bert(description: dict[str, Any]) -> bool:
    """Whether a tokenizer (its `tokenizer.json`) lower-cases text and cuts it at ASCII spaces and marks, as BERT's."""
    normalizer, splitter, model = (description.get(key) or {} for key in ("normalizer", "pre_tokenizer", "model"))
    return (
        normalizer.get("type") == "BertNormalizer"
        and normalizer.get("lowercase") is True
        and normalizer.get("clean_text") is True
        and splitter.get("type") == "BertPreTokenizer"
        and model.get("type") == "WordPiece"
        and all(token.get("special") for token in description.get("added_tokens") or ())
    )


def _array(ids: set[int]) -> IntArray:
    """In order, so that sums over them are the same every time."""
    array = np.fromiter(ids, dtype=np.int64, count=len(ids))
    array.sort()
    return array
