"""`model_info.batch`: what it reads, and every mistake with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from eccos_core.config import Config, load_config
from eccos_core.domain import BatchOffer
from eccos_core.errors import ConfigError

ENTRY = """\
model_list:
  - model_name: large
    litellm_params: {{model: {model}, api_key: none}}
    model_info: {{input_cost_per_token: 1.0e-6, output_cost_per_token: 4.0e-6, {info}}}
  - model_name: {other}
    litellm_params: {{model: openai/other, api_key: none}}
    model_info: {{input_cost_per_token: 1.0e-6, output_cost_per_token: 4.0e-6}}
eccos: {eccos}
"""


def load(folder: Path, info: str, *, model: str = "openai/large", other: str = "other", eccos: str = "{}") -> Config:
    path = folder / "eccos.yaml"
    path.write_text(ENTRY.format(info=info, model=model, other=other, eccos=eccos))
    return load_config(path, environment={})


@pytest.mark.parametrize(
    ("info", "offer"),
    [
        ("batch: {discount: 0.4, within_s: 3600}", BatchOffer(0.4, 3600)),
        ("batch: {}", BatchOffer(0.5, 86_400)),
        ("batch: true", BatchOffer(0.5, 86_400)),
    ],
)
def test_an_offer_is_read(tmp_path: Path, info: str, offer: BatchOffer) -> None:
    large, other = load(tmp_path, info).pool
    assert large.batch == (offer, large.deployments[0])
    assert other.batch is None


def test_false_and_nothing_are_no_offer(tmp_path: Path) -> None:
    assert load(tmp_path, "batch: false").pool[0].batch is None
    assert load(tmp_path, "max_concurrency: 2").pool[0].batch is None


def test_each_effort_of_a_model_has_its_offer(tmp_path: Path) -> None:
    pool = load(tmp_path, "batch: true, efforts: {low: {reasoning_effort: low}, high: {reasoning_effort: high}}").pool
    assert {entry.model.name: entry.batch is not None for entry in pool} == {
        "large@low": True,
        "large@high": True,
        "other": False,
    }


@pytest.mark.parametrize(
    ("info", "model", "other", "said"),
    [
        ("batch: {discount: 1.5}", "openai/large", "other", "batch.discount: is 1.5, must be a number between 0 and 1"),
        ("batch: {discount: 1}", "openai/large", "other", "batch.discount: is 1, must be below 1"),
        ("batch: {within_s: 0}", "openai/large", "other", "batch.within_s: is 0, must be a number > 0"),
        ("batch: {whithin_s: 5}", "openai/large", "other", "batch.whithin_s: is unknown"),
        ("batch: yes please", "openai/large", "other", "batch: is text, must be a mapping"),
        ("batch: true", "azure/large", "other", "batch: stands at a model of 'azure'"),
        ("batch: true", "openai/large", "large@batch", "gives 'large' a batch API, which is called 'large@batch'"),
        ("batch: true, efforts: {batch: {}}", "openai/large", "other", "A model or an effort has this name"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, info: str, model: str, other: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, info, model=model, other=other)
    assert said in str(raised.value)
    assert "model_list[0] 'large'" in str(raised.value)


def test_the_folder_is_beside_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, "batch: true").provider_batches.folder == tmp_path / ".eccos" / "provider_batches"
    kept = load(tmp_path, "batch: true", eccos="{provider_batches: {folder: ./kept, poll_s: 1}}").provider_batches
    assert (kept.folder, kept.poll_s) == (tmp_path / "kept", 1)
