"""One set of defaults: what the YAML file leaves out is what the class does by itself."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from eccos_core import config as configs
from eccos_core.backends.retrying import RetryPolicy
from eccos_core.config.schema import EccosSection
from eccos_core.decision_log import DecisionLog
from eccos_core.encoders import SentenceTransformerEncoder, StaticEncoder
from eccos_core.history import ChromaHistory
from eccos_core.optimizer import ExactOptimizer
from eccos_core.routing.sessions import Sessions
from eccos_core.streaming.targets import FloorTarget
from eccos_core.telemetry import OpenTelemetry
from eccos_core.workload import BreakerSettings, WorkloadTracker

Pair = tuple[type[Any], Callable[..., Any], dict[str, str]]

# config class, what it configures, and key -> parameter
PAIRS: list[Pair] = [
    (
        configs.WorkloadConfig,
        BreakerSettings,
        {"breaker_failures": "failures", "breaker_open_s": "open_s", "warm_up_s": "warm_up_s"},
    ),
    (configs.WorkloadConfig, WorkloadTracker.reconfigure, {"queue_length": "queue_length"}),
    (
        configs.RetryConfig,
        RetryPolicy,
        {key: key for key in ("attempts", "deadline_s", "initial_backoff_s", "max_backoff_s")},
    ),
    (configs.SessionConfig, Sessions, {"max_sessions": "max_sessions", "idle_s": "idle_s", "cache_s": "cache_s"}),
    (
        configs.StreamConfig,
        FloorTarget,
        {
            "promise": "promise",
            "horizon": "horizon",
            "window_requests": "window",
            "floor_insurance": "floor_insurance",
        },
    ),
    (configs.StaticConfig, StaticEncoder, {"model": "model", "dimensions": "dimensions"}),
    (
        configs.SentenceTransformerConfig,
        SentenceTransformerEncoder,
        {"model": "model", "device": "device", "threads": "threads"},
    ),
    (configs.ChromaPersistentConfig, ChromaHistory.persistent, {"collection": "collection"}),
    (configs.ChromaServerConfig, ChromaHistory.server, {"collection": "collection"}),
    (configs.DecisionLogConfig, DecisionLog, {"log_prompts": "log_prompts", "keep_days": "keep_days"}),
    (configs.TelemetryConfig, OpenTelemetry, {"log_prompts": "log_prompts"}),
    (configs.OptimizerConfig, ExactOptimizer, {"time_limit_s": "time_limit_s"}),
]
# keys that configure the router or choose a class, and have no class of their own to differ from
WITHOUT_A_CLASS = {
    "WorkloadConfig": {"default_max_concurrency", "deadline_s", "shared"},
    "RetryConfig": {"fallbacks"},
    "StreamConfig": {"window_ms", "usd_per_request", "usd_per_hour", "usd_per_day"},
    "StaticConfig": {"kind"},
    "SentenceTransformerConfig": {"kind", "intermediate_layer"},
    "ChromaPersistentConfig": {"path"},
    "ChromaServerConfig": {"url", "headers"},
    "DecisionLogConfig": {"path", "database"},
    "TelemetryConfig": {"enabled"},
    "OptimizerConfig": {"kind"},
}


@pytest.mark.parametrize(("config", "target", "names"), PAIRS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_default_of_the_file_is_the_default_of_the_class(
    config: type[Any], target: Callable[..., Any], names: dict[str, str]
) -> None:
    parameters = inspect.signature(target).parameters
    written = {key: config.model_fields[key].default for key in names}
    assert written == {key: parameters[name].default for key, name in names.items()}


@pytest.mark.parametrize(
    "config",
    sorted({pair[0] for pair in PAIRS}, key=lambda config: config.__name__),
    ids=lambda config: config.__name__,
)
def test_every_key_is_compared_or_is_named_as_one_without_a_class(config: type[Any]) -> None:
    compared = {key for one, _, names in PAIRS if one is config for key in names}
    assert compared | WITHOUT_A_CLASS.get(config.__name__, set()) == set(config.model_fields)


def test_a_file_reads_the_middle_layer_and_the_class_does_so_when_asked() -> None:
    # on purpose: routing gains from the layer, while an embedding for search is the model's own
    assert configs.SentenceTransformerConfig().intermediate_layer is True
    assert inspect.signature(SentenceTransformerEncoder).parameters["intermediate_layer"].default is False


def test_the_circuit_breaker_waits_30_seconds_and_retries_end_after_120() -> None:
    assert BreakerSettings().open_s == 30.0
    assert RetryPolicy().deadline_s == 120.0


def test_a_section_that_is_left_out_has_the_defaults_of_its_model() -> None:
    section = EccosSection()
    for key, model in (
        ("encoder", configs.SentenceTransformerConfig),
        ("predictor", configs.HybridConfig),
        ("optimizer", configs.OptimizerConfig),
        ("workload", configs.WorkloadConfig),
        ("stream", configs.StreamConfig),
        ("retries", configs.RetryConfig),
        ("sessions", configs.SessionConfig),
        ("decision_log", configs.DecisionLogConfig),
    ):
        assert getattr(section, key) == model()
