"""Graders score an answer from 0 to 1: `grader_for("number").grade("It is 1,234.50.", 1234.5, "...")`."""

from eccos_core.grading.choice import ChoiceGrader, chosen_letter, options_in
from eccos_core.grading.exact import ContainsGrader, ExactGrader
from eccos_core.grading.factory import GRADER_NAMES, GraderSpec, RewardLoader, grader_for
from eccos_core.grading.judge import JudgeGrader
from eccos_core.grading.mathematics import MathematicsGrader
from eccos_core.grading.number import NumberGrader, numbers_in
from eccos_core.grading.protocol import AsyncGrader, Grader, Reference, Verdict
from eccos_core.grading.python import PythonGrader
from eccos_core.grading.text import normalise

__all__ = [
    "GRADER_NAMES",
    "AsyncGrader",
    "ChoiceGrader",
    "ContainsGrader",
    "ExactGrader",
    "Grader",
    "GraderSpec",
    "JudgeGrader",
    "MathematicsGrader",
    "NumberGrader",
    "PythonGrader",
    "Reference",
    "RewardLoader",
    "Verdict",
    "chosen_letter",
    "grader_for",
    "normalise",
    "numbers_in",
    "options_in",
]
