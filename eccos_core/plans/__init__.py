"""Plans of several calls: judge an answer, then accept it or ask another model.

Start at `PlanRule`. `fit_plan_rule` learns one from graded answers, `load_plan_rule` reads one.
"""

from eccos_core.plans.artifact import load_plan_rule, save_plan_rule
from eccos_core.plans.evidence import EVIDENCE
from eccos_core.plans.fit import PlanReport, fit_plan_rule
from eccos_core.plans.replay import AnswerSource, RevealedAnswers, run_plans
from eccos_core.plans.rule import MAX_CALLS, FirstPlans, NextSteps, PlanRule, PlanStep, PlanValues
from eccos_core.plans.state import PlanState
from eccos_core.plans.training import GradedAnswers
from eccos_core.plans.verifier import LearnedVerifier, RuleOfThumbVerifier, Verifier

__all__ = [
    "EVIDENCE",
    "MAX_CALLS",
    "AnswerSource",
    "FirstPlans",
    "GradedAnswers",
    "LearnedVerifier",
    "NextSteps",
    "PlanReport",
    "PlanRule",
    "PlanState",
    "PlanStep",
    "PlanValues",
    "RevealedAnswers",
    "RuleOfThumbVerifier",
    "Verifier",
    "fit_plan_rule",
    "load_plan_rule",
    "run_plans",
    "save_plan_rule",
]
