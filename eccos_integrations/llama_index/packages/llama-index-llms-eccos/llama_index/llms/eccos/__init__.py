"""One LLM of LlamaIndex that is your whole pool: every request goes to the cheapest model that is good enough."""

from eccos_integrations.llama_index import CostCountingHandler, EccosLLM

__all__ = ["CostCountingHandler", "EccosLLM"]
