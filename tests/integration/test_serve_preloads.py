"""`eccos serve` says that it listens when LiteLLM is loaded, so that no caller waits for the import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFIG = """
model_list:
  - model_name: small
    litellm_params: {model: openai/gpt-4o-mini, api_key: sk-none}
eccos: {encoder: static, predictor: prior, history: in_memory}
"""
PROGRAM = """
import sys
import eccos_core.server.run as run
from eccos_core.cli import main

run.run_server = lambda *given, **named: print("loaded", hasattr(sys.modules.get("litellm"), "acompletion"))
sys.argv = ["eccos", "serve", "--config", "eccos.yaml"]
main()
"""


def test_litellm_is_loaded_before_the_server_listens(tmp_path: Path) -> None:
    (tmp_path / "eccos.yaml").write_text(CONFIG)
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert "loaded True" in told.stdout, told.stderr[-500:]
