"""A sentence-transformers model as an encoder: MiniLM by default, bundled and offline; any other by folder or name."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from eccos_core.domain import Float32Array
from eccos_core.encoders.model_folder import (
    declared_dimensions,
    declared_max_tokens,
    declared_width,
    display_name,
    fingerprint,
    model_folder,
)
from eccos_core.errors import InputError
from eccos_core.io.optional import needs_extra
from eccos_core.io.threads import cores

BATCH = 16  # texts of similar length; larger batches win nothing on a CPU
BATCH_ON_A_GPU = 128
MOST_CHARACTERS = 65_536  # read of one text before its word pieces are counted
MIDDLE = 2 / 3  # how deep the middle layer lies: the fourth of MiniLM's six


class SentenceTransformerEncoder:
    """Encodes texts with a sentence-transformers model, as vectors of unit length.

    - `model`: "minilm" (all-MiniLM-L6-v2, D = 384, bundled), a folder, or a Hugging Face name.
    - `device`: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", "mps".
    - `threads`: torch threads for one forward pass.
    - `intermediate_layer`: put the mean over tokens of a middle layer beside the embedding, each half of the squared
      length. It shows better how hard a text is, and costs nothing more (docs/design/encoders.md).
    - `max_tokens`: **long texts are cut**. The first so many word pieces are read, 256 for MiniLM, which is about 190
      English words. The rest of the text has no effect.

    torch sets its thread count per calling thread, so a single request runs on `threads`, and nobody else's setting
    changes. A call with many texts is spread over as many Python threads as there are cores.

    The first text loads the model, or `load()` does. `name` and `dimensions` are known before. Safe to call from
    several threads. Tokenizing is serialised, because a fast tokenizer fails when two threads set its truncation.
    """

    def __init__(
        self,
        model: str = "minilm",
        *,
        device: str = "auto",
        threads: int = 1,
        max_tokens: int | None = None,
        intermediate_layer: bool = False,
    ) -> None:
        if threads < 1:
            raise InputError(f"encoder {model!r}: threads is {threads}, must be >= 1")
        if max_tokens is not None and max_tokens < 1:
            raise InputError(f"encoder {model!r}: max_tokens is {max_tokens}, must be >= 1")
        self._model_name = model
        self._folder = model_folder(model)
        self._device = device
        self._threads = threads
        self._max_tokens = max_tokens
        self._intermediate_layer = intermediate_layer
        cut = (f"/{max_tokens}" if max_tokens else "") + ("/middle" if intermediate_layer else "")
        self._name = f"sentence-transformer:{display_name(model)}{cut}@{fingerprint(self._folder)}"
        self._model: Any = None
        self._loading = threading.Lock()
        self._tokenizing = threading.Lock()

    @property
    def name(self) -> str:
        """The model's name, what is cut, and a fingerprint of weights, tokenizer and configuration."""
        return self._name

    @property
    def dimensions(self) -> int:
        """D: 384 for MiniLM, 768 with its middle layer."""
        own = declared_dimensions(self._folder) or int(self.load().get_embedding_dimension())
        return own + (declared_width(self._folder) if self._intermediate_layer else 0)

    @property
    def max_tokens(self) -> int:
        """How many word pieces of a text are read; what follows has no effect."""
        return self._max_tokens or declared_max_tokens(self._folder) or int(self.load().max_seq_length)

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """(len(texts), D) float32, unit length."""
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        if not texts:
            return vectors
        model = self.load()
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        size, workers = self._plan(model.device.type)
        batches = [order[start : start + size] for start in range(0, len(order), size)]

        def fill(batch: list[int]) -> None:
            vectors[batch] = self._forward(model, [texts[i] for i in batch])

        if len(batches) == 1 or workers == 1:
            for batch in batches:
                fill(batch)
        else:
            with ThreadPoolExecutor(workers, thread_name_prefix="eccos-encoder") as pool:
                for _ in pool.map(fill, reversed(batches)):  # the longest first, so that no worker is left waiting
                    pass
        return vectors

    def load(self) -> Any:
        """The sentence-transformers model, loaded once. Raises `InputError` when it cannot be."""
        with self._loading:
            if self._model is None:
                self._model = self._loaded()
            return self._model

    def _plan(self, device: str) -> tuple[int, int]:
        """(texts in a batch, Python threads) for many texts."""
        if device != "cpu":
            return BATCH_ON_A_GPU, 1
        return BATCH, max(1, cores() // self._threads)

    def _forward(self, model: Any, texts: list[str]) -> Float32Array:
        with needs_extra("local", "a sentence-transformers encoder"):
            import torch

        prompt = model.prompts.get(model.default_prompt_name) if model.default_prompt_name else None
        with self._tokenizing:
            features = model.preprocess([text[:MOST_CHARACTERS] for text in texts], prompt=prompt)
        features = {
            key: value.to(model.device) if isinstance(value, torch.Tensor) else value for key, value in features.items()
        }
        with _torch_threads(self._threads), torch.inference_mode():
            read = model(features)
            embedding = torch.nn.functional.normalize(read["sentence_embedding"].float(), dim=1)
            if self._intermediate_layer:
                layers = read["all_layer_embeddings"]
                layer = layers[round(MIDDLE * (len(layers) - 1))].float()
                counted = features["attention_mask"].unsqueeze(-1).to(layer.dtype)
                mean = (layer * counted).sum(dim=1)  # its length does not matter
                embedding = torch.cat([embedding, torch.nn.functional.normalize(mean, dim=1)], dim=1) * 0.5**0.5
            unit: Float32Array = embedding.cpu().numpy()
        unit[~unit.any(axis=1), -1] = 1.0  # a text without any token, where the tokenizer adds none of its own
        return unit

    def _loaded(self) -> Any:
        from safetensors import SafetensorError

        with needs_extra("local", f"the encoder {self._model_name!r}"):
            import torch
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging as transformers_logging
        device = ("cuda" if torch.cuda.is_available() else "cpu") if self._device == "auto" else self._device
        before = transformers_logging.get_verbosity()
        bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity_error()  # a report of unused weights is no news to anybody who routes
        transformers_logging.disable_progress_bar()
        try:
            model = SentenceTransformer(
                str(self._folder),
                device=device,
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, AssertionError, SafetensorError) as error:
            raise InputError(
                f"encoder {self._model_name!r}: {self._folder} cannot be loaded on {device!r} ({error})"
            ) from error
        finally:
            transformers_logging.set_verbosity(before)
            if bars:
                transformers_logging.enable_progress_bar()
        if self._intermediate_layer:
            self._show_layers(model)
        return self._with_max_tokens(model.eval())

    def _show_layers(self, model: Any) -> None:
        """Has the transformer tell its layers. Raises `InputError` for a model that has none."""
        config = getattr(getattr(model[0], "auto_model", None), "config", None)
        if config is None:
            raise InputError(
                f"encoder {self._model_name!r}: it is no transformer with layers to read; "
                "use it without intermediate_layer"
            )
        config.output_hidden_states = True

    def _with_max_tokens(self, model: Any) -> Any:
        if self._max_tokens:
            positions = getattr(getattr(model[0], "config", None), "max_position_embeddings", None)
            if isinstance(positions, int) and self._max_tokens > positions:
                raise InputError(
                    f"encoder {self._model_name!r}: max_tokens is {self._max_tokens}, the model has {positions}"
                )
            model.max_seq_length = self._max_tokens
        return model


@contextlib.contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """Torch threads of the calling thread inside the block (OpenMP keeps the number per thread), and back again."""
    with needs_extra("local", "a sentence-transformers encoder"):
        import torch

    before = torch.get_num_threads()
    if before == threads:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
