"""What a step of an agent is, beside its text: turn, tool errors, repeated calls, progress, kinds of tools, sizes.

A step is more than its last message. These numbers travel at the end of the text that is embedded, as one line that a
person can read. So they reach the history, the decision log and outcomes files with the text. `StepEncoder` turns the
line into numbers of the vector. You may write the line into outcomes of your own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

from eccos_core.domain import TOOL_FAILED, Message

RECENT_RESULTS = 4  # results of tools that progress is read from
_FAILED_TEXT = re.compile(
    r"\s*(?:\w*error\b|\w*exception\b|traceback\b|fatal\b|failed\b|command failed|exit code:? [1-9])", re.IGNORECASE
)
_TRACEBACK = "Traceback (most recent call last)"
_READS = "browse cat fetch find get glob grep list look lookup open query read retrieve search show view"
_WRITES = "add append apply create delete edit insert patch remove rename replace send update write"
_RUNS = "bash command compile exec execute python run shell sql terminal test tests"
_KIND_OF = {  # by the first word of a tool's name that is here
    word: kind for kind, words in (("reads", _READS), ("writes", _WRITES), ("runs", _RUNS)) for word in words.split()
}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_MARK = "[agent step v1]"


@dataclass(frozen=True, slots=True)
class AgentStep:
    """The numbers of one step of an agent. They count from the last user message on.

    `turn`: answers of models so far. `errors`: failed tool results in a row, the newest last. `repeats`: calls that
    were made before, with the same arguments. `progress`: share in [0, 1] of the newest tool results that are new and
    did not fail, 1 before the first. `reads`, `writes` and `runs`: calls by what the name of the tool says. `context`:
    characters of the whole conversation. `observed`: characters of the newest tool result.
    """

    turn: float = 0
    errors: float = 0
    repeats: float = 0
    progress: float = 1
    reads: float = 0
    writes: float = 0
    runs: float = 0
    context: float = 0
    observed: float = 0

    def line(self) -> str:
        """Return the numbers as a line, which `split_step` reads back."""
        pairs = zip(STEP_FEATURES, astuple(self), strict=True)
        return " ".join([_MARK, *(f"{name}={value:.6g}" for name, value in pairs)])


STEP_FEATURES = tuple(field.name for field in fields(AgentStep))
_NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_LINE = re.compile(
    r"(?:\A|\n\n)" + re.escape(_MARK) + "".join(rf" {name}=({_NUMBER})" for name in STEP_FEATURES) + r"\Z"
)


def split_step(text: str) -> tuple[str, AgentStep | None]:
    """Return a text without the line of its step, and the step. None for a text that ends with no such line."""
    found = _LINE.search(text, max(0, text.rfind(_MARK) - 2)) if _MARK in text else None
    if found is None:
        return text, None
    return text[: found.start()], AgentStep(*(float(number) for number in found.groups()))


def add_step(text: str, step: AgentStep | None) -> str:
    """Return a text with the line of its step. A line that somebody wrote at the end of a plain question counts not."""
    if step is not None:
        return f"{text}\n\n{step.line()}"
    return f"{text}\n" if split_step(text)[1] is not None else text


def read_step(messages: Sequence[Message], *, has_tools: bool = False) -> AgentStep | None:
    """Read the step of a conversation. None for a plain one: no tools are offered, and none were called."""
    last_user = max((i for i, each in enumerate(messages) if each.get("role") == "user"), default=-1)
    run = messages[last_user + 1 :]
    calls = [call for message in run for call in _calls(message)]
    results = [message for message in run if message.get("role") == "tool"]
    if not has_tools and not calls and not results:
        return None
    kinds = [_kind(name) for name, _ in calls]
    texts = [_text(message) for message in results]
    failed = [_has_failed(message, text) for message, text in zip(results, texts, strict=True)]
    return AgentStep(
        turn=sum(message.get("role") == "assistant" for message in run),
        errors=_in_a_row(failed),
        repeats=len(calls) - len(set(calls)),
        progress=_progress(texts, failed),
        reads=kinds.count("reads"),
        writes=kinds.count("writes"),
        runs=kinds.count("runs"),
        context=sum(len(_text(message)) for message in messages),
        observed=len(texts[-1]) if texts else 0,
    )


def _calls(message: Message) -> Iterator[tuple[str, str]]:
    """Yield (name, arguments) of each tool call of a message. Arguments that mean the same read the same."""
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, Sequence) and not isinstance(calls, str) else ():
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping):
            yield str(function.get("name") or ""), _canonical(function.get("arguments"))


def _canonical(arguments: Any) -> str:
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except (TypeError, ValueError):
        return str(arguments)


def _kind(name: str) -> str | None:
    """Return what a tool does, by the words of its name. None where they do not say."""
    words = (word.lower() for word in _WORD.findall(name))
    return next((_KIND_OF[word] for word in words if word in _KIND_OF), None)


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else ()
    return "\n".join(str(part.get("text") or "") for part in parts if isinstance(part, Mapping))


def _has_failed(message: Message, text: str) -> bool:
    """Tell whether a tool failed: its caller says so, or else its text begins like an error."""
    told = message.get(TOOL_FAILED)
    if told is not None:
        return bool(told)
    return _FAILED_TEXT.match(text) is not None or _TRACEBACK in text


def _in_a_row(failed: Sequence[bool]) -> int:
    return next((place for place, each in enumerate(reversed(failed)) if not each), len(failed))


def _progress(texts: Sequence[str], failed: Sequence[bool]) -> float:
    if not texts:
        return 1.0
    new = [not bad and text not in texts[:i] for i, (text, bad) in enumerate(zip(texts, failed, strict=True))]
    recent = new[-RECENT_RESULTS:]
    return sum(recent) / len(recent)
