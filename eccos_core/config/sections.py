"""The smaller sections of `eccos:`: groups, optimizer, workload, retries, decision log, tenants and others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, SecretStr, ValidationInfo

from eccos_core.config.components import (
    expand_kind,
)
from eccos_core.config.database_address import read_database
from eccos_core.config.environment import PREFIX
from eccos_core.config.policy_section import PlainPolicyField
from eccos_core.config.section_model import (
    ConfigPath,
    Count,
    CountOrZero,
    Flag,
    Found,
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
    keep_days: Count | None = Field(
        default=None,
        description="Delete decisions that are older than so many days, with their labels. Left out, all are kept.",
    )

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
