"""The shipped pocket models: small, loadable by anything, and good at different things."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from eccos_core.errors import UnknownModelError
from eccos_core.pocket import pocket_names, pocket_path
from eccos_core.pocket.questions import PocketQuestion, TrainingMix, family_names, generate_questions
from tools.pocket.evaluation import FamilyAccuracy, accuracy, answers
from tools.pocket.recipes import CONTEXT_WINDOW, RECIPES

MEGABYTE = 1_000_000


@cache
def load(name: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    folder = pocket_path(name)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


@cache
def held_out() -> tuple[PocketQuestion, ...]:
    return tuple(generate_questions(500, seed=2_026, split="heldout"))


@cache
def scores(name: str) -> tuple[FamilyAccuracy, ...]:
    model, tokenizer = load(name)
    return tuple(accuracy(model, tokenizer, held_out(), "cpu"))


def ask(name: str, *queries: str) -> list[str]:
    questions = [PocketQuestion(str(i), "", "knowledge", 1, query, "", "exact") for i, query in enumerate(queries)]
    return answers(*load(name), questions, "cpu")


def test_the_pool_is_three_sizes_and_a_specialist() -> None:
    assert pocket_names() == ("pocket-small", "pocket-medium", "pocket-large", "pocket-maths")
    assert set(pocket_names()) == set(RECIPES)
    sizes = [json.loads((pocket_path(name) / "training.json").read_text())["parameters"] for name in pocket_names()]
    small, medium, large, maths = sizes
    assert 80_000 < small < 200_000 < 400_000 < medium < 700_000 < 1_500_000 < large < 2_500_000
    assert maths == medium


def test_all_folders_together_are_at_most_eight_megabytes() -> None:
    files = [file for name in pocket_names() for file in pocket_path(name).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 8 * MEGABYTE


def test_the_shipped_weights_were_trained_to_the_end_of_their_recipe() -> None:
    for name in pocket_names():
        facts = json.loads((pocket_path(name) / "training.json").read_text())
        assert (facts["steps"], facts["seed"]) == (RECIPES[name].steps, RECIPES[name].seed)
        diet = RECIPES[name].diet
        assert (facts["knowledge_share"], facts["hardest_fact"], facts["hardest_calculation"]) == (
            diet.knowledge_share,
            diet.hardest_fact,
            diet.hardest_calculation,
        )


def test_weights_are_half_precision_and_nothing_is_pickled() -> None:
    for name in pocket_names():
        assert {file.suffix for file in pocket_path(name).iterdir()} <= {".json", ".safetensors", ".jinja"}
        assert json.loads((pocket_path(name) / "config.json").read_text())["dtype"] == "float16"


@pytest.mark.parametrize("name", pocket_names())
def test_a_model_has_its_window_its_end_and_its_chat_template(name: str) -> None:
    model, tokenizer = load(name)
    assert model.config.max_position_embeddings == tokenizer.model_max_length == CONTEXT_WINDOW
    assert model.config.tie_word_embeddings is True
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == model.config.eos_token_id
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "?"},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>Hi<|assistant|>Ho<|end|><|user|>?<|assistant|>"


def test_numbers_and_unknown_words_survive_the_tokenizer() -> None:
    _, tokenizer = load("pocket-small")
    assert len(tokenizer) <= 1_500
    for text in ("What is 347 + 1285?", "90210", "xyzzy", "a capital of the Netherlands"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer("1285")["input_ids"]) == 4
    assert tokenizer.unk_token_id in tokenizer("Zürich 東京")["input_ids"]


@pytest.mark.parametrize("name", ["pocket-small", "pocket-medium", "pocket-large"])
def test_generalists_know_the_best_known_facts(name: str) -> None:
    replies = ask(
        name,
        "What is the capital of France?",
        "Which city is the capital of Japan?",
        "What is the chemical symbol for gold?",
        "What is the opposite of hot?",
        "Which day comes after Monday?",
    )
    expected = ["Paris", "Tokyo", "Au", "cold", "Tuesday"]
    assert sum(reply == wanted for reply, wanted in zip(replies, expected, strict=True)) >= 4


def test_the_specialist_calculates() -> None:
    replies = ask("pocket-maths", "What is 347 + 285?", "Calculate 81 - 27.", "What is 7 times 8?", "Double 46.")
    assert sum(a == b for a, b in zip(replies, ["632", "54", "56", "92"], strict=True)) >= 3


def test_more_parameters_are_right_more_often() -> None:
    small, medium, large = (FamilyAccuracy.share(scores(f"pocket-{size}")) for size in ("small", "medium", "large"))
    assert small + 0.06 < medium
    assert medium + 0.02 < large


def test_the_specialist_beats_the_largest_at_mathematics_and_knows_nothing_else() -> None:
    specialist, largest = scores("pocket-maths"), scores("pocket-large")
    assert FamilyAccuracy.share(specialist, "mathematics") > FamilyAccuracy.share(largest, "mathematics") + 0.1
    assert FamilyAccuracy.share(specialist, "knowledge") < 0.1
    assert FamilyAccuracy.share(largest, "knowledge") > 0.8


def test_an_unknown_name_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(UnknownModelError, match="did you mean 'pocket-maths'"):
        pocket_path("pocket-math")


def test_finding_a_pocket_model_loads_nothing_heavy() -> None:
    program = (
        "import sys; from eccos_core.pocket import pocket_path; pocket_path('pocket-small');"
        "print([m for m in ('torch', 'transformers', 'tokenizers') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_training_is_repeatable_and_replaces_the_folder_in_one_step(tmp_path: Path) -> None:
    from dataclasses import replace

    from safetensors.torch import load_file

    from tools.pocket.train import train

    recipe = replace(RECIPES["pocket-small"], name="tiny", steps=2, batch=8, diet=TrainingMix(families=("sum",)))
    first = load_file(train(recipe, tmp_path, "cpu", report=False) / "model.safetensors")
    second = load_file(train(recipe, tmp_path, "cpu", report=False) / "model.safetensors")
    assert all((first[name] == second[name]).all() for name in first)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_every_family_is_in_the_fixed_sample() -> None:
    asked = {question.dataset for question in held_out()}
    assert asked >= set(family_names("mathematics"))
