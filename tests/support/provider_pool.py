"""A pool on the scripted server whose models offer their providers' batch APIs: `large` at OpenAI's, or Anthropic's."""

from __future__ import annotations

import json
import os
from pathlib import Path

KEY = "sk-provider-0123456789abcdef"  # in the environment as PROVIDER_KEY
CONFIG = """\
model_list:
  - model_name: small
    litellm_params: {{model: openai/small, api_base: {url}, api_key: os.environ/PROVIDER_KEY}}
    model_info: {{input_cost_per_token: 1.0e-6, output_cost_per_token: 4.0e-6, max_concurrency: 64}}
  - model_name: large
    litellm_params: {{model: {provider}/large, api_base: {large_url}, api_key: os.environ/PROVIDER_KEY}}
    model_info:
      input_cost_per_token: 1.0e-5
      output_cost_per_token: 4.0e-5
      max_concurrency: 64
      batch: {{discount: 0.5, within_s: 3600}}
eccos:
  policy: {{quality_floor: {floor}}}
  encoder: static
  predictor: prior
  history: {{outcomes: outcomes.jsonl}}
  decision_log: {{path: decisions.sqlite}}
  retries: {{attempts: 1}}
  provider_batches: {{folder: ./batches, poll_s: 0.05, max_poll_s: 0.2}}
"""
QUALITY = {"small": 0.5, "large": 0.95}


def provider_pool(folder: Path, url: str, *, provider: str = "openai", floor: float = 0.925) -> Path:
    """Write the pool's configuration and its outcomes into `folder`, and return the file. `url` is the server's."""
    os.environ["PROVIDER_KEY"] = KEY
    lines = []
    for place in range(20):
        outputs = [
            {"model": model, "correct": float(place < share * 20), "input_tokens": 20, "output_tokens": 10}
            for model, share in QUALITY.items()
        ]
        lines.append(json.dumps({"id": str(place), "query": f"question number {place}", "outputs": outputs}))
    (folder / "outcomes.jsonl").write_text("\n".join(lines) + "\n")
    path = folder / "eccos.yaml"
    large_url = url.removesuffix("/v1") if provider == "anthropic" else url
    path.write_text(CONFIG.format(url=url, large_url=large_url, provider=provider, floor=floor))
    return path
