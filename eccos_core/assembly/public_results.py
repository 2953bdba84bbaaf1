"""A small table of public benchmark results, matched by model family. It only orders models that nobody graded yet.

`public_results.json` holds the scores that vendors and leaderboards published, each with its source and date. Two
benchmarks are in use: MMLU-Pro and GPQA Diamond. A family with only a GPQA score gets its MMLU-Pro score from a line
through the families that have both, in logits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

# What may follow a family's name without another model being meant: dates, formats, and words for the same weights.
_SAME_MODEL = re.compile(
    r"(?:-(?:\d{2}|\d{4}|\d{6,8}|00\d|v\d+(?:-\d+)?|latest|preview|exp|instruct|chat|it|hf|free|online|instant|"
    r"versatile|turbo|maas|fp8|bf16|fp16|awq|gptq|int4|int8|gguf|q\d\w*))*"
)


@dataclass(frozen=True, slots=True)
class PublicResult:
    """What is known of one family. `score` is its accuracy on MMLU-Pro, in [0, 1], reported or converted."""

    family: str
    score: float
    source: str
    date: str


def find_public_result(model_names: Iterable[str]) -> PublicResult | None:
    """Return the result of the family that one of the names belongs to, None where the table has none.

    `openai/gpt-4o-2024-08-06` belongs to `gpt-4o`. `gpt-4o-audio` and `gpt-4.5` belong to no family of the table.
    """
    for name in model_names:
        normalised = _normalise(name.rpartition("/")[2])
        matching = [result for result in _results() if _belongs(normalised, _normalise(result.family))]
        if matching:
            return max(matching, key=lambda result: len(result.family))
    return None


def _normalise(name: str) -> str:
    """Write a model's name in lower case with dashes. `llama3.1:8b` becomes `llama-3-1-8b`."""
    dashed = re.sub(r"[^a-z0-9]+", "-", name.lower())
    return re.sub(r"\b(llama|qwen|gemma|phi|mistral)(\d)", r"\1-\2", dashed).strip("-")


def _belongs(name: str, family: str) -> bool:
    start = f"-{name}".find(f"-{family}")
    return start >= 0 and _SAME_MODEL.fullmatch(name[start + len(family) :]) is not None


@cache
def _results() -> tuple[PublicResult, ...]:
    rows = json.loads((files("eccos_core.assembly") / "public_results.json").read_text(encoding="utf-8"))["results"]
    both = [row for row in rows if "gpqa_diamond" in row and "mmlu_pro" in row]
    gpqa, mmlu_pro = (np.array([_logit(row[key]) for row in both]) for key in ("gpqa_diamond", "mmlu_pro"))
    slope, offset = np.polyfit(gpqa, mmlu_pro, 1)
    return tuple(
        PublicResult(
            row["family"],
            row["mmlu_pro"] / 100
            if "mmlu_pro" in row
            else float(1 / (1 + np.exp(-(slope * _logit(row["gpqa_diamond"]) + offset)))),
            row["source"],
            row["date"],
        )
        for row in rows
    )


def _logit(per_cent: float) -> float:
    return float(np.log(per_cent / (100 - per_cent)))
