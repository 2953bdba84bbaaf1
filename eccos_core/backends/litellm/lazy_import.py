"""The one way in which eccos imports LiteLLM: late, offline and quiet.

LiteLLM takes seconds to import, fetches a price map in the background, downloads tokenizers for Llama names and prints
advice on errors, unless told otherwise before and after the import.
"""

from __future__ import annotations

import os
from typing import Any


def litellm_module() -> Any:
    """The module `litellm`, told to stay offline and silent. Cheap after the first call."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.disable_hf_tokenizer_download = True
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm
