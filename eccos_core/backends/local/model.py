"""A causal language model folder on a device, with its tokenizer and its limits.

The pocket models run on numpy. You run them on torch by naming a device or a dtype. SmolLM2 runs on numpy only. Every
other folder needs `eccos[local]`. Cheap to import: torch and transformers are imported late.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eccos_core.backends.local.quantised import QuantisationManifest, read_manifest, read_quantised
from eccos_core.domain import Message
from eccos_core.errors import ArtifactError, BackendError, FailureKind
from eccos_core.io.forks import reset_in_child
from eccos_core.io.optional import needs_extra
from eccos_core.pocket import pocket_models_folder

GGUF = ".gguf"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How one model runs. `device`: "cuda", "cuda:1", "cpu"; None takes CUDA when there is one. `dtype`: a torch name;
    None takes bfloat16 on CUDA and float32 on the CPU. `max_batch`: rows that decode together. `max_queue`: requests
    that may wait. `max_prefill_tokens`: padded prompt tokens read in one pass. `max_kv_tokens`: tokens of all running
    requests that the cache may hold, padding included. None sets no limit until memory runs out.
    `keep_quantised`: a variant of `eccos quantise` runs on torch with its weights in 8 or 4 bits, which is slower.
    """

    device: str | None = None
    dtype: str | None = None
    max_batch: int = 64
    max_queue: int = 4096
    max_prefill_tokens: int = 16_384
    max_kv_tokens: int | None = None
    keep_quantised: bool = False


def out_of_memory(name: str, doing: str) -> BackendError:
    """The retryable error of a model that had too little memory."""
    return BackendError(
        name,
        f"out of memory while {doing}; try again later",
        retryable=True,
        kind=FailureKind.OUT_OF_MEMORY,
        status_code=503,
    )


def unavailable(name: str) -> BackendError:
    """The error of a model that was closed."""
    return BackendError(name, "the local model was closed", kind=FailureKind.UNAVAILABLE, status_code=503)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with its tokenizer and its limits. `context_window`: None when the configuration does not say."""

    model: Any
    tokenizer: Any
    context_window: int | None
    end_ids: frozenset[int]
    temperature: float
    top_p: float
    max_new_tokens: int | None

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation, by the tokenizer's chat template, or joined by newlines when it has none."""
        chat = [{**message, "content": _plain_text(message)} for message in messages]
        if getattr(self.tokenizer, "chat_template", None):
            rendered = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            return list(self.tokenizer(rendered, add_special_tokens=False)["input_ids"])
        return list(self.tokenizer("\n".join(message["content"] for message in chat))["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of output tokens, without special tokens."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def _plain_text(message: Message) -> str:
    """The text of a message; parts of another kind are refused."""
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise TypeError(f"message content must be text or a list of parts, got {type(content).__name__}")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind != "text":
            raise ValueError(f"a local text model reads text only, got a message part of type {kind!r}")
        texts.append(str(part["text"]))
    return "".join(texts)


def _damaged(name: str, message: str) -> BackendError:
    return BackendError(name, message, retryable=False, kind=FailureKind.UNAVAILABLE, status_code=500)


def _load_on_numpy(name: str, place: Path) -> LoadedModel:
    """Load a pocket model or SmolLM2 without torch."""
    from safetensors import SafetensorError

    from eccos_core.backends.local.gguf_llama import load_gguf_llama
    from eccos_core.backends.local.numpy_llama import load_numpy_llama

    ends: tuple[int | None, ...] = ()
    longest: int | None = None
    try:
        if place.suffix == GGUF:
            model, tokenizer = load_gguf_llama(place)
        else:
            model, tokenizer, generation = load_numpy_llama(place)
            ends, longest = (generation["eos_token_id"],), generation.get("max_new_tokens")
    except (OSError, ValueError, KeyError, IndexError, SafetensorError) as error:
        raise _damaged(name, f"the model {place} cannot be loaded: {error}") from error
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        context_window=model.config["max_position_embeddings"],
        end_ids=frozenset(end for end in (*ends, tokenizer.eos_token_id) if end is not None),
        temperature=0.0,
        top_p=1.0,
        max_new_tokens=longest,
    )


_loading = threading.Lock()


def _renew_lock() -> None:
    """Replace the lock, which another thread may have held when this process was forked."""
    global _loading
    _loading = threading.Lock()


reset_in_child(_renew_lock)


def load_model(name: str, folder: Path, options: EngineOptions) -> LoadedModel:
    """Load a folder, or SmolLM2's file, onto its device.

    Raises `BackendError` (unavailable) that says why it cannot be loaded.

    Models are loaded one after the other: transformers fills its modules lazily, and two threads that do so at once
    raise "cannot import name"; its progress bars are a global switch too.
    """
    with _loading:
        return _load(name, folder, options)


def _load(name: str, folder: Path, options: EngineOptions) -> LoadedModel:
    chosen = options.device or options.dtype or options.keep_quantised
    if folder.suffix == GGUF and chosen:
        raise _bad_option(
            name, f"{name} runs on numpy, so it takes no device, dtype or keep_quantised, got {chosen!r}. Leave it out."
        )
    try:
        manifest = read_manifest(folder)
    except ArtifactError as error:
        raise _damaged(name, str(error)) from error
    if options.keep_quantised and manifest is None:
        message = f"keep_quantised is set, and {folder} is no variant of `eccos quantise`. Leave it out."
        raise _bad_option(name, message)
    runs_on_numpy = folder.parent == pocket_models_folder() or (manifest is not None and manifest.runs_on == "numpy")
    if folder.suffix == GGUF or (runs_on_numpy and not chosen):
        return _load_on_numpy(name, folder)
    return _load_on_torch(name, folder, options, manifest)


def _bad_option(name: str, message: str) -> BackendError:
    return BackendError(name, message, retryable=False, kind=FailureKind.BAD_REQUEST, status_code=400)


def _load_on_torch(
    name: str, folder: Path, options: EngineOptions, manifest: QuantisationManifest | None
) -> LoadedModel:
    model, tokenizer = _read_from_disk(name, folder, options, manifest)
    # a recurrent state (Mamba, hybrids) cannot be taken apart by rows
    if model._is_stateful or "cache" not in inspect.signature(model.forward).parameters:
        message = (
            f"{type(model).__name__} keeps no key-value cache in every layer; "
            "serve it behind an OpenAI-compatible server instead"
        )
        raise BackendError(name, message, retryable=False, kind=FailureKind.UNAVAILABLE, status_code=500)
    own = model.generation_config
    end_ids = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        context_window=window,
        end_ids=frozenset(i for i in [*end_ids, tokenizer.eos_token_id] if i is not None),
        temperature=(1.0 if own.temperature is None else own.temperature) if own.do_sample else 0.0,
        top_p=own.top_p if own.do_sample and own.top_p else 1.0,
        max_new_tokens=own.max_new_tokens,
    )


