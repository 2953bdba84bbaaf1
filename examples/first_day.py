"""Start without outcomes: write a configuration, read what eccos assumes, and get a first answer. Runs offline.

python examples/first_day.py

The command `eccos init` does the same, and asks you for the models. A scripted server stands for your own.
"""

from __future__ import annotations

from pathlib import Path

from eccos_core import Router
from eccos_core.testing import ModelServer
from eccos_core.workflows.starter_config import StarterPool, write_starter_config

MODELS = ("gpt-4o-mini", "gpt-4o")
QUESTIONS = ("What is the capital of Japan?", "Find the Galois group of x^5 - 2 over the rationals.")


def main() -> None:
    with ModelServer() as server:
        file = Path("first_day.yaml")
        write_starter_config(file, StarterPool(MODELS, at=server.url), "balance", overwrite=True)
        print(file.read_text())

        with Router.from_yaml(file) as router:
            for question in QUESTIONS:  # a question that looks hard gets lower forecasts
                forecast = router.explain(question)[0].forecast
                print(question, dict(zip(forecast.models, forecast.quality[0].round(2).tolist(), strict=True)))
            answer = router.complete(QUESTIONS[0], max_tokens=16)
            print(answer.model, answer.decision.quality_source, f"± {answer.decision.quality_se:.2f}")
            print(answer.decision.reason)


if __name__ == "__main__":
    main()
