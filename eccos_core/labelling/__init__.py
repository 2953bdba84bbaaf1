"""Label answers without people: a judge, and a second model that answers the same question in the shadow."""

from eccos_core.labelling.agreement import Agreement, measure_agreement
from eccos_core.labelling.daily_budget import DailyBudget
from eccos_core.labelling.labeller import BackgroundLabeller, JudgeSettings, ShadowSettings

__all__ = [
    "Agreement",
    "BackgroundLabeller",
    "DailyBudget",
    "JudgeSettings",
    "ShadowSettings",
    "measure_agreement",
]
