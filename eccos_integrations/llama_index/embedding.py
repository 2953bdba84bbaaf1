"""`EccosEmbedding`: an encoder of eccos as an embedding model. The bundled one needs neither key nor network."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from pydantic import Field, PrivateAttr

_NOT_NAMED = BaseEmbedding.model_fields["model_name"].default


class EccosEmbedding(BaseEmbedding):
    """Embed texts with an encoder of eccos: the bundled all-MiniLM-L6-v2, or the one you give.

        Settings.embed_model = EccosEmbedding()

    What is stored or pickled names its encoder. It comes back with the same one, or with an error. Raises `ValueError`
    for the name of another encoder.
    """

    encoder: Any = Field(default=None, exclude=True, repr=False)
    """An `eccos_core.protocols.Encoder`. None: the bundled MiniLM."""

    _is_bundled: bool = PrivateAttr(default=True)

    def model_post_init(self, context: Any, /) -> None:
        """Take the bundled encoder where none was given, and the encoder's name."""
        super().model_post_init(context)
        self._is_bundled = self.encoder is None
        if self.encoder is None:
            from eccos_core.encoders import SentenceTransformerEncoder

            self.encoder = SentenceTransformerEncoder()
        if self.model_name not in (_NOT_NAMED, self.encoder.name):
            raise ValueError(
                f"this embedding was made with the encoder {self.model_name!r}, and has {self.encoder.name!r} now. "
                "Their vectors differ. Give the same one: EccosEmbedding.from_dict(stored, encoder=...)."
            )
        self.model_name = self.encoder.name

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores this class."""
        return "eccos_embedding"

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        """Copy the settings, and share the encoder."""
        memo = {} if memo is None else memo
        memo[id(self.encoder)] = self.encoder
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        """Leave the bundled encoder out, because it is there again. Raise `TypeError` for one that cannot be kept."""
        fields = {name: getattr(self, name) for name, field in type(self).model_fields.items() if not field.exclude}
        if not self._is_bundled:
            try:
                pickle.dumps(self.encoder)
            except Exception as error:
                raise TypeError(
                    f"EccosEmbedding(encoder=...) cannot be pickled, because its encoder {self.encoder.name!r} cannot: "
                    f"{error}. Make it again where you need it."
                ) from error
            fields["encoder"] = self.encoder
        return {"__dict__": fields}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        self.__init__(**state["__dict__"])  # type: ignore[misc] # as LlamaIndex's components do

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
