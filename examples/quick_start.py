"""Ask one question, then a batch; see why each model was chosen; label an answer. Runs offline on the pocket pool."""

from collections import Counter

from eccos_core import Router
from eccos_core.pocket import pool_config_path

router = Router.from_yaml(pool_config_path())  # your own eccos.yaml goes here

answer = router.complete("What is the capital of Japan?", max_tokens=16)
print(f"{answer.model}: {answer.text}  ({answer.cost_usd:.2e} USD)")
print(answer.decision.reason)

# a batch is one assignment: the floor holds for its mean, so that easy questions pay for hard ones
questions = [f"What is {n} + {n + 7}?" for n in range(10, 30)] + ["What is the capital of Peru?"] * 5
answers = router.complete_batch(questions)
print(Counter(each.model for each in answers), f"{sum(each.cost_usd for each in answers):.2e} USD")

# streamed, chunk by chunk; the last chunk carries the completion
for chunk in router.stream("What colour is the sky?", max_tokens=8):
    print(chunk.text, end="", flush=True)
print()

# what you think of an answer joins the history
router.record(answers[0].decision.id, quality=1.0)
