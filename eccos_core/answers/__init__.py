"""What an answer tells: its confidence, its final answer, and which answers say the same."""

from eccos_core.answers.confidence import measure_answer, token_logprobs
from eccos_core.answers.equality import SeenAnswer, agreement, read_tool_calls, same_final
from eccos_core.answers.extraction import extract_answer, grader_answer
from eccos_core.answers.validity import is_valid

__all__ = [
    "SeenAnswer",
    "agreement",
    "extract_answer",
    "grader_answer",
    "is_valid",
    "measure_answer",
    "read_tool_calls",
    "same_final",
    "token_logprobs",
]
