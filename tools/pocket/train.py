"""Train the pocket models: ``python -m tools.pocket.train [--only NAME] [--out DIR] [--evaluate]``."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from eccos_core.pocket.questions import PocketQuestion, TrainingMix, draw_questions, generate_questions
from eccos_core.pocket.tokenizer import ASSISTANT, END, USER, build_tokenizer
from tools.pocket.evaluation import FamilyAccuracy, accuracy, accuracy_table
from tools.pocket.recipes import CONTEXT_WINDOW, RECIPES, Recipe

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

__all__ = ["main", "save_folder", "train"]

_WARMUP_SHARE = 0.03
_POOLED_BATCHES = 16
_IGNORED = -100
_REPORT_EVERY = 250


def _batches(recipe: Recipe, tokenizer: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of similar length without end.

    Shape: token ids (batch, length) and labels (batch, length); only the answer and its end are labelled.
    """
    import torch

    random = Random(recipe.seed)  # a repeatable stream is the point
    questions = draw_questions(random, "train", recipe.diet)
    while True:
        pool = list(islice(questions, recipe.batch * _POOLED_BATCHES))
        asked = tokenizer([f"{USER}{q.query}{ASSISTANT}" for q in pool], add_special_tokens=False)["input_ids"]
        told = tokenizer([f"{q.reference}{END}" for q in pool], add_special_tokens=False)["input_ids"]
        pairs = sorted(zip(asked, told, strict=True), key=lambda pair: len(pair[0]) + len(pair[1]))
        groups = [pairs[start : start + recipe.batch] for start in range(0, len(pairs), recipe.batch)]
        random.shuffle(groups)
        for group in groups:
            length = max(len(question) + len(answer) for question, answer in group)
            ids = torch.full((len(group), length), tokenizer.pad_token_id)
            labels = torch.full((len(group), length), _IGNORED)
            for row, (question, answer) in enumerate(group):
                end = len(question) + len(answer)
                ids[row, :end] = torch.tensor(question + answer)
                labels[row, len(question) : end] = torch.tensor(answer)
            yield ids, labels


def _answer_loss(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over answer tokens. Only their positions pass the output layer: that is what costs."""
    import torch

    hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    answering = targets != _IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[answering]).float(), targets[answering])


def train(recipe: Recipe, out: Path, device: str, report: bool = True) -> Path:
    """Train one model and write its folder under ``out``; the same seed and machine give the same weights.

    The folder is written after every tenth of the way, so that an early stop leaves a usable model.
    """
    import torch

    torch.manual_seed(recipe.seed)
    tokenizer = build_tokenizer(CONTEXT_WINDOW)
    model = recipe.build_model(tokenizer).to(device)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    warmup = max(1, round(recipe.steps * _WARMUP_SHARE))

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, recipe.steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    began, loss_sum = time.monotonic(), 0.0
    watched = generate_questions(400, seed=1, split="heldout")
    for step, (ids, labels) in enumerate(islice(_batches(recipe, tokenizer), recipe.steps), start=1):
        with torch.autocast(device, dtype=torch.bfloat16, enabled=_bfloat16_pays(device, recipe)):
            loss = _answer_loss(model, ids.to(device), labels.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships no type for it
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        loss_sum += float(loss.detach())
        last = step == recipe.steps
        if step % _REPORT_EVERY == 0 or last:
            seconds = time.monotonic() - began
            line = f"{recipe.name} step {step}/{recipe.steps} loss {loss_sum / _REPORT_EVERY:.3f} {seconds:.0f} s"
            loss_sum = 0.0
            if report and (step % (2 * _REPORT_EVERY) == 0 or last):
                model.eval()
                line += "  " + FamilyAccuracy.summary(accuracy(model, tokenizer, watched, device))
                model.train()
            _say(line)
        if last or step % max(1, recipe.steps // 10) == 0:
            save_folder(model, tokenizer, recipe, out / recipe.name, step, time.monotonic() - began)
    return out / recipe.name


def save_folder(
    model: LlamaForCausalLM, tokenizer: Any, recipe: Recipe, folder: Path, steps: int, seconds: float
) -> None:
    """Write a Hugging Face folder in half precision beside its place and move it there in one step."""
    import torch
    from transformers import LlamaForCausalLM

    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{recipe.name}-", dir=folder.parent))
    temporary.chmod(0o755)
    half = LlamaForCausalLM(model.config).to(torch.float16)
    half.load_state_dict(model.state_dict())
    half.generation_config.eos_token_id = tokenizer.eos_token_id
    half.generation_config.pad_token_id = tokenizer.pad_token_id
    half.generation_config.max_new_tokens = 16
    half.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    facts = {
        "name": recipe.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": steps,
        "planned_steps": recipe.steps,
        "batch": recipe.batch,
        "learning_rate": recipe.learning_rate,
        "seed": recipe.seed,
        "knowledge_share": recipe.diet.knowledge_share,
        "hardest_fact": recipe.diet.hardest_fact,
        "hardest_calculation": recipe.diet.hardest_calculation,
        "seconds": round(seconds),
    }
    (temporary / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    retired = folder.with_name(f".{folder.name}-retired")
    shutil.rmtree(retired, ignore_errors=True)
    if folder.exists():
        folder.rename(retired)
    temporary.rename(folder)
    shutil.rmtree(retired, ignore_errors=True)


def _bfloat16_pays(device: str, recipe: Recipe) -> bool:
    """True on CUDA and, for all but the smallest, on CPUs with matrix tiles (AMX); elsewhere float32 is used."""
    import torch

    return device == "cuda" or (recipe.hidden >= 96 and bool(torch.cpu._is_amx_tile_supported()))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.pocket.train", description=__doc__)
    parser.add_argument("--only", choices=sorted(RECIPES), action="append", help="train this model only (repeatable)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "models", help="folder of the models")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the choice to torch")
    parser.add_argument("--evaluate", action="store_true", help="train nothing, print held-out accuracy by family")
    parser.add_argument("--questions", type=int, default=2_000, help="how many held-out questions to evaluate on")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, or with ``--evaluate`` measure, the pocket models."""
    import torch

    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = _device(options.device)
    names = options.only or list(RECIPES)
    if options.evaluate:
        held_out: list[PocketQuestion] = generate_questions(
            options.questions, seed=7, split="heldout", diet=TrainingMix()
        )
        _say(accuracy_table({name: options.out / name for name in names}, held_out, device))
        return 0
    for name in names:
        _say(f"training {name} on {device}")
        train(RECIPES[name], options.out, device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
