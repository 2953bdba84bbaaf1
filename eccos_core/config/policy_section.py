"""The section `eccos.policy`: the target, what waiting is worth, and when another model is asked after an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import ConfigDict, Field, PlainValidator, ValidationInfo

from eccos_core.certification import CertifiedFloor, CertifiedGap, Claim
from eccos_core.config.section_model import (
    ConfigPath,
    Flag,
    Fraction,
    NotNegative,
    Positive,
    SectionModel,
    Share,
    Text,
    problem,
)
from eccos_core.domain import (
    Budget,
    EscalationRule,
    LatencyRule,
    OnInfeasible,
    Policy,
    QualityFloor,
    QualityPrice,
    StreamAnswers,
)

POLICY_KEYS = ("quality_floor", "budget_usd", "usd_per_quality_point", "certified_floor", "within_points_of")
CERTIFIED_KEYS = ("certified_floor", "within_points_of")
LATENCY_KEYS = ("usd_per_second", "max_latency_s")
MOST_CALLS = 8  # of one plan
DEFAULT_CERTIFICATE = "certificate.json"
DEFAULT_CONFIDENCE = 0.95  # of a certified policy
DEFAULT_POLICY = QualityFloor(0.75, on_infeasible="best_effort")


@dataclass(frozen=True, slots=True)
class CertifiedPolicy:
    """The cheapest rule that a certificate says keeps a claim, and the certificate's file."""

    claim: Claim
    certificate: Path


@dataclass(frozen=True, slots=True)
class PolicySetting:
    """What `eccos.policy` says: the target, what waiting is worth, and whether answers are looked at."""

    target: Policy | CertifiedPolicy
    latency: LatencyRule = field(default_factory=LatencyRule)
    escalation: EscalationRule | None = None


class GapConfig(SectionModel):
    """At most this far below one model of the pool."""

    model: Text = Field(description="The model to compare with.")
    points: Annotated[Positive, Field(lt=100)] = Field(
        description="How far below it the mean quality may be. One point is 0.01."
    )


def _in_words(keys: tuple[str, ...]) -> str:
    return f"{', '.join(keys[:-1])} and {keys[-1]}"


class EscalateConfig(SectionModel):
    """Look at each answer, and ask another model where that is worth its price."""

    max_calls: Annotated[int, Field(ge=2, le=MOST_CALLS)] = Field(
        default=3, description="Most models that one request is sent to for its answer. Failed calls do not count."
    )
    max_latency_s: Positive | None = Field(
        default=None,
        description="No further model is asked if its answer is expected later than this after the first call.",
    )
    stream: StreamAnswers = Field(
        default="accepted",
        description="`accepted` holds tokens back until an answer is accepted. `optimistic` lets the first answer "
        "flow, and asks nobody else, where its forecast alone is high enough.",
    )
    optimistic_quality: Share = Field(
        default=0.9, description="How high that forecast must be, from 0 to 1. Only for `stream: optimistic`."
    )
    with_tools: Flag = Field(
        default=False,
        description="Whether another model may be asked after an answer that calls tools. Without it such an answer is "
        "accepted.",
    )

    def rule(self) -> EscalationRule:
        """Make the rule of the domain."""
        return EscalationRule(self.max_calls, self.max_latency_s, self.stream, self.optimistic_quality, self.with_tools)


