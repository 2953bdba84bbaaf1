"""Compare our fine-tuning loop with the `Trainer` of transformers: time per step, and what a checkpoint holds.

Both train the same encoder (a BERT of 2 layers and 128 dimensions, random weights) with the same heads, the same loss
and the same batches, on one CPU thread. You see medians of `ROUNDS`. A file that holds a pickle is marked.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.domain import OutcomeTable
from eccos_core.predictors import FineTuning, fine_tune
from eccos_core.predictors.finetune.training import TrainingRun

ROWS, ROUNDS = 512, 3
SETTINGS = FineTuning(epochs=2, patience=2, max_tokens=64, device="cpu")
WORDS = ("the", "capital", "of", "france", "berlin", "sum", "two", "three", "plus", "minus", "number", "larger", "than")


def outcomes() -> OutcomeTable:
    """Random questions of 20 words, and random outcomes of four models."""
    draw = np.random.default_rng(0)
    return OutcomeTable(
        question_ids=tuple(str(row) for row in range(ROWS)),
        queries=tuple(" ".join(draw.choice(WORDS, size=20)) for _ in range(ROWS)),
        models=("a", "b", "c", "d"),
        quality=draw.integers(2, size=(ROWS, 4)).astype(float),
        input_tokens=np.full((ROWS, 4), 20.0),
        output_tokens=draw.integers(1, 500, size=(ROWS, 4)).astype(float),
    )


def build_encoder(folder: Path) -> None:
    """Write a small BERT and its tokenizer."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    shape = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)


def ours(table: OutcomeTable, encoder: Path, folder: Path) -> tuple[float, list[str]]:
    """Milliseconds per step of `fine_tune`, and the files of its checkpoint."""
    times = [time.perf_counter()]
    files: list[str] = []

    def note(done: int, total: int, loss: float) -> None:
        times.append(time.perf_counter())
        files[:] = list_files(folder / "checkpoint") or files

    fine_tune(table, encoder, folder, SETTINGS, progress=note)
    return 1e3 * statistics.median(np.diff(times)), files


def trainer(table: OutcomeTable, encoder: Path, folder: Path) -> tuple[float, list[str]]:
    """The same with `Trainer`: two groups of learning rates, our loss, a checkpoint per epoch."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    run = TrainingRun(table, encoder, SETTINGS)
    times: list[float] = []

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.heads = run.encoder.model, run.heads

        def forward(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": run.loss(rows.numpy())}

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=SETTINGS.epochs,
        per_device_train_batch_size=SETTINGS.batch_size,
        save_strategy="epoch",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        logging_strategy="no",
    )
    rows = [{"rows": int(row)} for row in run.train_rows]
    schedule = torch.optim.lr_scheduler.LambdaLR(run.optimizer, lambda step: 1.0)
    Trainer(Model(), arguments, train_dataset=rows, optimizers=(run.optimizer, schedule), callbacks=[Clock()]).train()
    return 1e3 * statistics.median(np.diff(times)), list_files(max(folder.glob("checkpoint-*")))


def list_files(folder: Path) -> list[str]:
    """Name the files of a folder, and mark those that hold a pickle."""
    return sorted(f"{path.name}{' (pickle)' if is_pickle(path) else ''}" for path in folder.glob("*") if path.is_file())


def is_pickle(path: Path) -> bool:
    """Tell whether `torch.save` wrote a file: a zip archive with a `data.pkl`."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("data.pkl") for name in archive.namelist())


def main() -> int:
    """Print both tables."""
    table = outcomes()
    found: dict[str, list[tuple[float, list[str]]]] = {"our loop": [], "Trainer": []}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        build_encoder(place / "encoder")
        for round_number in range(ROUNDS):
            found["our loop"].append(ours(table, place / "encoder", place / f"ours-{round_number}"))
            found["Trainer"].append(trainer(table, place / "encoder", place / f"trainer-{round_number}"))
    print("| | ms per step | files of a checkpoint |\n|---|---|---|")
    for name, rounds in found.items():
        print(f"| {name} | {statistics.median(each[0] for each in rounds):.1f} | {', '.join(rounds[0][1])} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
