"""The batch APIs of providers: half the price, for a day's patience. Importing this loads neither LiteLLM nor httpx."""
