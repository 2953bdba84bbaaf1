"""Observability: OpenTelemetry spans and metrics, off unless configured, and log lines as JSON."""

from eccos_core.telemetry.base import SILENT, Silent, Telemetry
from eccos_core.telemetry.logs import JsonFormatter
from eccos_core.telemetry.otel import OpenTelemetry, TracedBackend

__all__ = ["SILENT", "JsonFormatter", "OpenTelemetry", "Silent", "Telemetry", "TracedBackend"]
