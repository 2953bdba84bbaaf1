"""Learn from labelled decisions while serving: notice when a model no longer answers as forecast."""

from eccos_core.learning.drift import DriftMonitor

__all__ = ["DriftMonitor"]
