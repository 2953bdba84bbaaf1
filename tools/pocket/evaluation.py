"""How often the pocket models are right, by family, on held-out questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eccos_core.pocket.questions import PocketQuestion, family_names

__all__ = ["FamilyAccuracy", "accuracy", "accuracy_table", "answers"]

_BATCH = 250
_LONGEST_ANSWER = 10


@dataclass(frozen=True, slots=True)
class FamilyAccuracy:
    """``right`` of ``asked`` questions of one family."""

    family: str
    subject: str
    asked: int
    right: int

    @staticmethod
    def share(scores: Sequence[FamilyAccuracy], subject: str | None = None) -> float:
        """Accuracy over questions (not over families), 0 to 1, of one subject or of all; 0 where none was asked."""
        counted = [score for score in scores if subject in (None, score.subject)]
        return sum(score.right for score in counted) / max(1, sum(score.asked for score in counted))

    @staticmethod
    def summary(scores: Sequence[FamilyAccuracy]) -> str:
        """All families in one line, in per cent."""
        parts = [
            f"all {FamilyAccuracy.share(scores):.0%}",
            f"knowledge {FamilyAccuracy.share(scores, 'knowledge'):.0%}",
        ]
        parts.append(f"mathematics {FamilyAccuracy.share(scores, 'mathematics'):.0%}")
        parts += [f"{s.family} {s.right / s.asked:.0%}" for s in scores if s.subject == "mathematics"]
        return " ".join(parts)


def answers(model: Any, tokenizer: Any, questions: Sequence[PocketQuestion], device: str) -> list[str]:
    """Greedy answers, in the order of ``questions``."""
    import torch

    order = sorted(range(len(questions)), key=lambda index: len(questions[index].query))
    found = [""] * len(questions)
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        prompts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": questions[index].query}], tokenize=False, add_generation_prompt=True
            )
            for index in chosen
        ]
        batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(device)
        with torch.inference_mode():
            written = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                do_sample=False,
                max_new_tokens=_LONGEST_ANSWER,
            )
        texts = tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        for index, text in zip(chosen, texts, strict=True):
            found[index] = text.strip()
    return found


def accuracy(model: Any, tokenizer: Any, questions: Sequence[PocketQuestion], device: str) -> list[FamilyAccuracy]:
    """One score per family that was asked. An answer is right if it is the reference, letter for letter."""
    asked: dict[str, list[bool]] = {}
    subjects = {}
    for question, answer in zip(questions, answers(model, tokenizer, questions, device), strict=True):
        asked.setdefault(question.dataset, []).append(answer == question.reference)
        subjects[question.dataset] = question.subject
    return [
        FamilyAccuracy(name, subjects[name], len(asked[name]), sum(asked[name]))
        for name in family_names()
        if name in asked
    ]


def accuracy_table(folders: Mapping[str, Path], questions: Sequence[PocketQuestion], device: str) -> str:
    """A Markdown table: one row per family, one column per model, accuracy in per cent."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    columns = {}
    for name, folder in folders.items():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        columns[name] = accuracy(model, AutoTokenizer.from_pretrained(folder), questions, device)
    first = next(iter(columns.values()))
    lines = ["| family | questions | " + " | ".join(columns) + " |", "|---|---:|" + "---:|" * len(columns)]
    for row, score in enumerate(first):
        shares = [f"{scores[row].right / scores[row].asked:.0%}" for scores in columns.values()]
        lines.append(f"| {score.family} | {score.asked} | " + " | ".join(shares) + " |")
    for subject in ("knowledge", "mathematics", None):
        count = sum(score.asked for score in first if subject in (None, score.subject))
        shares = [f"**{FamilyAccuracy.share(scores, subject):.1%}**" for scores in columns.values()]
        lines.append(f"| **{subject or 'all'}** | {count} | " + " | ".join(shares) + " |")
    return "\n".join(lines)
