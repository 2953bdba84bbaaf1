"""Serve a pool of three models for the other examples, behind an OpenAI-compatible server on this machine.

The server comes with eccos for tests. You write its answer into the question, in double square brackets. For models of
your own, write their addresses and keys into the configuration. Nothing else changes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eccos_core.testing import ModelServer

MODELS = {  # name -> share of past questions that it answered well, and its prices and abilities
    "small": (0.5, {"input_cost_per_token": 1e-7, "output_cost_per_token": 4e-7}),
    "middle": (
        0.75,
        {"input_cost_per_token": 4e-7, "output_cost_per_token": 1.6e-6, "supports_function_calling": True},
    ),
    "large": (
        1.0,
        {
            "input_cost_per_token": 2e-6,
            "output_cost_per_token": 8e-6,
            "supports_function_calling": True,
            "supports_response_schema": True,
            "supports_vision": True,
        },
    ),
}


@contextmanager
def served_pool() -> Iterator[Path]:
    """Yield the path of a configuration file while the server runs."""
    with tempfile.TemporaryDirectory() as folder, ModelServer() as server:
        history = Path(folder) / "outcomes.jsonl"
        with history.open("w") as lines:
            for number in range(20):
                outputs = [{"model": m, "correct": float(number < 20 * good)} for m, (good, _) in MODELS.items()]
                lines.write(json.dumps({"id": str(number), "query": f"question {number}", "outputs": outputs}) + "\n")
        pool = [
            {
                "model_name": name,
                "litellm_params": {"model": f"openai/{name}", "api_base": server.url, "api_key": "none"},
                "model_info": {**info, "max_concurrency": 16},
            }
            for name, (_, info) in MODELS.items()
        ]
        eccos = {
            "policy": {"quality_floor": 0.5},
            "predictor": "prior",
            "history": {"outcomes": str(history)},
            "decision_log": False,
        }
        path = Path(folder) / "eccos.yaml"
        path.write_text(json.dumps({"model_list": pool, "eccos": eccos}))  # JSON is YAML
        yield path


if __name__ == "__main__":
    with served_pool() as configuration:
        print(configuration.read_text()[:200], "...")
