"""The grader `reward`: in a collection, in LangChain and in LlamaIndex."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collecting_world import POOL, World, lines_of, question, run
from langchain_core.messages import AIMessage, HumanMessage

from eccos_core.assembly.encoder import build_encoder
from eccos_core.assembly.reward_grader import build_reward_grader
from eccos_core.cli import app
from eccos_core.cli.output import run as run_command
from eccos_core.config import StaticConfig, load_config
from eccos_core.errors import ArtifactError, DataError, InputError
from eccos_core.grading import grader_for
from eccos_core.grading.reward import RewardGrader, fit_reward, save_reward
from eccos_core.io.answers import Answer, GradedAnswer
from eccos_integrations.langchain import EccosVerifier
from eccos_integrations.llama_index import EccosEvaluator

REFUSAL = "I'm sorry, I cannot help with that."
ENCODER = build_encoder(StaticConfig())


def graded(good_of: dict[str, float], seed: int = 0) -> list[GradedAnswer]:
    draw = np.random.default_rng(seed)
    found = []
    for number in range(120):
        for model, share in good_of.items():
            good = draw.random() < share
            text = f"It makes {number + 1}." if good else REFUSAL
            found.append(GradedAnswer(Answer(f"What is {number} + 1?", model, text), float(good)))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward_grader")
    save_reward(*fit_reward(graded({"strong": 0.8, "weak": 0.4}), ENCODER), folder / "reward")
    entry = "{model_name: %s, litellm_params: {model: eccos-local/pocket-small}, model_info: {input_cost_per_token: 0}}"
    models = "".join(f"\n  - {entry % name}" for name in ("strong", "weak"))
    (folder / "eccos.yaml").write_text(f"model_list:{models}\neccos: {{encoder: static}}\n")
    return folder


@pytest.fixture(scope="module")
def grader(folder: Path) -> RewardGrader:
    return build_reward_grader(load_config(folder / "eccos.yaml"), folder / "reward")


def test_it_tells_a_refusal_from_an_answer_without_a_reference(grader: RewardGrader) -> None:
    assert (
        grader.grade(REFUSAL, None, "What is 7 + 1?") < 0.3 < 0.7 < grader.grade("It makes 8.", None, "What is 7 + 1?")
    )


def test_a_model_that_is_not_named_lies_between_those_that_are(grader: RewardGrader) -> None:
    scores = {name: grader.grade_answer(Answer("What is 7 + 1?", name, "8")) for name in ("strong", "weak", "")}
    assert min(scores["strong"], scores["weak"]) <= scores[""] <= max(scores["strong"], scores["weak"])


def test_without_a_folder_or_a_way_to_load_it_says_what_to_do(folder: Path) -> None:
    with pytest.raises(InputError, match="Fit one with `eccos fit-reward`, and name its folder with --reward"):
        build_reward_grader(load_config(folder / "eccos.yaml"))
    with pytest.raises(InputError, match="reads with the encoder of a configuration"):
        grader_for("reward")
    with pytest.raises(InputError, match="folder is 3, must be the path"):
        grader_for({"name": "reward", "folder": 3})
    with pytest.raises(InputError, match="did you mean 'folder'"):
        grader_for({"name": "reward", "folders": "x"})


def test_a_reward_model_of_another_pool_is_refused(folder: Path, tmp_path: Path) -> None:
    text = (folder / "eccos.yaml").read_text().replace("model_name: weak", "model_name: other")
    (tmp_path / "eccos.yaml").write_text(text)
    with pytest.raises(ArtifactError, match=r"another pool\. It saw no answer of other"):
        EccosVerifier(config=tmp_path / "eccos.yaml", reward=folder / "reward")


async def test_a_collection_grades_with_it_and_knows_whose_answer_it_is(tmp_path: Path, grader: RewardGrader) -> None:
    world = World(answers=lambda name, text: "It makes 8." if name == "strong" else REFUSAL)
    asked = [question(number, grader="reward", reference=None) for number in range(3)]
    await run(tmp_path / "o.jsonl", world, asked, reward=lambda named: grader)
    for line in lines_of(tmp_path / "o.jsonl"):
        for output in line["outputs"]:
            answer = Answer(
                line["query"], output["model"], "It makes 8." if output["model"] == "strong" else REFUSAL, 10, "stop"
            )
            assert output["correct"] == pytest.approx(grader.grade_answer(answer))


async def test_a_collection_without_a_reward_model_names_the_question(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="id 'q1': reward grader"):
        await run(tmp_path / "o.jsonl", World(), [question(1, grader="reward")], POOL)


def test_the_command_takes_the_folder_from_its_option(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": "q1", "query": "What is 2 + 1?", "grader": "reward"}
    (folder / "q.jsonl").write_text(json.dumps(row) + "\n")
    command = ["collect", "-c", folder / "eccos.yaml", "-q", folder / "q.jsonl", "-o", folder / "o.jsonl", "--json"]
    arguments = [*map(str, command), "--max-tokens", "8"]
    assert run_command(app, arguments) == 1
    assert "name its folder with --reward" in " ".join(capsys.readouterr().err.split())
    assert run_command(app, [*arguments, "--reward", str(folder / "reward")]) == 0
    means = json.loads(capsys.readouterr().out)["mean_score"]
    assert all(0 < score < 1 for score in means.values())


# ------------------------------------------------------------------------------------------------------ integrations


@pytest.mark.parametrize(
    "given",
    [
        {"question": "What is 7 + 1?", "answer": "It makes 8.", "model": "strong"},
        {
            "question": "What is 7 + 1?",
            "answer": AIMessage("It makes 8.", response_metadata={"model_name": "strong", "finish_reason": "stop"}),
        },
        [HumanMessage("What is 7 + 1?"), AIMessage("It makes 8.", response_metadata={"model_name": "strong"})],
        {
            "messages": [
                ("user", "What is 7 + 1?"),
                AIMessage("It makes 8.", response_metadata={"model_name": "strong"}),
            ]
        },
    ],
)
def test_a_langchain_verifier_reads_texts_and_messages(given: Any, folder: Path, grader: RewardGrader) -> None:
    verifier = EccosVerifier(config=folder / "eccos.yaml", reward=folder / "reward", threshold=0.6)
    wanted = grader.grade_answer(Answer("What is 7 + 1?", "strong", "It makes 8."))
    assert verifier.invoke(given) == {"score": pytest.approx(wanted), "passed": True}
    assert asyncio.run(verifier.ainvoke(given))["passed"]


def test_a_langchain_verifier_fails_a_refusal_and_says_what_is_missing(grader: RewardGrader) -> None:
    verifier = EccosVerifier(grader=grader)
    found = verifier.batch([{"question": "What is 7 + 1?", "answer": text} for text in ("It makes 8.", REFUSAL)])
    assert [each["passed"] for each in found] == [True, False]
    with pytest.raises(ValueError, match="needs the question beside the answer"):
        verifier.invoke(AIMessage("It makes 8."))
    with pytest.raises(ValueError, match="This dictionary has 'query', 'answer'"):
        verifier.invoke({"query": "What?", "answer": "8"})
    with pytest.raises(InputError, match="threshold is 2"):
        EccosVerifier(grader=grader, threshold=2)
    with pytest.raises(InputError, match=r"EccosVerifier needs a reward model"):
        EccosVerifier()


def test_a_llama_index_evaluator_scores_and_passes(folder: Path, grader: RewardGrader) -> None:
    evaluator = EccosEvaluator(folder / "eccos.yaml", folder / "reward")
    good = evaluator.evaluate(query="What is 7 + 1?", response="It makes 8.")
    bad = evaluator.evaluate(query="What is 7 + 1?", response=REFUSAL)
    assert (good.passing, bad.passing) == (True, False)
    assert good.score == pytest.approx(grader.grade("It makes 8.", None, "What is 7 + 1?"))
    with pytest.raises(InputError, match="needs query and response"):
        evaluator.evaluate(response="8")
    with pytest.raises(InputError, match=r"EccosEvaluator needs a reward model"):
        EccosEvaluator()
