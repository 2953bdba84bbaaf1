"""The nouns of eccos. All of them are frozen values.

Every docstring names axes and units the same way: R requests, M models, N questions of the history, D embedding
dimensions. A value is checked once, where it is made, and trusted from there on.
"""

from __future__ import annotations

from eccos_core.domain.answer import ANSWER_FEATURES, AnswerConfidence, check_answer_feature
from eccos_core.domain.arrays import BoolArray, Float32Array, FloatArray, IntArray, TextArray
from eccos_core.domain.batch_offer import BATCH_ARM, BatchOffer, batch_arm
from eccos_core.domain.context_price import ContextPrice
from eccos_core.domain.decision import Chunk, Completion, Decision, QualitySource
from eccos_core.domain.forecast import FORECAST_ARRAYS, Forecast
from eccos_core.domain.model import Capability, Model
from eccos_core.domain.outcomes import LABEL_SOURCES, Judgement, LabellingCall, LabelSource, Outcome, OutcomeTable
from eccos_core.domain.plan import EscalationRule, Plan, PlanCall, PlannedModel, StreamAnswers
from eccos_core.domain.policy import Budget, LatencyRule, OnInfeasible, Policy, QualityFloor, QualityPrice
from eccos_core.domain.problem import (
    Assignment,
    Engine,
    GroupShare,
    Prices,
    RoutingProblem,
    SolutionStatus,
    StreamChoice,
)
from eccos_core.domain.request import (
    AUTHOR,
    REASONING_FIELDS,
    TOOL_FAILED,
    ConversationView,
    Deadline,
    Message,
    Request,
    new_id,
)
from eccos_core.domain.status import (
    BreakerState,
    DriftAlarm,
    LabellerStatus,
    ModelStatus,
    RouterStatus,
    SharedStatus,
    WorkloadStatus,
)

__all__ = [
    "ANSWER_FEATURES",
    "AUTHOR",
    "BATCH_ARM",
    "FORECAST_ARRAYS",
    "LABEL_SOURCES",
    "REASONING_FIELDS",
    "TOOL_FAILED",
    "AnswerConfidence",
    "Assignment",
    "BatchOffer",
    "BoolArray",
    "BreakerState",
    "Budget",
    "Capability",
    "Chunk",
    "Completion",
    "ContextPrice",
    "ConversationView",
    "Deadline",
    "Decision",
    "DriftAlarm",
    "Engine",
    "EscalationRule",
    "Float32Array",
    "FloatArray",
    "Forecast",
    "GroupShare",
    "IntArray",
    "Judgement",
    "LabelSource",
    "LabellerStatus",
    "LabellingCall",
    "LatencyRule",
    "Message",
    "Model",
    "ModelStatus",
    "OnInfeasible",
    "Outcome",
    "OutcomeTable",
    "Plan",
    "PlanCall",
    "PlannedModel",
    "Policy",
    "Prices",
    "QualityFloor",
    "QualityPrice",
    "QualitySource",
    "Request",
    "RouterStatus",
    "RoutingProblem",
    "SharedStatus",
    "SolutionStatus",
    "StreamAnswers",
    "StreamChoice",
    "TextArray",
    "WorkloadStatus",
    "batch_arm",
    "check_answer_feature",
    "new_id",
]
