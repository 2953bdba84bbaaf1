"""Ask one question, then a batch. See why each model was chosen, and label an answer. Runs offline on the pocket pool.

python examples/quick_start.py
"""

from __future__ import annotations

from collections import Counter

from eccos_core import Router
from eccos_core.pocket import pool_config_path


def main() -> None:
    with Router.from_yaml(pool_config_path()) as router:  # your own eccos.yaml goes here
        answer = router.complete("What is the capital of Japan?", max_tokens=16)
        print(f"{answer.model}: {answer.text}  ({answer.cost_usd:.2e} USD)")
        print(answer.decision.reason)

        # A batch is one assignment. The floor holds for its mean, so easy questions pay for hard ones.
        questions = [f"What is {n} + {n + 7}?" for n in range(10, 30)] + ["What is the capital of Peru?"] * 5
        answers = router.complete_batch(questions)
        print(Counter(each.model for each in answers), f"{sum(each.cost_usd for each in answers):.2e} USD")

        # Streamed, chunk by chunk. The last chunk carries the completion.
        for chunk in router.stream("What colour is the sky?", max_tokens=8):
            print(chunk.text, end="", flush=True)
        print()

        # Your label joins the history.
        router.record(answers[0].decision.id, quality=1.0)


if __name__ == "__main__":
    main()