def _read_from_disk(
    name: str, folder: Path, options: EngineOptions, manifest: QuantisationManifest | None
) -> tuple[Any, Any]:
    """Read (model, tokenizer) to the device and data type of the options. Raises `BackendError`."""
    with needs_extra("local", f"the local model {name!r}"):
        import torch
        from safetensors import SafetensorError
        from transformers import AutoTokenizer
        from transformers.utils import logging as transformers_logging

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, options.dtype or ("bfloat16" if device.startswith("cuda") else "float32"), None)
    if not isinstance(dtype, torch.dtype):
        raise _bad_option(name, f"dtype {options.dtype!r} is not a torch dtype such as 'bfloat16'")
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model = _read_transformer(folder, dtype, manifest, options.keep_quantised)
        model = model.to(torch.device(device)).eval().requires_grad_(False)
        return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except torch.OutOfMemoryError as error:
        raise out_of_memory(name, f"loading {folder} on {device}") from error
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise _damaged(name, f"the model folder {folder} cannot be loaded on {device}: {error}") from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()


def _read_transformer(
    folder: Path, dtype: Any, manifest: QuantisationManifest | None, keep_quantised: bool = False
) -> Any:
    """Read a folder's model. Quantised weights are turned back first or kept, and none may be missing."""
    with needs_extra("local", "a local model"):
        from transformers import AutoModelForCausalLM, GenerationConfig

    if manifest is None:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)

    if keep_quantised:
        from eccos_core.backends.local.quantised_torch import read_quantised_transformer

        model = read_quantised_transformer(folder, manifest, dtype)
    else:
        model = _expand_transformer(folder, dtype, manifest)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model


def _expand_transformer(folder: Path, dtype: Any, manifest: QuantisationManifest) -> Any:
    with needs_extra("local", "a local model"):
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

    state = {weight: torch.from_numpy(array) for weight, array in read_quantised(folder, manifest).items()}
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):  # no memory: only the class is wanted, and a class takes weights without a folder
        architecture = type(AutoModelForCausalLM.from_config(config))
    model, told = architecture.from_pretrained(
        None, config=config, state_dict=state, dtype=dtype, output_loading_info=True
    )
    if missing := sorted(told["missing_keys"]):
        raise ValueError(f"weights are missing: {', '.join(missing)}. Make it again with `eccos quantise`.")
    return model
