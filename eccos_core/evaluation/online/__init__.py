"""Replay policies that learn from partial feedback: only the outcome of the chosen model is seen."""
