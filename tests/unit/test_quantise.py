"""Weights in 8 and 4 bits: how exact they are, what a folder holds, what is refused, and nothing half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from eccos_core.backends.local.model import EngineOptions, load_model
from eccos_core.backends.local.numpy_llama import NumpyBatch, NumpyLlama
from eccos_core.backends.local.quantise_folder import parse_schemes, quantise_folder
from eccos_core.backends.local.quantise_weights import quantise_array
from eccos_core.backends.local.quantised import (
    GROUP,
    MANIFEST,
    SCHEMES,
    Scheme,
    dequantise_array,
    read_manifest,
    read_quantised,
)
from eccos_core.errors import ArtifactError, BackendError, DataError, InputError
from eccos_core.pocket import pocket_path

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 3 * GROUP))


def there_and_back(weights: Any, scheme: Scheme) -> tuple[Any, Any]:
    """The weights after quantising, and their scales."""
    stored = quantise_array("w", weights, scheme)
    scales = stored["w.scales"]
    return dequantise_array(stored["w.codes"], scales, weights.shape[-1]), scales


def small(tmp_path: Path) -> Path:
    """A copy of the smallest pocket model outside the package."""
    return Path(shutil.copytree(pocket_path("pocket-small"), tmp_path / "mine"))


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(0, 10_000), st.floats(-3, 3))
def test_int8_is_off_by_half_a_step_at_most(shape: tuple[int, int], seed: int, size: float) -> None:
    weights = (np.random.default_rng(seed).normal(size=shape) * 10**size).astype(np.float32)
    found, scales = there_and_back(weights, "int8")
    assert np.all(np.abs(found - weights) <= scales[:, None] * 0.5001)
    np.testing.assert_allclose(np.abs(found).max(axis=1), np.abs(weights).max(axis=1), rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(0, 10_000), st.floats(-2, 3))
def test_int4_is_never_worse_than_half_a_step_of_its_greatest_scale(
    shape: tuple[int, int], seed: int, size: float
) -> None:
    weights = (np.random.default_rng(seed).normal(size=shape) * 10**size).astype(np.float32)
    found, scales = there_and_back(weights, "int4")
    assert found.shape == weights.shape
    assert scales.shape == (shape[0], -(-shape[1] // GROUP))
    for start in range(0, shape[1], GROUP):
        group, back = weights[:, start : start + GROUP], found[:, start : start + GROUP]
        step = np.abs(group).max(axis=1) / 7
        assert np.all(((back - group) ** 2).sum(axis=1) <= 1.01 * group.shape[1] * (step / 2) ** 2)


def test_calibrated_weights_lose_less_on_such_inputs_as_they_were_calibrated_on() -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=(48, 160)).astype(np.float32)
    mixing = random.normal(size=(160, 160)) * (random.random(160) ** 3)  # inputs that depend on each other
    seen, unseen = (random.normal(size=(2000, 160)) @ mixing.T for _ in range(2))

    def loss(moments: Any) -> float:
        stored = quantise_array("w", weights, "int4", moments)
        back = dequantise_array(stored["w.codes"], stored["w.scales"], 160)
        return float((((back - weights) @ unseen.T) ** 2).mean())

    assert loss(seen.T @ seen) < 0.4 * loss(None)
    assert loss(np.zeros((160, 160))) == loss(None)  # a layer that nothing flows into is rounded as it is


def test_the_vocabulary_stays_in_8_bits_in_int4(tmp_path: Path) -> None:
    [variant] = quantise_folder(pocket_path("pocket-small"), ["int4"], tmp_path)
    stored = load_file(variant.folder / "quantised.safetensors")
    assert stored["model.embed_tokens.weight.codes"].dtype == np.int8
    assert stored["model.layers.0.mlp.up_proj.weight.codes"].dtype == np.uint8


@pytest.mark.parametrize("scheme", SCHEMES)
def test_zeros_stay_zeros_and_the_scale_of_a_row_is_its_own(scheme: Scheme) -> None:
    weights = np.zeros((3, 40), dtype=np.float32)
    weights[1], weights[2] = np.linspace(-1, 1, 40), np.linspace(-1e-3, 1e-3, 40)
    found, _ = there_and_back(weights, scheme)
    assert not found[0].any()
    assert np.abs(found[1] - weights[1]).max() < 0.15
    assert np.abs(found[2] - weights[2]).max() < 0.15e-3


@pytest.mark.parametrize(("value", "scheme"), [(np.nan, "int8"), (np.inf, "int4"), (1e30, "int4")])
def test_weights_that_no_scale_can_hold_are_refused_by_name(value: float, scheme: Scheme) -> None:
    weights = np.ones((2, 32), dtype=np.float32)
    weights[1, 3] = value
    with pytest.raises(InputError, match=r"'layer\.w'"):
        quantise_array("layer.w", weights, scheme)


@pytest.mark.parametrize(("scheme", "share"), [("int8", 0.55), ("int4", 0.34)])
def test_a_quantised_pocket_model_answers_on_numpy(tmp_path: Path, scheme: Scheme, share: float) -> None:
    [variant] = quantise_folder(pocket_path("pocket-medium"), [scheme], tmp_path)
    assert variant.share < share
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"pocket-medium-{scheme}"]
    base, found = (
        load_model("m", folder, EngineOptions()) for folder in (pocket_path("pocket-medium"), variant.folder)
    )
    assert isinstance(found.model, NumpyLlama)
    assert (found.end_ids, found.max_new_tokens) == (base.end_ids, base.max_new_tokens)
    prompt = base.prompt_ids([{"role": "user", "content": "What is the capital of France?"}])
    texts = []
    for loaded in (base, found):
        logits, _, _ = NumpyBatch(loaded.model, 0).prefill([prompt])
        texts.append(loaded.decode([int(logits[0].argmax())]))
    assert texts == ["Paris", "Paris"]


def test_norms_stay_exact_and_matrices_are_near(tmp_path: Path) -> None:
    [variant] = quantise_folder(pocket_path("pocket-small"), ["int8"], tmp_path)
    manifest = read_manifest(variant.folder)
    assert manifest is not None
    found, base = read_quantised(variant.folder, manifest), load_file(pocket_path("pocket-small") / "model.safetensors")
    assert found.keys() == base.keys()
    assert np.array_equal(found["model.norm.weight"], base["model.norm.weight"])
    embedding = base["model.embed_tokens.weight"].astype(np.float32)
    assert 0 < np.abs(found["model.embed_tokens.weight"] - embedding).max() <= np.abs(embedding).max() / 250


def test_a_folder_in_several_files_loses_none(tmp_path: Path) -> None:
    folder = small(tmp_path)
    arrays = load_file(folder / "model.safetensors")
    names = sorted(arrays)
    parts = {"model-1.safetensors": names[:3], "model-2.safetensors": names[3:]}
    for file, part in parts.items():
        save_file({name: arrays[name] for name in part}, folder / file)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    [variant] = quantise_folder(folder, ["int8"], tmp_path)
    manifest = read_manifest(variant.folder)
    assert manifest is not None
    assert len(manifest.files) == 2
    assert read_quantised(variant.folder, manifest).keys() == arrays.keys()
    assert not (variant.folder / "model.safetensors.index.json").exists()
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks files .* model-2\.safetensors"):
        quantise_folder(folder, ["int4"], tmp_path)


def test_what_cannot_be_quantised_is_refused(tmp_path: Path) -> None:
    folder = small(tmp_path)
    with pytest.raises(InputError, match=r"has no config\.json"):
        quantise_folder(tmp_path, ["int8"], tmp_path / "out")
    [variant] = quantise_folder(folder, ["int8"], tmp_path)
    with pytest.raises(InputError, match="is quantised already"):
        quantise_folder(variant.folder, ["int4"], tmp_path)
    with pytest.raises(InputError, match="exists, and nothing is overwritten"):
        quantise_folder(folder, ["int8"], tmp_path)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(DataError, match="cannot be read as safetensors"):
        quantise_folder(folder, ["int4"], tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"holds no \.safetensors weights"):
        quantise_folder(folder, ["int4"], tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(InputError, match="is quantised already"):
        quantise_folder(folder, ["int4"], tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine", "mine-int8"]


@pytest.mark.parametrize(("text", "error"), [("int3", "unknown scheme 'int3'"), (" , ", "names no scheme")])
def test_unknown_schemes_are_refused(text: str, error: str) -> None:
    with pytest.raises(InputError, match=error):
        parse_schemes(text)
    assert parse_schemes("int4, int8,int4") == ("int4", "int8")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    # files of at most 100 kB: the first variant fits, and the second one does not
    script = """
