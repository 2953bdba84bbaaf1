"""A pool of three models on a scripted server, as users configure it: small, tools, and one that can do everything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from eccos_core.router import Router

KEY = "sk-served-0123456789abcdef"  # in the environment as SERVED_KEY
CONFIG = """\
model_list:
  - model_name: small
    litellm_params: {{model: openai/small, api_base: {url}, api_key: os.environ/SERVED_KEY}}
    model_info: {{input_cost_per_token: 1.0e-7, output_cost_per_token: 4.0e-7, max_concurrency: 64}}
  - model_name: caller
    litellm_params: {{model: openai/caller, api_base: {url}, api_key: os.environ/SERVED_KEY}}
    model_info:
      input_cost_per_token: 4.0e-7
      output_cost_per_token: 1.6e-6
      max_concurrency: 64
      supports_function_calling: true
      supports_response_schema: true
  - model_name: large
    litellm_params: {{model: openai/large, api_base: {url}, api_key: os.environ/SERVED_KEY}}
    model_info:
      input_cost_per_token: 2.0e-6
      output_cost_per_token: 8.0e-6
      max_concurrency: 64
      supports_function_calling: true
      supports_parallel_function_calling: true
      supports_response_schema: true
      supports_vision: true
eccos:
  policy: {{quality_floor: 0.5}}
  encoder: minilm
  predictor: prior
  history: {{outcomes: outcomes.jsonl}}
  decision_log: off
"""


QUALITY = {"small": 0.6, "caller": 0.75, "large": 0.9}
QUESTIONS = 20


def served_pool(folder: Path, url: str) -> Path:
    """The configuration file of the pool, and what it has learnt from, written into `folder`; `url` is the server's."""
    lines = []
    for place in range(QUESTIONS):
        outputs = [
            {"model": model, "correct": float(place < share * QUESTIONS), "input_tokens": 20, "output_tokens": 10}
            for model, share in QUALITY.items()
        ]
        lines.append(json.dumps({"id": str(place), "query": f"question number {place}", "outputs": outputs}))
    (folder / "outcomes.jsonl").write_text("\n".join(lines) + "\n")
    path = folder / "eccos.yaml"
    path.write_text(CONFIG.format(url=url))
    return path


@contextmanager
def served_configuration(folder: Path, url: str) -> Iterator[Path]:
    """The configuration file of the pool, with the key in the environment."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SERVED_KEY", KEY)
        yield served_pool(folder, url)


WAYS = ("config", "router")  # how users give a pool to an integration


@contextmanager
def pool_given_as(way: str, path: Path) -> Iterator[dict[str, Any]]:
    """The argument that gives the pool of a file to a class of an integration, with the key in the environment."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SERVED_KEY", KEY)
        with Router.shared(path) if way == "config" else Router.from_yaml(path) as router:
            yield {"config": path} if way == "config" else {"router": router}