class PolicyConfig(SectionModel):
    """What the router optimises. Give exactly one of the targets."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [key]} for key in POLICY_KEYS]})

    quality_floor: Share | None = Field(
        default=None, description="Least cost at this mean predicted quality, from 0 to 1."
    )
    budget_usd: NotNegative | None = Field(default=None, description="Best quality for at most this many USD a batch.")
    usd_per_quality_point: NotNegative | None = Field(
        default=None, description="What 0.01 of quality is worth to you, in USD. Cost and quality are weighed by it."
    )
    certified_floor: Fraction | None = Field(
        default=None, description="Least cost at this mean quality, as `eccos certify` has shown on labels."
    )
    within_points_of: GapConfig | None = Field(
        default=None, description="Least cost at most so far below one model, as `eccos certify` has shown on labels."
    )
    confidence: Fraction | None = Field(
        default=None,
        description="Of a certified policy: how sure the certificate must be, 0.95 if you leave it out. Of a quality "
        "floor: how sure its forecast must be, for requests of a task that the history may lack.",
    )
    certificate: ConfigPath = Field(
        default_factory=lambda: Path(DEFAULT_CERTIFICATE),
        validate_default=True,
        description="Of a certified policy: the certificate's file, which `eccos certify` writes.",
        json_schema_extra={"default": DEFAULT_CERTIFICATE},
    )
    on_infeasible: OnInfeasible = Field(
        default="error",
        description="What happens when no assignment reaches the target: raise an error, or get the nearest.",
    )
    usd_per_second: NotNegative = Field(
        default=0.0,
        description="What one second of waiting counts against a model, beside its cost. It is on no bill. Not with a "
        "budget or a certified policy.",
    )
    max_latency_s: Positive | None = Field(
        default=None,
        description="A model is left out while one in ten of its answers of the last 10 minutes took longer.",
    )
    escalate: EscalateConfig | None = Field(
        default=None,
        description="Look at each answer, and ask another model where that is worth its price. Needs two models. Not "
        "with a certified policy.",
    )

    @classmethod
    def check_keys(cls, given: frozenset[str]) -> str | None:
        """Exactly one target. A section with nothing but unknown keys has a misspelt one, which is reported."""
        targets = [key for key in POLICY_KEYS if key in given]
        takers = {"confidence": (*CERTIFIED_KEYS, "quality_floor"), "certificate": CERTIFIED_KEYS}
        for key, allowed in takers.items():
            if targets and key in given and not given & {*allowed}:
                return f"has {key}, which only {_in_words(allowed)} take"
        if "usd_per_second" in given and given & {"budget_usd", *CERTIFIED_KEYS}:
            return f"has usd_per_second and {targets[0]}; only quality_floor and usd_per_quality_point take it"
        if "escalate" in given and given & {*CERTIFIED_KEYS}:
            return f"has escalate and {targets[0]}; a certificate is for first answers, so take another target"
        if len(targets) == 1 or (not targets and given - {"on_infeasible", "escalate", *LATENCY_KEYS}):
            return None
        start = f"has {' and '.join(targets)}" if targets else "names no policy"
        return f"{start}; give exactly one of {', '.join(POLICY_KEYS)}"

    def policy(self) -> Policy | CertifiedPolicy:
        """Make the policy of the domain, or what a certificate must be for."""
        sure = DEFAULT_CONFIDENCE if self.confidence is None else self.confidence
        if self.certified_floor is not None:
            return CertifiedPolicy(CertifiedFloor(self.certified_floor, sure), self.certificate)
        if self.within_points_of is not None:
            gap = self.within_points_of
            return CertifiedPolicy(CertifiedGap(gap.model, gap.points, sure), self.certificate)
        if self.quality_floor is not None:
            return QualityFloor(self.quality_floor, self.on_infeasible, self.confidence)
        if self.budget_usd is not None:
            return Budget(self.budget_usd, self.on_infeasible)
        assert self.usd_per_quality_point is not None
        return QualityPrice(self.usd_per_quality_point, self.on_infeasible)

    def latency(self) -> LatencyRule:
        """Say what waiting is worth."""
        return LatencyRule(self.usd_per_second, self.max_latency_s)

    def escalation(self) -> EscalationRule | None:
        """Say when another model may be asked after an answer, None for never."""
        return None if self.escalate is None else self.escalate.rule()


def _parse_policy(value: Any, info: ValidationInfo) -> PolicySetting:
    if isinstance(value, QualityFloor | Budget | QualityPrice):
        return PolicySetting(value)
    parsed = PolicyConfig.model_validate(value, context=info.context)
    return PolicySetting(parsed.policy(), parsed.latency(), parsed.escalation())


def _parse_plain_policy(value: Any, info: ValidationInfo) -> Policy:
    parsed = _parse_policy(value, info)
    if isinstance(parsed.target, CertifiedPolicy):
        raise problem(f"has a certified policy; only eccos.policy takes {' and '.join(CERTIFIED_KEYS)}")
    if not parsed.latency.is_off:
        raise problem(f"says what waiting is worth; only eccos.policy takes {' and '.join(LATENCY_KEYS)}")
    if parsed.escalation is not None:
        raise problem("has escalate; only eccos.policy takes it, and it holds for all tenants")
    return parsed.target


PolicyField: TypeAlias = Annotated[PolicySetting, PlainValidator(_parse_policy, json_schema_input_type=PolicyConfig)]
PlainPolicyField: TypeAlias = Annotated[
    Policy, PlainValidator(_parse_plain_policy, json_schema_input_type=PolicyConfig)
]
