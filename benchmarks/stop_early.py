"""What stopping early saves on a scripted server that thinks, and what it does to the answers.

Each question makes the model think for 1,200 to 1,800 tokens, and says from which share of them on it knows its answer.
Before that, its answer changes with every probe. A trap has one steady wrong answer before that, which any rule that
trusts agreement falls for. The server is no model: the table shows the rule and the price of its probes, nothing else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from eccos_core.backends import LiteLLMBackend
from eccos_core.backends.chat_template import ChatTemplate
from eccos_core.backends.stop_early import StopEarlyBackend
from eccos_core.backends.thinking_steps import StopEarlySettings
from eccos_core.config.schema import Deployment
from eccos_core.domain import Completion, Model, Request
from eccos_core.protocols import Backend
from eccos_core.testing.thinking_server import TEMPLATE, ThinkingServer

QUESTIONS = 12
AT_ONCE = 4
SCRIPTS = (
    ("at a quarter", 0.25, True),
    ("at half", 0.5, True),
    ("at three quarters", 0.75, True),
    ("trap", 0.5, False),
)
MODEL = Model("thinker", 1e-6, 4e-6, usd_per_cached_input_token=1e-7)


def questions(share: float, *, sways: bool) -> list[tuple[Request, str]]:
    """Return the requests, each with its right answer."""
    draw = np.random.default_rng(20261127)
    made = []
    for number in range(QUESTIONS):
        thinks, right = int(draw.integers(1200, 1801)), str(int(draw.integers(10, 1000)))
        script = f"[[think {thinks}]] [[known {int(share * thinks)}]] [[answer {right}]]{' [[sway]]' if sways else ''}"
        made.append((Request.of(f"Question {number}. {script}", parameters={"max_tokens": 4096}), right))
    return made


def ask(backend: Backend, asked: Sequence[tuple[Request, str]]) -> tuple[float, list[Completion]]:
    """Return (accuracy, the answers)."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(lambda each: backend.complete("thinker", each[0]), asked))
    right = [f"is {right}." in answer.text for answer, (_, right) in zip(answers, asked, strict=True)]
    return float(np.mean(right)), answers


def main() -> None:
    """Print one row for each script."""
    with tempfile.TemporaryDirectory() as folder, ThinkingServer() as server:
        template = Path(folder) / "template.jinja"
        template.write_text(TEMPLATE)
        ways = {"thinker": [Deployment("openai/thinker", {"api_base": server.url, "api_key": "none"})]}
        plain = LiteLLMBackend(ways, [MODEL])
        early = StopEarlyBackend(plain, plain, {"thinker": ChatTemplate(template)}, StopEarlySettings())
        print(f"{QUESTIONS} questions a row, a scripted server, probe_every 64, agree 3; probes are counted\n")
        print("| the answer is known | accuracy | with stop_early | tokens written | saved | cost |")
        print("|---|---|---|---|---|---|")
        for name, share, sways in SCRIPTS:
            asked = questions(share, sways=sways)
            accuracy, whole = ask(plain, asked)
            found, stopped = ask(early, asked)
            before, after = (sum(answer.output_tokens for answer in answers) for answers in (whole, stopped))
            cost = sum(answer.cost_usd for answer in stopped) / sum(answer.cost_usd for answer in whole)
            saved = f"{1 - after / before:.0%} | {cost:.2f}"
            print(f"| {name} | {accuracy:.2f} | {found:.2f} | {before:,} -> {after:,} | {saved} |", flush=True)


if __name__ == "__main__":
    main()
