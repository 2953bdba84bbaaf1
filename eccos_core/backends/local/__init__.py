"""The local backend: Hugging Face models in this process, as a LiteLLM provider."""
