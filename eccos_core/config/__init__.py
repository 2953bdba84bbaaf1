"""Reads and checks the YAML file. `load_config(path)` returns a `Config`, or raises every problem at once."""

from eccos_core.config.components import (
    ConcatenatedConfig,
    EncoderConfig,
    HybridConfig,
    PredictorConfig,
    PriorConfig,
    RetrievalConfig,
    SentenceTransformerConfig,
    StaticConfig,
    TrainedConfig,
)
from eccos_core.config.history import ChromaPersistentConfig, ChromaServerConfig, HistoryConfig, InMemoryConfig
from eccos_core.config.load import load_config, log_warnings
from eccos_core.config.packing_section import PackingConfig
from eccos_core.config.policy_section import CertifiedPolicy
from eccos_core.config.schema import Config, Deployment, EccosSection, EmbeddingEntry, PoolEntry
from eccos_core.config.sections import (
    DecisionLogConfig,
    GroupConfig,
    LearningConfig,
    OptimizerConfig,
    RetryConfig,
    SessionConfig,
    TelemetryConfig,
    TenantConfig,
    WorkloadConfig,
)
from eccos_core.config.server_section import DEFAULT_KEYS, KeysConfig, ServerConfig, TenantBudgetConfig
from eccos_core.config.shared_section import SharedConfig
from eccos_core.config.stream_section import StreamConfig
from eccos_core.config.watch import config_changes

__all__ = [
    "DEFAULT_KEYS",
    "CertifiedPolicy",
    "ChromaPersistentConfig",
    "ChromaServerConfig",
    "ConcatenatedConfig",
    "Config",
    "DecisionLogConfig",
    "Deployment",
    "EccosSection",
    "EmbeddingEntry",
    "EncoderConfig",
    "GroupConfig",
    "HistoryConfig",
    "HybridConfig",
    "InMemoryConfig",
    "KeysConfig",
    "LearningConfig",
    "OptimizerConfig",
    "PackingConfig",
    "PoolEntry",
    "PredictorConfig",
    "PriorConfig",
    "RetrievalConfig",
    "RetryConfig",
    "SentenceTransformerConfig",
    "ServerConfig",
    "SessionConfig",
    "SharedConfig",
    "StaticConfig",
    "StreamConfig",
    "TelemetryConfig",
    "TenantBudgetConfig",
    "TenantConfig",
    "TrainedConfig",
    "WorkloadConfig",
    "config_changes",
    "load_config",
    "log_warnings",
]
