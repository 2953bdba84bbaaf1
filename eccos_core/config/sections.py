"""The sections of `eccos:` beside encoder, predictor and history: policy, workload, stream, tenants and others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, SecretStr, ValidationInfo

from eccos_core.certification import CertifiedFloor, CertifiedGap, Claim
from eccos_core.config.components import (
    expand_kind,
)
from eccos_core.config.database_address import read_database
from eccos_core.config.environment import PREFIX
from eccos_core.config.section_model import (
    ConfigPath,
    Count,
    CountOrZero,
    Flag,
    Found,
    Fraction,
    Names,
    NotNegative,
    Positive,
    SectionModel,
    Share,
    Text,
    problem,
)
from eccos_core.config.shared_section import SharedField
from eccos_core.config.yaml import describe_yaml
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

# ----------------------------------------------------------------------------- policies and groups

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


class GroupConfig(SectionModel):
    """A share of a batch's calls that some models must get at least, or may get at most."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["models"]}, {"required": ["tags"]}]})

    models: Names = Field(default=frozenset(), description="Models of the group, by name.")
    tags: Names = Field(default=frozenset(), description="Models of the group, by tag: each model with one of them.")
    at_least: Share = Field(default=0.0, description="Least share of the calls, from 0 to 1.")
    at_most: Share = Field(default=1.0, description="Greatest share of the calls, from 0 to 1.")
    name: Text = Field(
        default_factory=lambda read: ", ".join(sorted(read["models"] | read["tags"])),
        description="The name of the group in reports. Left out, it is the list of models and tags.",
    )

    @classmethod
    def check_keys(cls, given: frozenset[str]) -> str | None:
        """At least one of models and tags."""
        return None if given & {"models", "tags"} else "names no models and no tags; give at least one of them"

    def check_values(self) -> Iterator[Found]:
        """Compare the values."""
        if not self.models and not self.tags:
            yield (), "names no models and no tags; give at least one of them"
        if self.at_least > self.at_most:
            shares = f"at_least is {self.at_least:g} and at_most is {self.at_most:g}"
            yield (), f"{shares}: no share lies between them"


# ----------------------------------------------------------------------------- optimizer, workload, serving


class OptimizerConfig(SectionModel):
    """The algorithm that assigns the requests of a batch to models."""

    kind: Literal["auto", "dual", "exact", "greedy"] = Field(
        default="auto",
        description="`auto` solves any batch fast, and proves small ones with OR-Tools. `dual` never runs CP-SAT. "
        "`exact` runs CP-SAT until it proves the optimum or `time_limit_s` ends. `greedy` is there to compare with.",
    )
    time_limit_s: Positive = Field(default=10.0, description="Longest time for one batch, in seconds. `exact` uses it.")


def _expand_optimizer(value: Any) -> Any:
    return value if isinstance(value, SectionModel) else expand_kind(value, ("auto", "dual", "exact", "greedy"))


OptimizerField: TypeAlias = Annotated[
    OptimizerConfig,
    BeforeValidator(
        _expand_optimizer, json_schema_input_type=Literal["auto", "dual", "exact", "greedy"] | OptimizerConfig
    ),
]


class WorkloadConfig(SectionModel):
    """Caps of concurrent calls, the queue before them, and the circuit breakers."""

    default_max_concurrency: Count | None = Field(
        default=None, description="Most calls in flight at once, for models that name no cap. Left out, they have none."
    )
    queue_length: CountOrZero = Field(default=10_000, description="Most requests that wait for a free slot.")
    deadline_s: Positive = Field(default=60.0, description="Longest wait of one request for a free slot, in seconds.")
    breaker_failures: Count = Field(default=5, description="Failures in a row that open a model's circuit.")
    breaker_open_s: Positive = Field(
        default=30.0, description="How long an open circuit keeps requests away from the model, in seconds."
    )
    warm_up_s: NotNegative = Field(
        default=10.0, description="How long a model that came back takes to get all its slots again, in seconds."
    )
    shared: SharedField | None = Field(
        default=None,
        description="The Redis or Valkey through which several replicas keep limits together: its address, or a "
        "mapping. Needs the extra `redis`.",
        json_schema_extra={"examples": ["redis://localhost:6379/0", {"url": "os.environ/REDIS_URL", "lease_s": 5}]},
    )


class RetryConfig(SectionModel):
    """What happens when a call fails."""

    attempts: Count = Field(default=3, description="Most calls of one model, the first one included.")
    fallbacks: CountOrZero = Field(default=2, description="Most other models that are tried after it.")
    deadline_s: Positive = Field(
        default=120.0, description="Longest time for all calls of a request together, in seconds."
    )
    initial_backoff_s: NotNegative = Field(
        default=0.5,
        description="Scale of the waits, in seconds. The wait before attempt n + 1 is drawn from 0 to this times 2^n.",
    )
    max_backoff_s: NotNegative = Field(default=20.0, description="Longest wait before any attempt, in seconds.")

    def check_values(self) -> Iterator[Found]:
        """Compare the values."""
        if self.initial_backoff_s > self.max_backoff_s:
            rule = f"must not be longer than max_backoff_s ({self.max_backoff_s:g})"
            yield ("initial_backoff_s",), f"is {self.initial_backoff_s:g}, {rule}"


