"""Observability: OpenTelemetry spans and metrics, off unless configured, and log lines as JSON."""

from eccos_core.telemetry.base import NO_TELEMETRY, NoTelemetry, Telemetry
from eccos_core.telemetry.logs import JsonFormatter
from eccos_core.telemetry.otel import OpenTelemetry, TracedBackend

__all__ = ["NO_TELEMETRY", "JsonFormatter", "NoTelemetry", "OpenTelemetry", "Telemetry", "TracedBackend"]
