"""Optimizers: forecasts to assignments under constraints."""
