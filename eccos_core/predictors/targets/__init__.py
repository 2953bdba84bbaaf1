"""Targets: what the learners predict. Latent quality and length, gaps filled, priors per model."""
