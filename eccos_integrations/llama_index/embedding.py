"""`EccosEmbedding`: an encoder of eccos as an embedding model. The bundled one needs neither key nor network."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from pydantic import Field


class EccosEmbedding(BaseEmbedding):
    """Embed texts with an encoder of eccos: the bundled all-MiniLM-L6-v2, or the one you give.

    Settings.embed_model = EccosEmbedding()
    """

    encoder: Any = Field(default=None, exclude=True, repr=False)
    """An `eccos_core.protocols.Encoder`. None: the bundled MiniLM."""

    def model_post_init(self, context: Any, /) -> None:
        """Take the bundled encoder where none was given, and the encoder's name."""
        super().model_post_init(context)
        if self.encoder is None:
            from eccos_core.encoders import SentenceTransformerEncoder

            self.encoder = SentenceTransformerEncoder()
        self.model_name = self.encoder.name

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores this class."""
        return "eccos_embedding"

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._get_text_embeddings([query])[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return (await self._aget_text_embeddings([query]))[0]

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        vectors: list[Embedding] = self.encoder.encode(texts).tolist()
        return vectors

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)
