"""What eccos assumes of a model that nobody graded, and where the number comes from."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from eccos_core.assembly.public_results import find_public_result
from eccos_core.assembly.starting_quality import quality_sources, starting_priors, ungraded_priors
from eccos_core.config import Config, load_config
from eccos_core.domain import OutcomeTable

PRICE = "input_cost_per_token: {usd}, output_cost_per_token: {usd}"


def pool(folder: Path, *models: tuple[str, str, float, str]) -> Config:
    """Each model: its name, LiteLLM's name, a price per token, and more of its model_info."""
    entries = "".join(
        f"- {{model_name: {name}, litellm_params: {{model: {model}, api_key: none}}, "
        f"model_info: {{{PRICE.format(usd=usd)}{more}}}}}\n"
        for name, model, usd, more in models
    )
    file = folder / "eccos.yaml"
    file.write_text(f"model_list:\n{entries}eccos: {{history: in_memory, encoder: static}}\n")
    return load_config(file)


def assumed(config: Config) -> dict[str, float | None]:
    return {name: prior.assumed_quality for name, prior in ungraded_priors(config).items()}


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("openai/gpt-4o-2024-08-06", "gpt-4o"),
        ("bedrock/us.anthropic.claude-3-haiku-20240307-v1:0", "claude-3-haiku"),
        ("ollama/llama3.1:8b", "llama-3.1-8b"),
        ("together_ai/meta-llama/Meta-Llama-3.1-70B-Instruct-Turbo", "llama-3.1-70b"),
        ("gemini/gemini-2.0-flash-001", "gemini-2.0-flash"),
        ("gpt-4o-audio", None),
        ("gpt-4.5-preview", None),
        ("anthropic/claude-opus-4-5", None),
        ("deepseek/deepseek-r1-distill-llama-70b", None),
        ("openai/my-model", None),
    ],
)
def test_a_name_finds_the_results_of_its_family_and_of_no_other(name: str, family: str | None) -> None:
    found = find_public_result([name])
    assert (found and found.family) == family


def test_every_public_result_has_a_source_a_date_and_a_score() -> None:
    rows = json.loads((files("eccos_core.assembly") / "public_results.json").read_text())["results"]
    assert len({row["family"] for row in rows}) == len(rows) > 40
    for row in rows:
        assert row["source"]
        assert len(row["date"]) == 7
        assert all(10 < row[key] < 95 for key in {"mmlu_pro", "gpqa_diamond"} & row.keys())
        result = find_public_result([row["family"]])
        assert result is not None
        assert result.family == row["family"]
        assert 0.2 < result.score < 0.96


def test_a_score_on_one_benchmark_alone_is_converted_to_the_other() -> None:
    converted = find_public_result(["o3"])  # has a GPQA score alone
    both = find_public_result(["deepseek-r1"])
    assert converted is not None
    assert both is not None
    assert both.score == pytest.approx(0.84)
    assert converted.score > both.score  # 83.3 against 71.5 on GPQA


def test_the_first_source_that_applies_counts(tmp_path: Path) -> None:
    config = pool(
        tmp_path,
        ("said", "openai/gpt-4o", 1e-6, ", assumed_quality: 0.4"),
        ("alike", "openai/gpt-4o", 1e-6, ", assume_like: said"),
        ("public", "openai/gpt-4o-mini", 1e-6, ""),
        ("unknown", "openai/mine", 1e-6, ""),
    )
    expected = ("assumed_quality", "assume_like", "public_benchmarks", "price_rank")
    assert quality_sources(config, frozenset()) == expected
    assert quality_sources(config, frozenset({"public"})) == (*expected[:2], "outcomes", "price_rank")
    assert quality_sources(config, None) == ("outcomes",) * 4


def test_quality_rises_with_the_rank_of_the_price_where_nothing_else_is_known(tmp_path: Path) -> None:
    config = pool(tmp_path, *((f"m{usd}", f"openai/x{usd}", usd * 1e-6, "") for usd in (3, 1, 1, 90)))
    first, second, same, dearest = (assumed(config)[name] for name in ("m3", "m1", "m1", "m90"))
    assert second == same
    assert second is not None
    assert first is not None
    assert 0.5 < second < first < 0.8 == dearest


def test_a_single_model_without_anything_gets_the_middle(tmp_path: Path) -> None:
    assert assumed(pool(tmp_path, ("one", "openai/x", 1e-6, ""))) == {"one": pytest.approx(0.675)}


def test_scores_move_to_the_scale_of_the_models_whose_quality_is_known(tmp_path: Path) -> None:
    config = pool(
        tmp_path,
        ("graded", "openai/gpt-4o-mini", 1e-7, ""),
        ("better", "openai/gpt-4o", 1e-6, ""),
    )
    quality = np.array([[0.9, np.nan]] * 10 + [[1.0, np.nan]] * 10)
    ids = tuple(map(str, range(20)))
    table = OutcomeTable(ids, ids, ("graded", "better"), quality, np.full((20, 2), np.nan), np.full((20, 2), np.nan))
    priors = starting_priors(config, table)
    assert set(priors) == {"better"}  # the graded one has its outcomes
    moved = priors["better"].assumed_quality
    assert moved is not None
    assert 0.95 < moved < 0.98
    assert assumed(config)["better"] == pytest.approx(0.726)
