"""Half the price for a day's patience: a batch through a provider's batch API, here on a scripted server.

Half of the questions need the large model. With patience they go through its batch API, and one of them fails there and
is called at once. Runs offline.

python examples/provider_batches.py
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from eccos_core import Completion, Router
from eccos_core.testing import ModelServer

CONFIG = """\
model_list:
  - model_name: small
    litellm_params: {{model: openai/small, api_base: {url}, api_key: none}}
    model_info: {{input_cost_per_token: 1.0e-7, output_cost_per_token: 4.0e-7, assumed_quality: 0.5}}
  - model_name: large
    litellm_params: {{model: openai/large, api_base: {url}, api_key: none}}
    model_info:
      input_cost_per_token: 2.0e-6
      output_cost_per_token: 8.0e-6
      assumed_quality: 0.9
      batch: {{discount: 0.5, within_s: 86400}}
eccos:
  policy: {{quality_floor: 0.7}}
  encoder: static
  predictor: prior
  decision_log: off
  provider_batches: {{poll_s: 0.2}}
"""
QUESTIONS = [f"Explain the number {n}." for n in range(19)] + ["Explain zero. [[status 500]] [[times 1]]"]


def tell(what: str, answers: list[Completion]) -> float:
    usd = sum(each.cost_usd for each in answers)
    print(f"{what}: {usd:.2e} USD, decided", dict(Counter(each.decision.model for each in answers)))
    return usd


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ModelServer() as server:
        path = Path(folder) / "eccos.yaml"
        path.write_text(CONFIG.format(url=server.url))
        with Router.from_yaml(path) as router:
            patient = tell("with patience", router.complete_batch(QUESTIONS, patience_s=86_400, report=print))
            at_once = tell("at once", router.complete_batch(QUESTIONS))
    assert patient < at_once


if __name__ == "__main__":
    main()