class SessionConfig(SectionModel):
    """Conversations stay on their model while that pays, because providers cache their prompts."""

    max_sessions: CountOrZero = Field(default=10_000, description="Most conversations that are remembered.")
    idle_s: Positive = Field(default=3600.0, description="A conversation idle for longer is forgotten, in seconds.")
    cache_s: Positive = Field(
        default=300.0,
        description="How many seconds a provider keeps the cache of a prompt after its last use. `cache_lifetime_s` in "
        "the `model_info` of a model goes before it.",
    )


def _read_log_database(value: Any, info: ValidationInfo) -> SecretStr | None:
    return None if value is None else read_database(value, info, "eccos.decision_log", None)


class DecisionLogConfig(SectionModel):
    """Where decisions are kept: in a SQLite file, or in PostgreSQL for several replicas. `off` keeps none."""

    path: ConfigPath | None = Field(
        default=Path(".eccos/decisions.sqlite"),
        description="The SQLite file. With a `database`, what a day's budgets have spent is still kept beside it.",
        validate_default=True,
    )
    database: Annotated[SecretStr | None, PlainValidator(_read_log_database, json_schema_input_type=str | None)] = (
        Field(
            default=None,
            description="`postgresql://user@host/name`: one log that all replicas share. With a password write "
            "`os.environ/NAME`.",
        )
    )
    log_prompts: Flag = Field(default=False, description="Also keep the text of the messages.")

    @property
    def address(self) -> str | None:
        """The address of the database, with its password. Never show it."""
        return None if self.database is None else self.database.get_secret_value()


def _expand_decision_log(value: Any) -> Any:
    """Read `off`, which YAML reads as false, and an address as that of the database."""
    if value is False:
        return DecisionLogConfig.model_construct(path=None)
    if isinstance(value, str) and ("://" in value or value.startswith(PREFIX)):
        return {"database": value}
    if not isinstance(value, Mapping | SectionModel):
        raise problem(f"is {describe_yaml(value)}, must be a mapping, postgresql://user@host/name, or off")
    return value


DecisionLogField: TypeAlias = Annotated[
    DecisionLogConfig,
    BeforeValidator(_expand_decision_log, json_schema_input_type=Literal[False] | str | DecisionLogConfig),
]


def _read_off(value: Any) -> Any:
    """YAML reads the word `off` as false."""
    return "off" if value is False else value


class StopEarlyConfig(SectionModel):
    """Stop a model's thinking once its answer no longer changes. Without this section, no thinking is stopped."""

    probe_every: Count = Field(default=64, description="How many tokens a model thinks between two probes.")
    agree: Annotated[Count, Field(ge=2)] = Field(
        default=3, description="How many answers in a row must be the same, and neither empty nor hedged."
    )
    templates: dict[str, ConfigPath] = Field(
        min_length=1,
        description="The models whose thinking is stopped early, each with its chat template: a Jinja file, or the "
        "model's Hugging Face folder. Each is served by vLLM, SGLang or another server with `/v1/completions`.",
    )


class LearningConfig(SectionModel):
    """Learning from labels while serving. A section that is written is on. Without it, only a fit changes forecasts."""

    explore: Annotated[Literal["thompson", "epsilon", "off"], BeforeValidator(_read_off)] = Field(
        default="off",
        description="How other models are tried: by what is still unsure about them (`thompson`), at random "
        "(`epsilon`), or not at all.",
    )
    share: Share = Field(default=0.05, description="The share of single requests that may try another model.")
    budget_usd_per_day: NotNegative = Field(
        default=2.0,
        description="Most extra cost of a day (UTC) for trying dearer models, in USD. With 0, only models that cost no "
        "more are tried.",
    )
    forget: Annotated[Share, Field(gt=0)] = Field(
        default=1.0, description="The weight that a label keeps with each later one. 1 forgets nothing."
    )
    refit_every: Count | None = Field(
        default=None,
        description="Fit the predictor again in the background after so many labels. It is put into use if it "
        "forecasts held-out outcomes better. Without a number only `eccos fit` or a restart fits it.",
    )


class TelemetryConfig(SectionModel):
    """OpenTelemetry spans and metrics. `on` and `off` are short forms."""

    enabled: Flag = Field(default=True, description="Send spans and metrics. A section that is written is on.")
    log_prompts: Flag = Field(default=False, description="Also put the text of the messages into the spans.")


def _expand_telemetry(value: Any) -> Any:
    if isinstance(value, bool):
        return {"enabled": value}
    if not isinstance(value, Mapping | SectionModel):
        raise problem(f"is {describe_yaml(value)}, must be a mapping, or on or off")
    return value


TelemetryField: TypeAlias = Annotated[
    TelemetryConfig, BeforeValidator(_expand_telemetry, json_schema_input_type=bool | TelemetryConfig)
]


class TenantConfig(SectionModel):
    """What one tenant (`Request.tenant`) gets instead of the rule for all. What you leave out is as for everybody."""

    policy: PlainPolicyField | None = Field(
        default=None, description="The policy for this tenant. A certified one is for the whole router only."
    )
    min_quality: Share | None = Field(default=None, description="Least predicted quality of each request, from 0 to 1.")
    allow: Names | None = Field(default=None, description="The only models that may answer.")
    deny: Names = Field(default=frozenset(), description="Models that may not answer.")
    required_tags: Names = Field(default=frozenset(), description="Tags that a model needs to answer.")

    def check_values(self) -> Iterator[Found]:
        """Compare the values."""
        if self.allow is not None and not self.allow - self.deny:
            yield (), "allow and deny leave no model for this tenant"
