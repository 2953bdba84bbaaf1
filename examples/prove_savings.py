"""Answer questions, label them, and show what routing saved. Then try another policy on the same traffic, offline.

python examples/prove_savings.py
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from eccos_core import Router
from eccos_core.cli.replay import describe as describe_replay
from eccos_core.cli.savings import describe as describe_savings
from eccos_core.config import load_config
from eccos_core.grading import grader_for
from eccos_core.pocket import pool_config_path
from eccos_core.pocket.questions import generate_questions
from eccos_core.workflows.replay import replay

QUESTIONS = 120


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        logged = write_config(folder / "pool", floor=0.8)
        cheaper = write_config(folder / "cheaper", floor=0.7)

        with Router.from_yaml(logged) as router:
            for question in generate_questions(QUESTIONS, seed=3, split="heldout"):
                answer = router.complete(question.query, temperature=0)
                quality = grader_for(question.grader).grade(answer.text, question.reference, question.query)
                router.record(answer.decision.id, quality)
            report = router.savings("pocket-large")
            print("\n".join(describe_savings(report)), end="\n\n")

            # What would a lower floor have done? Nothing is called.
            log = router.decision_store.log
            assert log is not None
            print("\n".join(describe_replay(replay(load_config(logged), log, cheaper))))


def write_config(folder: Path, floor: float) -> Path:
    """Copy the pocket pool, with a decision log and another floor."""
    source = pool_config_path()
    folder.mkdir()
    shutil.copytree(source.parent / "predictor", folder / "predictor")
    shutil.copy(source.parent / "history.jsonl.gz", folder)
    text = source.read_text(encoding="utf-8").replace("decision_log: off", "decision_log: {path: decisions.sqlite}")
    (folder / "eccos.yaml").write_text(text.replace("quality_floor: 0.8", f"quality_floor: {floor}"), encoding="utf-8")
    return folder / "eccos.yaml"


if __name__ == "__main__":
    main()
