"""The `eccos:` section: each of its keys read into the class of config that it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from eccos_core.config.parse_components import read_encoder, read_history, read_predictor
from eccos_core.config.parse_model import ParseContext
from eccos_core.config.schema import (
    DEFAULT_POLICY,
    Config,
    DecisionLogConfig,
    GroupConfig,
    OptimizerConfig,
    RetryConfig,
    SessionConfig,
    StreamConfig,
    TelemetryConfig,
    TenantConfig,
    WorkloadConfig,
)
from eccos_core.config.section import Section, resolved
from eccos_core.domain import Budget, ConversationView, OnInfeasible, Policy, QualityFloor, QualityPrice

POLICY_KEYS = ("quality_floor", "budget_usd", "usd_per_quality_point")


def read_our_section(ours: Section, path: Path, around: ParseContext) -> Config:
    """Everything but the pool, as a `Config` without models. What is wrong is noted and replaced by its default."""
    config = Config(
        path=path,
        pool=(),
        policy=_policy(ours, "policy") or DEFAULT_POLICY,
        groups=_groups(ours),
        encoder=read_encoder(ours, around.folder),
        conversation=cast(
            ConversationView, ours.choice("conversation", ("last_user", "all_user", "everything"), "last_user")
        ),
        predictor=read_predictor(ours, around.folder),
        history=read_history(ours, around),
        optimizer=_optimizer(ours),
        workload=_workload(ours),
        stream=_stream(ours),
        retries=_retries(ours),
        sessions=_sessions(ours),
        decision_log=_decision_log(ours, around.folder),
        telemetry=_telemetry(ours),
        tenants=_tenants(ours),
    )
    ours.close()
    return config


def _policy(parent: Section, key: str) -> Policy | None:
    section = parent.section(key)
    if section is None:
        return None
    infeasible = cast(OnInfeasible, section.choice("on_infeasible", ("error", "best_effort"), "error"))
    given = [name for name in POLICY_KEYS if section.has(name)]
    floor = section.number("quality_floor", None, high=1.0)
    budget = section.number("budget_usd", None)
    per_point = section.number("usd_per_quality_point", None)
    section.close()
    if not given and set(section.values) - {"on_infeasible"}:
        return None  # a misspelt policy, noted as an unknown key
    if len(given) != 1:
        told = f"has {' and '.join(given)}" if given else "names no policy"
        section.problems.add(section.place, f"{told}; give exactly one of {', '.join(POLICY_KEYS)}")
        return None
    if floor is not None:
        return QualityFloor(floor, infeasible)
    if budget is not None:
        return Budget(budget, infeasible)
    return QualityPrice(per_point, infeasible) if per_point is not None else None


def _groups(ours: Section) -> tuple[GroupConfig, ...]:
    groups = []
    for section in ours.sections("groups"):
        models, tags = section.names("models", frozenset()), section.names("tags", frozenset())
        group = GroupConfig(
            name=section.text("name", "") or ", ".join(sorted(models | tags)),
            models=models,
            tags=tags,
            at_least=section.number("at_least", 0.0, high=1.0),
            at_most=section.number("at_most", 1.0, high=1.0),
        )
        section.close()
        if not models and not tags:
            section.problems.add(section.place, "names no models and no tags; give at least one of them")
        if group.at_least > group.at_most:
            rule = f"at_least is {group.at_least:g} and at_most is {group.at_most:g}: no share lies between them"
            section.problems.add(section.place, rule)
        groups.append(group)
    return tuple(groups)


def _optimizer(ours: Section) -> OptimizerConfig:
    default = OptimizerConfig()
    section = ours.kind_or_section("optimizer", ("dual", "exact", "greedy"))
    if section is None:
        return default
    kind = section.choice("kind", ("dual", "exact", "greedy"), default.kind)
    limit = section.number("time_limit_s", default.time_limit_s, above=True)
    section.close()
    return OptimizerConfig(cast(Any, kind), limit)


def _workload(ours: Section) -> WorkloadConfig:
    default = WorkloadConfig()
    section = ours.section("workload")
    if section is None:
        return default
    workload = WorkloadConfig(
        default_max_concurrency=section.integer("default_max_concurrency", default.default_max_concurrency),
        queue_length=section.integer("queue_length", default.queue_length, low=0),
        deadline_s=section.number("deadline_s", default.deadline_s, above=True),
        breaker_failures=section.integer("breaker_failures", default.breaker_failures),
        breaker_open_s=section.number("breaker_open_s", default.breaker_open_s, above=True),
        warm_up_s=section.number("warm_up_s", default.warm_up_s),
    )
    section.close()
    return workload


def _stream(ours: Section) -> StreamConfig:
    section = ours.section("stream")
    if section is None:
        return StreamConfig()
    rates = ("usd_per_request", "usd_per_hour", "usd_per_day")
    given = [rate for rate in rates if section.has(rate)]
    if len(given) > 1:
        section.problems.add(section.place, f"has {' and '.join(given)}; give at most one budget rate")
    stream = StreamConfig(
        window_ms=section.number("window_ms", 0.0, high=50.0),
        usd_per_request=section.number("usd_per_request", None, above=True),
        usd_per_hour=section.number("usd_per_hour", None, above=True),
        usd_per_day=section.number("usd_per_day", None, above=True),
        floor_insurance=_floor_insurance(section),
    )
    section.close()
    return stream


def _floor_insurance(section: Section) -> float | Literal["history", "none"]:
    match section.raw("floor_insurance"):
        case None:
            return StreamConfig().floor_insurance
        case "history" | "none" as known:
            return cast(Literal["history", "none"], known)
        case int() | float() as quality if not isinstance(quality, bool) and 0 <= quality <= 1:
            return float(quality)
        case _:
            section.wrong("floor_insurance", "history, none or a quality between 0 and 1")
            return StreamConfig().floor_insurance


def _retries(ours: Section) -> RetryConfig:
    default = RetryConfig()
    section = ours.section("retries")
    if section is None:
        return default
    retries = RetryConfig(
        attempts=section.integer("attempts", default.attempts),
        fallbacks=section.integer("fallbacks", default.fallbacks, low=0),
        deadline_s=section.number("deadline_s", default.deadline_s, above=True),
        initial_backoff_s=section.number("initial_backoff_s", default.initial_backoff_s),
        max_backoff_s=section.number("max_backoff_s", default.max_backoff_s),
    )
    section.close()
    if retries.initial_backoff_s > retries.max_backoff_s:
        rule = f"is {retries.initial_backoff_s:g}, must not be longer than max_backoff_s ({retries.max_backoff_s:g})"
        section.problems.add(section.at("initial_backoff_s"), rule)
    return retries


def _sessions(ours: Section) -> SessionConfig:
    default = SessionConfig()
    section = ours.section("sessions")
    if section is None:
        return default
    sessions = SessionConfig(
        max_sessions=section.integer("max_sessions", default.max_sessions, low=0),
        idle_s=section.number("idle_s", default.idle_s, above=True),
    )
    section.close()
    return sessions


def _decision_log(ours: Section, folder: Path) -> DecisionLogConfig:
    default = DecisionLogConfig(resolved(".eccos/decisions.sqlite", folder))
    if ours.raw("decision_log") is False:  # also `off` and `no`, which YAML reads as false
        return DecisionLogConfig(None)
    section = ours.section("decision_log", instead="a mapping, or off")
    if section is None:
        return default
    log = DecisionLogConfig(section.path("path", folder, default.path), section.boolean("log_prompts", False))
    section.close()
    return log


def _telemetry(ours: Section) -> TelemetryConfig:
    if isinstance(ours.raw("telemetry"), bool):
        return TelemetryConfig(enabled=bool(ours.raw("telemetry")))
    section = ours.section("telemetry", instead="a mapping, or on or off")
    if section is None:
        return TelemetryConfig()
    telemetry = TelemetryConfig(section.boolean("enabled", True), section.boolean("log_prompts", False))
    section.close()
    return telemetry


def _tenants(ours: Section) -> Mapping[str, TenantConfig]:
    everybody = ours.section("tenants")
    if everybody is None:
        return {}
    tenants = {}
    for name in everybody.values:
        section = everybody.section(name)
        if section is None:
            if everybody.values[name] is None:
                everybody.problems.add(everybody.at(name), "is empty, must be a mapping")
            continue
        tenants[name] = TenantConfig(
            name=name,
            policy=_policy(section, "policy"),
            min_quality=section.number("min_quality", None, high=1.0),
            allow=section.names("allow", None),
            deny=section.names("deny", frozenset()),
            required_tags=section.names("required_tags", frozenset()),
        )
        section.close()
        if tenants[name].allow is not None and not (tenants[name].allow or frozenset()) - tenants[name].deny:
            section.problems.add(section.place, "allow and deny leave no model for this tenant")
    return tenants
