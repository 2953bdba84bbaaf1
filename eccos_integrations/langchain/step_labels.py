"""How good each step of an agent was: from what its tools said, and from how the run ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from eccos_core.io.step_credit import credit_steps
from eccos_integrations.langchain.agent_state import read_run
from eccos_integrations.langchain.feedback import find_decision_id
from eccos_integrations.langchain.messages import find_author

TOOL_ERROR, TOOL_OK, REPEATED_CALL = "tool_error", "tool_ok", "repeated_call"


def judge_calls(answer: AIMessage, before: Sequence[BaseMessage], after: Sequence[BaseMessage]) -> str | None:
    """Return the signal that an answer's calls give. None without calls."""
    results = [message for message in after if isinstance(message, ToolMessage)]
    if answer.invalid_tool_calls or any(result.status == "error" for result in results):
        return TOOL_ERROR
    if not results:
        return None
    made = [(call["name"], call["args"]) for each in before if isinstance(each, AIMessage) for call in each.tool_calls]
    return REPEATED_CALL if any((c["name"], c["args"]) in made for c in answer.tool_calls) else TOOL_OK


def find_failed_models(messages: Sequence[BaseMessage]) -> list[str]:
    """Return the models of the newest steps in a row whose tools failed, the newest first."""
    failed: list[str] = []
    end = len(messages)
    for place in range(len(messages) - 1, -1, -1):
        answer = messages[place]
        if not isinstance(answer, AIMessage):
            continue
        author = find_author(answer)
        if author is None or judge_calls(answer, (), messages[place + 1 : end]) != TOOL_ERROR:
            break
        failed.append(author)
        end = place
    return failed


def label_run(state: Mapping[str, Any], quality: float, discount: float | None) -> dict[str, float]:
    """Return the label of each decision of a run, in order. Without a discount, each gets the quality of the run.

    With one, labels are those of `credit_steps`. A step whose messages the state does not hold counts as gone well: a
    subagent's, and one that a summary replaced. Raises `InputError` for a number outside [0, 1].
    """
    decisions = [step["decision_id"] for step in read_run(state)["steps"] if step["decision_id"] is not None]
    if discount is None:
        return dict.fromkeys(decisions, quality)
    messages: Sequence[BaseMessage] = state.get("messages") or ()
    answers = [place for place, each in enumerate(messages) if isinstance(each, AIMessage)]
    ends = [*answers[1:], len(messages)]
    failed = set()
    for place, end in zip(answers, ends, strict=True):
        answer = messages[place]
        if isinstance(answer, AIMessage) and judge_calls(answer, (), messages[place + 1 : end]) == TOOL_ERROR:
            failed.add(find_decision_id(answer))
    labels = credit_steps([each not in failed for each in decisions], quality, discount)
    return dict(zip(decisions, labels, strict=True))
