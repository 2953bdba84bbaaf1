"""The best answers that a budget can buy: 60 questions under three budgets, planned and then called.

A budget that is too small is an error that says what is attainable. Runs offline on the pocket pool.

python examples/batch_under_a_budget.py
"""

from __future__ import annotations

from collections import Counter

from eccos_core import Budget, InfeasibleError, Router
from eccos_core.pocket import pool_config_path

QUESTIONS = [f"What is {n} * {n % 9 + 2}?" for n in range(30)] + [f"What is {n} - {n % 7}?" for n in range(40, 70)]


def main() -> None:
    with Router.from_yaml(pool_config_path()) as router:
        for usd in (9e-5, 1.5e-4, 4e-4):
            decisions = router.route(QUESTIONS, policy=Budget(usd))
            predicted = sum(decision.quality for decision in decisions) / len(decisions)
            counted = dict(Counter(decision.model for decision in decisions))
            print(f"{usd:.0e} USD buys a mean predicted quality of {predicted:.3f}:", counted)

        completions = router.complete_batch(QUESTIONS, policy=Budget(1.5e-4))
        print(f"called for real, 1.5e-04 USD planned: {sum(each.cost_usd for each in completions):.2e} USD spent")

        try:
            router.route(QUESTIONS, policy=Budget(1e-9))
        except InfeasibleError as error:
            print(f"{error} (wanted {error.wanted:.1e}, attainable {error.attainable:.2e})")


if __name__ == "__main__":
    main()
