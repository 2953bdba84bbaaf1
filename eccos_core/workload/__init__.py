"""Workload: who is busy, and who may take more."""
