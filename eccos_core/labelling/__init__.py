"""Label answers without people: a judge, a reward model, and a second model that answers in the shadow."""

from eccos_core.labelling.agreement import Agreement, measure_agreement
from eccos_core.labelling.budgeted_judge import BudgetedJudge, JudgeSettings
from eccos_core.labelling.calibration import LabelCalibration, calibrate_out_of_fold, fit_calibration
from eccos_core.labelling.calibrator import GradeCalibrator
from eccos_core.labelling.labeller import BackgroundLabeller, ShadowSettings
from eccos_core.labelling.pair_labels import reconcile

__all__ = [
    "Agreement",
    "BackgroundLabeller",
    "BudgetedJudge",
    "GradeCalibrator",
    "JudgeSettings",
    "LabelCalibration",
    "ShadowSettings",
    "calibrate_out_of_fold",
    "fit_calibration",
    "measure_agreement",
    "reconcile",
]
