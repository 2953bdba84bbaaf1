"""Label answers without people: a judge, a reward model, and a second model that answers in the shadow."""

from eccos_core.labelling.agreement import Agreement, measure_agreement
from eccos_core.labelling.labeller import BackgroundLabeller, JudgeSettings, ShadowSettings

__all__ = [
    "Agreement",
    "BackgroundLabeller",
    "JudgeSettings",
    "ShadowSettings",
    "measure_agreement",
]
