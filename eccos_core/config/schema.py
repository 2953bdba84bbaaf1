"""What a configuration says, as frozen values: one class of config for each class of object it builds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias

from eccos_core.domain import ConversationView, Model, Policy, QualityFloor

# ----------------------------------------------------------------------------- the pool


@dataclass(frozen=True, slots=True)
class Deployment:
    """One way to reach a model: an entry of LiteLLM's `model_list`.

    `parameters` are the entry's `litellm_params` with environment variables filled in; `model_info` is LiteLLM's.
    `rpm`, `tpm`: requests and tokens per minute; `weight`: its share when deployments are balanced.
    """

    litellm_model: str = field(repr=False)  # `parameters` shows it where it may be shown
    parameters: Mapping[str, Any]
    model_info: Mapping[str, Any] = field(default_factory=dict)
    rpm: int | None = None
    tpm: int | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """One model of the pool and how to reach it.

    A model without outcomes needs a prior: `assume_like` names another model of the pool, `assumed_quality` is a
    probability in [0, 1]. `usd_per_gpu_hour` and `tokens_per_hour` (input and output together) price a local model.
    """

    model: Model
    deployments: tuple[Deployment, ...]
    assume_like: str | None = None
    assumed_quality: float | None = None
    usd_per_gpu_hour: float | None = None
    tokens_per_hour: float | None = None

    @property
    def requests_per_minute(self) -> int | None:
        """The sum over the deployments, or None when one of them has no limit."""
        return _sum_or_none(deployment.rpm for deployment in self.deployments)

    @property
    def tokens_per_minute(self) -> int | None:
        """The sum over the deployments, or None when one of them has no limit."""
        return _sum_or_none(deployment.tpm for deployment in self.deployments)


def _sum_or_none(limits: Iterable[int | None]) -> int | None:
    total = 0
    for limit in limits:
        if limit is None:
            return None
        total += limit
    return total


# ----------------------------------------------------------------------------- encoders


@dataclass(frozen=True, slots=True)
class SentenceTransformerConfig:
    """A sentence-transformers model: `minilm` (bundled), a folder, or a name. `threads`: torch threads per call.

    `intermediate_layer`: whether its middle layer is read, too.
    """

    model: str = "minilm"
    device: str = "auto"
    threads: int = 1
    intermediate_layer: bool = True


@dataclass(frozen=True, slots=True)
class StaticConfig:
    """Static token embeddings, distilled once from a sentence-transformers model and kept on disk."""

    model: str = "minilm"
    dimensions: int = 384


@dataclass(frozen=True, slots=True)
class ConcatenatedConfig:
    """Several encoders side by side; D is the sum of theirs."""

    encoders: tuple[SentenceTransformerConfig | StaticConfig, ...]


EncoderConfig: TypeAlias = SentenceTransformerConfig | StaticConfig | ConcatenatedConfig

# ----------------------------------------------------------------------------- predictors


@dataclass(frozen=True, slots=True)
class PriorConfig:
    """Every request gets each model's mean. `artifact`: the folder that `eccos fit` writes and the router loads."""

    artifact: Path | None = None


@dataclass(frozen=True, slots=True)
class RetrievalConfig:
    """Kernel-weighted neighbours (ECCOS-R). What is None is chosen on held-out training folds.

    `online`: neighbours are asked of the history at every decision, so that a new outcome counts at once.
    """

    artifact: Path | None = None
    neighbours: int | None = None
    bandwidth: float | None = None
    online: bool = False


@dataclass(frozen=True, slots=True)
class TrainedConfig:
    """A trained predictor (ECCOS-T): `heads` on frozen embeddings, or a text encoder `fine_tuned` end to end."""

    artifact: Path | None = None
    method: Literal["heads", "fine_tuned"] = "heads"


@dataclass(frozen=True, slots=True)
class HybridConfig:
    """Stacked retrieval, clusters, regression and trained head, calibrated: the default."""

    artifact: Path | None = None


PredictorConfig: TypeAlias = PriorConfig | RetrievalConfig | TrainedConfig | HybridConfig

# ----------------------------------------------------------------------------- history


@dataclass(frozen=True, slots=True)
class ChromaPersistentConfig:
    """A Chroma store in a folder."""

    path: Path
    collection: str = "eccos"


