"""The one way in which eccos imports LiteLLM: late, offline and quiet.

LiteLLM takes seconds to import, fetches a price map in the background, downloads tokenizers for Llama names and prints
advice on errors, unless told otherwise before and after the import.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Any

from eccos_core.io.forks import reset_in_child, wait_before_fork


def litellm_module() -> Any:
    """The module `litellm`, told to stay offline and silent. Cheap after the first call."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.disable_hf_tokenizer_download = True
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm


def preload_litellm() -> threading.Thread:
    """Import LiteLLM on a thread of its own, while you load and forecast. Return the thread.

    An import that fails here fails again, with its message, in the thread that calls a model.
    """

    def load() -> None:
        with contextlib.suppress(ImportError):
            litellm_module()

    thread = threading.Thread(target=load, name="eccos-litellm-import", daemon=True)
    thread.start()
    wait_before_fork(thread.join)  # a child that is forked in the middle of the import could never import it
    return thread


def _forget_connections() -> None:
    """Drop LiteLLM's HTTP clients in a forked child, whose connections the parent goes on using."""
    litellm = sys.modules.get("litellm")
    if litellm is not None:
        litellm.in_memory_llm_clients_cache.flush_cache()


reset_in_child(_forget_connections)
