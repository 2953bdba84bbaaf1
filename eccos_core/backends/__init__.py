"""Backends: the calls to models, through LiteLLM."""