import resource, sys
from pathlib import Path
from eccos_core.backends.local.quantise_folder import quantise_folder
from eccos_core.errors import InputError
from eccos_core.pocket import pocket_path
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    quantise_folder(pocket_path("pocket-small"), ["int4", "int8"], Path(sys.argv[1]))
except InputError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert "nothing was written to" in done.stdout
    assert "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_variant_says_so_when_it_is_loaded(tmp_path: Path) -> None:
    [variant] = quantise_folder(pocket_path("pocket-small"), ["int8"], tmp_path)
    manifest = json.loads((variant.folder / MANIFEST).read_text())

    def loaded_with(**changes: Any) -> str:
        (variant.folder / MANIFEST).write_text(json.dumps(manifest | changes))
        with pytest.raises(BackendError) as caught:
            load_model("m", variant.folder, EngineOptions())
        assert not caught.value.retryable
        return str(caught.value)

    assert "is not of version 2" in loaded_with(version=1)
    assert "files elsewhere" in loaded_with(files=["../mine/model.safetensors"])
    assert "unknown scheme" in loaded_with(scheme="int2")
    assert "no whole number above 0" in loaded_with(columns={"model.embed_tokens.weight": -1})
    assert "are not 17 columns of int8" in loaded_with(columns={"model.embed_tokens.weight": 17})
    (variant.folder / MANIFEST).write_text("{}")
    with pytest.raises(ArtifactError, match="eccos quantise"):
        read_manifest(variant.folder)
