"""Embed with an encoder of eccos. The bundled one needs neither key nor network."""

from eccos_integrations.llama_index import EccosEmbedding

__all__ = ["EccosEmbedding"]
