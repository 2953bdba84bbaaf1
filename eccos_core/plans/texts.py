"""Whether two recorded answers say the same: equal texts, after what does not matter is taken away.

Outcomes files hold extracted answers (a letter, a number, a short text), so equality is enough there. While serving,
`eccos_core.answers` compares answers as the grader of the task does.
"""

from __future__ import annotations

import numpy as np

from eccos_core.domain import FloatArray, IntArray, TextArray


def normalise(text: str) -> str:
    """Return the text in lower case with single spaces. A number is written in one way: "1,000.0" becomes "1000"."""
    words = " ".join(text.split()).casefold().rstrip(".")
    try:
        number = float(words.replace(",", "").removeprefix("$"))
    except ValueError:
        return words
    return f"{number:.10g}" if np.isfinite(number) else words


def code_answers(answers: TextArray, numbers: dict[str, int]) -> IntArray:
    """Return a number for each answer. Answers that say the same have the same one, -1 where unknown.

    numbers: those of the texts so far. New texts are added.
    """
    codes = np.full(answers.shape, -1, dtype=np.int64)
    for place, text in np.ndenumerate(answers):
        if text is not None:
            codes[place] = numbers.setdefault(normalise(text), len(numbers))
    return codes


def agree(codes: IntArray, others: IntArray) -> FloatArray:
    """Return 1.0 where two codes are equal, 0.0 where they differ, NaN where one is unknown."""
    return np.where((codes < 0) | (others < 0), np.nan, (codes == others).astype(np.float64))
