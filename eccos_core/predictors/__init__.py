"""Predictors: vectors to forecasts of quality and tokens."""
