"""The best answers that a budget can buy: the same 60 questions under three budgets, planned and then called.

Infeasible is an answer: a budget below the cheapest possible says what is attainable.
"""

from collections import Counter

from eccos_core import Budget, Router
from eccos_core.errors import InfeasibleError
from eccos_core.pocket import pool_config_path

router = Router.from_yaml(pool_config_path())
questions = [f"What is {n} * {n % 9 + 2}?" for n in range(30)] + [f"What is {n} - {n % 7}?" for n in range(40, 70)]

for usd in (9e-5, 1.5e-4, 4e-4):
    decisions = router.route(questions, policy=Budget(usd))
    predicted = sum(decision.quality for decision in decisions) / len(decisions)
    print(f"{usd:.0e} USD buys a mean predicted quality of {predicted:.3f}:", dict(Counter(d.model for d in decisions)))

completions = router.complete_batch(questions, policy=Budget(1.5e-4))
print(f"called for real, 1.5e-04 USD planned: {sum(each.cost_usd for each in completions):.2e} USD spent")

try:
    router.route(questions, policy=Budget(1e-9))
except InfeasibleError as error:
    print(f"{error} (wanted {error.wanted:.1e}, attainable {error.attainable:.2e})")