@dataclass(frozen=True, slots=True)
class ChromaServerConfig:
    """A Chroma server, `http://host:port` or `https://...`; `headers` may hold its credentials."""

    url: str
    collection: str = "eccos"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InMemoryConfig:
    """A history that is gone when the process ends; `outcomes`: the outcomes file that it begins with."""

    outcomes: Path | None = None


HistoryConfig: TypeAlias = ChromaPersistentConfig | ChromaServerConfig | InMemoryConfig

# ----------------------------------------------------------------------------- optimizer, workload, serving


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """`dual` (default), `exact` (OR-Tools, small batches) or `greedy` (for comparison). `time_limit_s`: per batch."""

    kind: Literal["dual", "exact", "greedy"] = "dual"
    time_limit_s: float = 10.0


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """At least / at most a share (in [0, 1]) of a batch's calls goes to some models, named or by tag."""

    name: str
    models: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    at_least: float = 0.0
    at_most: float = 1.0


@dataclass(frozen=True, slots=True)
class WorkloadConfig:
    """Caps, queue and circuit breaker.

    `default_max_concurrency`: for models that name none (None: no cap). `queue_length`: most requests waiting for a
    slot; `deadline_s`: longest wait of one. The breaker opens after `breaker_failures` failures in a row, for
    `breaker_open_s`; a model that came back is warmed up over `warm_up_s`.
    """

    default_max_concurrency: int | None = None
    queue_length: int = 10_000
    deadline_s: float = 60.0
    breaker_failures: int = 5
    breaker_open_s: float = 30.0
    warm_up_s: float = 10.0


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """Requests that come one by one.

    `window_ms` (0 to 50): what arrives within it is solved jointly. At most one budget rate, in USD. `floor_insurance`: how
    hard requests a quality floor is insured against, see `FloorTarget`; insurance is dear, so none unless asked for.
    """

    window_ms: float = 0.0
    usd_per_request: float | None = None
    usd_per_hour: float | None = None
    usd_per_day: float | None = None
    floor_insurance: float | Literal["history", "none"] = "none"


@dataclass(frozen=True, slots=True)
class RetryConfig:
    """`attempts`: calls of one model, the first included; then up to `fallbacks` other models, within `deadline_s`."""

    attempts: int = 3
    fallbacks: int = 2
    deadline_s: float = 120.0
    initial_backoff_s: float = 0.5
    max_backoff_s: float = 20.0


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """Conversations stay on their model while that is right. `max_sessions`: most sessions; `idle_s`: then forgotten."""

    max_sessions: int = 10_000
    idle_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class DecisionLogConfig:
    """Where decisions are kept (SQLite); None keeps none. `log_prompts`: message text too."""

    path: Path | None
    log_prompts: bool = False


@dataclass(frozen=True, slots=True)
class TelemetryConfig:
    """OpenTelemetry spans and metrics; `log_prompts` puts message text into them."""

    enabled: bool = False
    log_prompts: bool = False


@dataclass(frozen=True, slots=True)
class TenantConfig:
    """What one tenant (`Request.tenant`) gets instead of the rule for all. None or empty: as everybody."""

    name: str
    policy: Policy | None = None
    min_quality: float | None = None
    allow: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    required_tags: frozenset[str] = frozenset()


# ----------------------------------------------------------------------------- the whole


DEFAULT_POLICY = QualityFloor(0.75, on_infeasible="best_effort")


@dataclass(frozen=True, slots=True)
class Config:
    """One checked YAML file. `litellm_sections` holds what is LiteLLM's (`router_settings`, ...), untouched."""

    path: Path
    pool: tuple[PoolEntry, ...]
    history: HistoryConfig
    decision_log: DecisionLogConfig
    policy: Policy = DEFAULT_POLICY
    encoder: EncoderConfig = SentenceTransformerConfig()
    conversation: ConversationView = "last_user"
    predictor: PredictorConfig = HybridConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    groups: tuple[GroupConfig, ...] = ()
    workload: WorkloadConfig = WorkloadConfig()
    stream: StreamConfig = StreamConfig()
    retries: RetryConfig = RetryConfig()
    sessions: SessionConfig = SessionConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    tenants: Mapping[str, TenantConfig] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    litellm_sections: Mapping[str, Any] = field(default_factory=dict)

    @property
    def models(self) -> tuple[Model, ...]:
        """The pool's models, in the order of their first entry."""
        return tuple(entry.model for entry in self.pool)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a configuration holds secrets and is never pickled or copied; load the YAML file again")
