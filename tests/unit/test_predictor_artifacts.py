"""Fitted predictors on disk: what is refused, and how."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_outcomes import make_world

from eccos_core.errors import ArtifactError
from eccos_core.predictors import fit_predictor, load_predictor, save_predictor


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    world = make_world(40)
    return save_predictor(fit_predictor("kernel", world.table, world.vectors), tmp_path / "fitted", encoder="minilm@1")


def test_an_artifact_is_json_and_safetensors_and_nothing_else(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == [
        "manifest.json",
        "training_forecast.safetensors",
        "weights.safetensors",
    ]
    assert sorted(path.name for path in saved.parent.iterdir()) == ["fitted"]
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest["encoder"] == "minilm@1"
    assert manifest["models"] == ["small", "medium", "large"]


def test_another_encoder_is_refused(saved: Path) -> None:
    with pytest.raises(ArtifactError, match=r"'minilm@1', this router reads with 'static@2'.*eccos fit"):
        load_predictor(saved, encoder="static@2")


def test_a_model_that_it_does_not_know_is_refused(saved: Path) -> None:
    with pytest.raises(ArtifactError, match=r"does not know huge \(it knows small, medium, large\)"):
        load_predictor(saved, models=("small", "huge"))


def test_another_version_is_refused(saved: Path) -> None:
    manifest = json.loads((saved / "manifest.json").read_text())
    (saved / "manifest.json").write_text(json.dumps(manifest | {"version": 999}))
    with pytest.raises(ArtifactError, match="version 999"):
        load_predictor(saved)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "other"}'])
def test_a_strange_manifest_is_refused(saved: Path, text: str) -> None:
    (saved / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        load_predictor(saved)


def test_damaged_weights_are_refused(saved: Path) -> None:
    weights = saved / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(ArtifactError, match="eccos fit"):
        load_predictor(saved)
    weights.unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_predictor(saved)


def test_a_manifest_that_lost_a_part_is_refused(saved: Path) -> None:
    manifest = json.loads((saved / "manifest.json").read_text())
    del manifest["index"]
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="damaged"):
        load_predictor(saved)


def test_nothing_there_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="`eccos fit` writes one"):
        load_predictor(tmp_path / "nowhere")


def test_saving_again_replaces_and_never_overwrites_what_is_not_ours(saved: Path) -> None:
    world = make_world(60)
    save_predictor(fit_predictor("prior", world.table, world.vectors), saved, encoder="static@2")
    assert load_predictor(saved, encoder="static@2").kind == "prior"
    assert sorted(path.name for path in saved.parent.iterdir()) == ["fitted"]
    precious = saved.parent / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("do not lose me")
    with pytest.raises(ArtifactError, match="no predictor of eccos"):
        save_predictor(fit_predictor("prior", world.table, world.vectors), precious, encoder="x")
    assert (precious / "thesis.txt").read_text() == "do not lose me"
