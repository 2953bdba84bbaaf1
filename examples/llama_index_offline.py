"""Try LlamaIndex without keys and network: three models on a local server answer from a script.

The other `llama_index_*` examples use `offline_pool`. With a pool of your own, write `EccosLLM(config="eccos.yaml")`
instead. Run by itself, this example asks the pool one question.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from eccos_core.testing import ModelServer

CONFIG = """\
model_list:
  - model_name: small
    litellm_params: {{model: openai/small, api_base: {url}, api_key: none}}
    model_info:
      input_cost_per_token: 1.0e-7
      output_cost_per_token: 4.0e-7
      max_concurrency: 64
      max_input_tokens: 8192
  - model_name: caller
    litellm_params: {{model: openai/caller, api_base: {url}, api_key: none}}
    model_info:
      input_cost_per_token: 4.0e-7
      output_cost_per_token: 1.6e-6
      max_concurrency: 64
      max_input_tokens: 32768
      supports_function_calling: true
  - model_name: large
    litellm_params: {{model: openai/large, api_base: {url}, api_key: none}}
    model_info:
      input_cost_per_token: 2.0e-6
      output_cost_per_token: 8.0e-6
      max_concurrency: 64
      max_input_tokens: 131072
      supports_function_calling: true
eccos:
  policy: {{quality_floor: 0.8, on_infeasible: best_effort}}
  encoder: minilm
  predictor: {{kind: retrieval, neighbours: 8}}
  history: {{outcomes: outcomes.jsonl}}
  decision_log: off
"""
PLACES = (
    *("Vienna", "Lima", "Oslo", "Cairo", "Hanoi", "Quito", "Rabat", "Sofia", "Tunis", "Dakar", "Minsk", "Accra"),
    *("Lyon", "Porto", "Delhi", "Perth", "Kyiv", "Riga", "Bonn", "Bern", "Turin", "Graz", "Osaka", "Lagos"),
)
SKILL = {"fact": {"small": 0.95, "caller": 0.95, "large": 0.97}, "sum": {"small": 0.05, "caller": 0.45, "large": 0.97}}


def outcomes() -> Iterator[dict[str, object]]:
    """Yield past answers: every model knows facts about cities, but only `large` can compare and compute."""
    for place, city in enumerate(PLACES):
        questions = {
            "fact": f"Which river flows through {city}?",
            "sum": f"By how many percent does the population of {city} exceed {37 * place + 12} thousand, computed?",
        }
        for kind, query in questions.items():
            yield {
                "id": f"{kind} {city}",
                "query": query,
                "outputs": [
                    {
                        "model": model,
                        "correct": float(place < share * len(PLACES)),
                        "input_tokens": 20,
                        "output_tokens": 30,
                    }
                    for model, share in SKILL[kind].items()
                ],
            }


@contextmanager
def offline_pool(script: Mapping[str, str]) -> Iterator[str]:
    """Yield the path of the configuration while the pool runs.

    `script` maps a text in a question to `[[directives]]` for the answer.
    """
    with ModelServer(script=script) as server, tempfile.TemporaryDirectory() as folder:
        lines = "".join(json.dumps(outcome) + "\n" for outcome in outcomes())
        Path(folder, "outcomes.jsonl").write_text(lines)
        path = Path(folder, "eccos.yaml")
        path.write_text(CONFIG.format(url=server.url))
        yield str(path)


def main() -> None:
    from eccos_integrations.llama_index import EccosLLM

    with offline_pool({"Which river flows through Lima?": "[[say The Rímac.]]"}) as config:
        llm = EccosLLM(config=config)
        answer = llm.complete("Which river flows through Lima?")
    print(answer.text)
    print(f"{answer.additional_kwargs['model']}, {answer.additional_kwargs['cost_usd']:.2e} USD")
    print(answer.additional_kwargs["reason"])
    assert answer.additional_kwargs["model"] == "small"


if __name__ == "__main__":
    main()
