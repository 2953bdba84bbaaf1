"""What looks at answers before they are given: the plan rule beside a fitted predictor, or a rule of thumb."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from eccos_core.routing.planner import Planner

if TYPE_CHECKING:
    from eccos_core.config import Config

RULE_OF_THUMB_TRUST = 0.5  # how far the promises of a verifier that learned nothing here count
_log = logging.getLogger("eccos.plans")


def build_planner(config: Config) -> Planner | None:
    """Build what `eccos.policy.escalate` asks for. None without it.

    The rule is that of the predictor's folder, which `eccos fit` writes where outcomes tell of their answers. Without
    one it is a rule of thumb, and the log says so. Raises `ArtifactError` for the rule of another pool.
    """
    from eccos_core.plans import PlanRule, RuleOfThumbVerifier, load_plan_rule
    from eccos_core.plans.artifact import FOLDER
    from eccos_core.routing.escalation import EscalationPlanner

    asked = config.escalation
    if asked is None:
        return None
    names = [model.name for model in config.models]
    folder = None if config.predictor.artifact is None else config.predictor.artifact / FOLDER
    if folder is not None and folder.exists():
        rule = load_plan_rule(folder, models=names)
    else:
        _log.warning(
            "escalate: nothing was learned about the answers of this pool, so a rule of thumb judges them. Run "
            "`eccos collect`, then `eccos fit`, and name the folder in eccos.predictor.artifact."
        )
        rule = PlanRule(RuleOfThumbVerifier.of(names, ("mean_logprob", "least_logprob")), RULE_OF_THUMB_TRUST)
    return EscalationPlanner(asked, replace(rule, max_calls=asked.max_calls))
