"""Fits the roofline of `eccos_core/roofline` to measured tables."""
