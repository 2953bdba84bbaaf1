"""Evaluation: replay of recorded outcomes, metrics, baselines, reports."""
