"""What a configuration says, as frozen values: the pool, the `eccos:` section, and the whole file.

Each key of `eccos:` stands once, with its default, its bounds and its description: here, in `sections.py`,
`components.py` and `history.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import Field

from eccos_core.config.batch_offers import ProviderBatchesConfig
from eccos_core.config.components import (
    EncoderConfig,
    EncoderField,
    HybridConfig,
    PredictorConfig,
    PredictorField,
    SentenceTransformerConfig,
)
from eccos_core.config.efforts import Effort
from eccos_core.config.history import (
    DEFAULT_HISTORY,
    HistoryConfig,
    HistoryField,
    default_history,
)
from eccos_core.config.label_sections import LabelsConfig, ShadowConfig
from eccos_core.config.packing_section import PackingConfig
from eccos_core.config.policy_section import (
    DEFAULT_POLICY,
    CertifiedPolicy,
    PlainPolicyField,
    PolicyField,
    PolicySetting,
)
from eccos_core.config.section_model import Names, SectionModel
from eccos_core.config.sections import (
    DecisionLogConfig,
    DecisionLogField,
    GroupConfig,
    LearningConfig,
    OptimizerConfig,
    OptimizerField,
    RetryConfig,
    SessionConfig,
    StopEarlyConfig,
    TelemetryConfig,
    TelemetryField,
    TenantConfig,
    WorkloadConfig,
)
from eccos_core.config.server_section import ServerConfig
from eccos_core.config.stream_section import StreamConfig
from eccos_core.domain import BatchOffer, ConversationView, EscalationRule, LatencyRule, Model, Policy

# ----------------------------------------------------------------------------- the pool


@dataclass(frozen=True, slots=True)
class Deployment:
    """One way to reach a model: an entry of LiteLLM's `model_list`.

    `parameters` are those of each call, with environment variables filled in. `model_info` is LiteLLM's, with the price
    of `litellm_params` beside it.
    `rpm` and `tpm` are its requests and tokens per minute. `weight` is its share when deployments are balanced. Those
    with the lowest `order` come first. `region_name` is where it runs ("eu"), and a tag of the model.
    """

    litellm_model: str = field(repr=False)  # `parameters` shows it where it may be shown
    parameters: Mapping[str, Any]
    model_info: Mapping[str, Any] = field(default_factory=dict)
    rpm: int | None = None
    tpm: int | None = None
    weight: float | None = None
    order: int | None = None
    region_name: str | None = None


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """One model of the pool and how to reach it.

    What to expect of a model without outcomes: `assume_like` names another model of the pool, `assumed_quality` is a
    probability in [0, 1]. `usd_per_gpu_hour` and `tokens_per_hour` (input and output together) price a local model.
    Without `tokens_per_hour` it has a `Model.context_price`. `batch` is what the provider's batch API offers, and the
    deployment that has it. `effort` is what calls of this model add. The efforts of one model (`Model.effort_of`) have
    the same deployments.
    """

    model: Model
    deployments: tuple[Deployment, ...]
    assume_like: str | None = None
    assumed_quality: float | None = None
    usd_per_gpu_hour: float | None = None
    tokens_per_hour: float | None = None
    effort: Effort | None = None
    batch: tuple[BatchOffer, Deployment] | None = None

    @property
    def requests_per_minute(self) -> int | None:
        """Return the sum over the deployments, or None when one of them has no limit."""
        return _sum_or_none(deployment.rpm for deployment in self.deployments)

    @property
    def tokens_per_minute(self) -> int | None:
        """Return the sum over the deployments, or None when one of them has no limit."""
        return _sum_or_none(deployment.tpm for deployment in self.deployments)


@dataclass(frozen=True, slots=True)
class EmbeddingEntry:
    """An embedding model of `model_list`, which `eccos serve` answers `/v1/embeddings` with. It is not in the pool."""

    name: str
    deployments: tuple[Deployment, ...]
    usd_per_input_token: float


def _sum_or_none(limits: Iterable[int | None]) -> int | None:
    total = 0
    for limit in limits:
        if limit is None:
            return None
        total += limit
    return total


# ----------------------------------------------------------------------------- the whole


def _example(*examples: Any, default: Any = None) -> dict[str, Any]:
    """Show examples, and the default as YAML writes it, in the JSON schema and the reference page."""
    return {"examples": list(examples)} | ({} if default is None else {"default": default})


class EccosSection(SectionModel):
    """The `eccos:` section. You may leave out every key, and the whole section."""

    policy: PolicyField = Field(
        default=PolicySetting(DEFAULT_POLICY),
        description="What the router optimises. Give exactly one target. Without a policy you get a "
        "quality floor of 0.75, or the nearest quality that can be reached.",
        json_schema_extra=_example(
            {"quality_floor": 0.8, "on_infeasible": "best_effort"},
            {"budget_usd": 2.0},
            {"certified_floor": 0.7, "confidence": 0.95, "certificate": "certificate.json"},
            {"within_points_of": {"model": "small", "points": 2.0}},
            {"quality_floor": 0.8, "usd_per_second": 0.0005, "max_latency_s": 20},
            {"quality_floor": 0.8, "escalate": {"max_calls": 3, "max_latency_s": 20}},
            default={"quality_floor": DEFAULT_POLICY.alpha, "on_infeasible": DEFAULT_POLICY.on_infeasible},
        ),
    )
    policies: dict[str, PlainPolicyField] = Field(
        default_factory=dict,
        description="Policies that a request may choose by name (`Request.policy`). `cheap` and `best` are always "
        "there, unless you give them a meaning of your own.",
        json_schema_extra=_example({"careful": {"quality_floor": 0.9}}),
    )
    unpriced: Literal["leave_out", "free", "error"] = Field(
        default="leave_out",
        description="What happens to an entry of `model_list` whose price neither the file nor LiteLLM knows: "
        "`leave_out` with a warning, count it as `free`, or an `error`. Where no entry has a price, `leave_out` lets "
        "all of them count as free, because there is no cost to compare.",
        json_schema_extra=_example("error", "free"),
    )
    groups: tuple[GroupConfig, ...] = Field(
        default=(),
        description="Shares of a batch's calls: what some models must get at least, or may get at most.",
        json_schema_extra=_example([{"name": "committed", "models": ["small"], "at_least": 0.2}]),
    )
    encoder: EncoderField = Field(
        default_factory=SentenceTransformerConfig,
        description="What turns a request into a vector: `minilm`, `static`, the name or folder of a "
        "sentence-transformers model, a mapping, or a list of these side by side.",
        json_schema_extra=_example("static", {"kind": "minilm", "threads": 2}, ["minilm", "static"], default="minilm"),
    )
    conversation: ConversationView = Field(
        default="last_user",
        description="What the encoder reads of a conversation: the last user message, all of them, or everything. "
        "`agent_step` reads the task and the numbers of an agent's step. These are its turn, the errors of its tools "
        "and more.",
        json_schema_extra=_example("all_user"),
    )
    predictor: PredictorField = Field(
        default_factory=HybridConfig,
        description="What forecasts quality and cost: `prior`, `retrieval`, `trained`, `hybrid`, or a mapping. A "
        "mapping without a `kind` is `hybrid`.",
        json_schema_extra=_example(
            "retrieval",
            {"kind": "hybrid", "artifact": "./fitted"},
            {"kind": "retrieval", "online": True},
            default="hybrid",
        ),
    )
    history: HistoryField = Field(
        default_factory=default_history,
        validate_default=True,
        description="Where outcomes are kept: `in_memory`, or a mapping with exactly one of `path`, `url`, `outcomes`.",
        json_schema_extra=_example(
            {"path": ".eccos/history"},
            {"url": "https://chroma.example:8000", "headers": {"X-Chroma-Token": "os.environ/CHROMA_TOKEN"}},
            {"outcomes": "outcomes.jsonl"},
            "in_memory",
            default={"path": DEFAULT_HISTORY},
        ),
    )
    optimizer: OptimizerField = Field(
        default_factory=OptimizerConfig,
        description="The algorithm that assigns requests to models: `auto`, `dual`, `exact`, `greedy`, or a mapping.",
        json_schema_extra=_example("exact", {"kind": "exact", "time_limit_s": 5}, default="auto"),
    )
    workload: WorkloadConfig = Field(
        default_factory=WorkloadConfig,
        description="Caps of concurrent calls, the queue and the circuit breakers.",
        json_schema_extra=_example({"default_max_concurrency": 64, "deadline_s": 30}),
    )
    stream: StreamConfig = Field(
        default_factory=StreamConfig,
        description="How a stream is decided, that is, requests that come one by one.",
        json_schema_extra=_example(
            {"horizon": "1d", "window_ms": 10}, {"promise": "window", "window_requests": 500}, {"usd_per_hour": 5}
        ),
    )
    packing: PackingConfig | None = Field(
        default=None,
        description="Requests of a batch with the same instructions share calls where that pays. A section that is "
        "written is on.",
        json_schema_extra=_example({"most": 8}, {"most": 4, "assume_quality_loss": 0.02}),
    )
    provider_batches: ProviderBatchesConfig = Field(
        default_factory=ProviderBatchesConfig,
        validate_default=True,
        description="Batches at providers, for models with `batch` in their `model_info`.",
        json_schema_extra=_example({"folder": "./batches", "poll_s": 60}),
    )
    retries: RetryConfig = Field(
        default_factory=RetryConfig,
        description="How often and how long a failed call is tried again.",
        json_schema_extra=_example({"attempts": 2, "fallbacks": 3, "deadline_s": 60}),
    )
    sessions: SessionConfig = Field(
        default_factory=SessionConfig,
        description="How long a conversation stays on its model. Providers cache prompts, so staying saves money.",
        json_schema_extra=_example({"max_sessions": 50000, "idle_s": 600}),
    )
    decision_log: DecisionLogField = Field(
        default_factory=DecisionLogConfig,
        validate_default=True,
        description="The SQLite file that keeps decisions, or `off`.",
        json_schema_extra=_example({"path": ".eccos/decisions.sqlite", "log_prompts": True}, False),
    )
    telemetry: TelemetryField = Field(
        default_factory=lambda: TelemetryConfig(enabled=False),
        description="OpenTelemetry spans and metrics: `on`, `off`, or a mapping.",
        json_schema_extra=_example(True, {"log_prompts": True}, default=False),
    )
    labels: LabelsConfig = Field(
        default_factory=LabelsConfig,
        description="Labels that come without people: from a judge, a reward model, and signals of your application.",
        json_schema_extra=_example(
            {
                "judge": {"model": "small", "share": 0.05, "budget_usd_per_day": 1.0},
                "reward": "./reward",
                "signals": {"regenerated": 0.2, "copied": 0.9, "tool_error": 0.0, "invalid_json": 0.0},
            }
        ),
    )
    learning: LearningConfig | None = Field(
        default=None,
        description="Learning from labels while serving, and trying other models. A section that is written is on.",
        json_schema_extra=_example(
            {"explore": "thompson", "share": 0.05, "budget_usd_per_day": 2.0, "forget": 1.0}, {"explore": "off"}
        ),
    )
    stop_early: StopEarlyConfig | None = Field(
        default=None,
        description="Probe thinking models for their answer, and stop them when it no longer changes.",
        json_schema_extra=_example({"probe_every": 64, "agree": 3, "templates": {"served": "./template.jinja"}}),
    )
    shadow: ShadowConfig | None = Field(
        default=None,
        description="Other models answer a share of the requests in the background. The judge or the reward model "
        "grades both answers.",
        json_schema_extra=_example({"models": ["small"], "share": 0.02, "budget_usd_per_day": 1.0}),
    )
    allowed_call_params: Names = Field(
        default=frozenset(),
        description="Call parameters that LiteLLM itself obeys and that callers may give all the same. Without this "
        "list each of them (`api_base`, `api_key`, `fallbacks`, `mock_response`, ...) is refused by name. "
        "`extra_headers` stands for headers that hold credentials.",
        json_schema_extra=_example(["drop_params"], ["api_base", "api_key"]),
    )
    server: ServerConfig = Field(
        default_factory=ServerConfig,
        validate_default=True,
        description="Where `eccos serve` listens, and its keys.",
        json_schema_extra=_example(
            {"port": 8000, "keys": {"near_limit": "refuse"}},
            {"host": "0.0.0.0", "keys": {"tenants": {"search": {"usd_per_month": 200}}}},  # noqa: S104
        ),
    )
    tenants: dict[str, TenantConfig] = Field(
        default_factory=dict,
        description="Rules for single tenants, by the tenant's name (`Request.tenant`). What you leave out is as for "
        "everybody.",
        json_schema_extra=_example({"hospital": {"required_tags": ["eu"], "policy": {"quality_floor": 0.8}}}),
    )


@dataclass(frozen=True, slots=True)
class Config:
    """One checked YAML file: the pool, the keys of `eccos:`, and what became of LiteLLM's settings.

    `aliases` maps other names of models (`model_group_alias`) to their names in the pool. `not_applied` names the rules
    of the file that do not hold here, such as guardrails and fallbacks. `warnings` are all other things worth knowing.
    `translated` says what LiteLLM's settings became. `embeddings` are the embedding models beside the pool.
    """

    path: Path
    pool: tuple[PoolEntry, ...]
    unpriced: Literal["leave_out", "free", "error"]
    policy: Policy | CertifiedPolicy
    groups: tuple[GroupConfig, ...]
    encoder: EncoderConfig
    conversation: ConversationView
    predictor: PredictorConfig
    history: HistoryConfig
    optimizer: OptimizerConfig
    workload: WorkloadConfig
    stream: StreamConfig
    retries: RetryConfig
    sessions: SessionConfig
    decision_log: DecisionLogConfig
    telemetry: TelemetryConfig
    tenants: Mapping[str, TenantConfig]
    latency: LatencyRule = field(default_factory=LatencyRule)
    escalation: EscalationRule | None = None
    policies: Mapping[str, Policy] = field(default_factory=dict)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    learning: LearningConfig | None = None
    shadow: ShadowConfig | None = None
    stop_early: StopEarlyConfig | None = None
    packing: PackingConfig | None = None
    provider_batches: ProviderBatchesConfig = field(default_factory=ProviderBatchesConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    allowed_call_params: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)
    not_applied: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    translated: tuple[str, ...] = ()
    embeddings: tuple[EmbeddingEntry, ...] = ()

    @property
    def models(self) -> tuple[Model, ...]:
        """Return the pool's models, in the order of their first entry."""
        return tuple(entry.model for entry in self.pool)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a configuration holds secrets and is never pickled or copied; load the YAML file again")
