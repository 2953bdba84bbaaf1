"""The steps of thinking that stops early: think, probe for the answer so far, and answer. Nothing is called here.

Certaindex, Fu et al. 2024, arXiv 2412.20993. Unlike the public code of the paper, answers that disagree never stop
anything.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, TypeAlias

from eccos_core.domain import Completion

END_OF_THINKING: Final = "</think>"
PROBE: Final = "\n</think>\n\nThe final answer is"
MOST_PROBE_TOKENS: Final = 24
_HEDGED: Final = re.compile(r"\b(wait|hmm|hold on|let me|not sure|unsure|maybe|perhaps|probably|unclear|unknown)\b")


@dataclass(frozen=True, slots=True)
class StopEarlySettings:
    """Probe after every `probe_every` tokens of thinking, and stop when the last `agree` answers are the same."""

    probe_every: int = 64
    agree: int = 3


@dataclass(frozen=True, slots=True)
class Ask:
    """A call that is wanted: what comes after the prompt."""

    prompt: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Written:
    """What the model has written for good: a piece of its thinking, or of its answer."""

    thinking: str = ""
    answer: str = ""


Steps: TypeAlias = Generator["Ask | Written", "Completion | None", str]
"""Yields what to call, is sent its completion, and returns the finish reason."""


def think_in_steps(prompt: str, settings: StopEarlySettings, limit: int) -> Steps:
    """Think, probe, stop and answer. `limit` is the most tokens of thinking and answer together, without the probes."""
    thinking, left = "", limit
    answers: deque[str] = deque(maxlen=settings.agree)
    while left > 0:
        piece = yield Ask(prompt + thinking, min(settings.probe_every, left))
        assert piece is not None
        left -= piece.output_tokens or 1
        before, ended, after = (thinking + piece.text).partition(END_OF_THINKING)
        if ended:  # the model ended its thinking by itself
            yield Written(thinking=before[len(thinking) :], answer=after.lstrip("\n"))
            return (yield from _answer(prompt + before + ended + after, piece.finish_reason, left))
        yield Written(thinking=piece.text)
        thinking += piece.text
        if piece.finish_reason != "length":  # it stopped in the middle of its thinking, and has to answer all the same
            break
        probe = yield Ask(prompt + thinking + PROBE, MOST_PROBE_TOKENS)
        assert probe is not None
        answers.append(normalize_answer(probe.text))
        if len(answers) == settings.agree and len(set(answers)) == 1 and answers[0]:
            break
    return (yield from _answer(f"{prompt}{thinking}\n{END_OF_THINKING}\n\n", "length", left))


def _answer(prompt: str, finish_reason: str | None, left: int) -> Steps:
    """Write the answer after the thinking, unless it has ended."""
    if finish_reason != "length" or left <= 0:
        return finish_reason or "stop"
    answer = yield Ask(prompt, left)
    assert answer is not None
    yield Written(answer=answer.text)
    return answer.finish_reason or "stop"


def normalize_answer(text: str) -> str:
    """Return the first line of a probe's answer in one spelling. Empty where it says nothing, or hedges."""
    line = next((line for line in text.split(END_OF_THINKING)[0].splitlines() if line.strip()), "").lower()
    if _HEDGED.search(line):
        return ""
    boxed = re.search(r"\\boxed\{([^{}]*)\}", line)
    line = boxed.group(1) if boxed else re.split(r"(?<=\w)[.;](?:\s|$)", line.lstrip(" :*$"))[0]
    return re.sub(r"[\s$*`\"'\\(),]+", "", line).strip(":.")


class ThinkingSteps:
    """Iterates over steps. `result` is what the last call gave, `finish_reason` what the whole run came to."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.result: Completion | None = None
        self.finish_reason = "stop"

    def __iter__(self) -> ThinkingSteps:
        return self

    def __next__(self) -> Ask | Written:
        result, self.result = self.result, None
        try:
            return self._steps.send(result)
        except StopIteration as ended:
            self.finish_reason = ended.value
            raise StopIteration from None
