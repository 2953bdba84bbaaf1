"""Off-policy evaluation: what another policy would have done on traffic that was logged."""

from eccos_core.off_policy.doubly_robust import PolicyValue, doubly_robust_scores, evaluate_policy
from eccos_core.off_policy.feedback import BanditFeedback
from eccos_core.off_policy.intervals import IntervalEstimate, student_t_quantile
from eccos_core.off_policy.reward_model import calibrate_cost, calibrate_quality

__all__ = [
    "BanditFeedback",
    "IntervalEstimate",
    "PolicyValue",
    "calibrate_cost",
    "calibrate_quality",
    "doubly_robust_scores",
    "evaluate_policy",
    "student_t_quantile",
]
