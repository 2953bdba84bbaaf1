"""The LiteLLM backend: calls a model, maps its errors, balances its deployments, hides its secrets."""
