"""The public API as a user gets it. `make wheel` runs this against the installed wheel, outside the repository.

It stands on pytest and on eccos alone, and on no support of our own tests.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
model_list:
- {model_name: small, litellm_params: {model: openai/gpt-4o-mini}}
- {model_name: large, litellm_params: {model: openai/gpt-4o}}
eccos: {policy: {quality_floor: 0.8}}
"""
ECCOS = Path(sys.executable).with_name("eccos")


def eccos(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    return subprocess.run([str(ECCOS), *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_the_installed_wheel_is_what_is_tested() -> None:
    import eccos_core

    assert eccos_core.__file__ is not None
    if os.environ.get("ECCOS_WHEEL_IS_INSTALLED"):
        assert "site-packages" in eccos_core.__file__
        assert importlib.metadata.version("eccos") == eccos_core.__version__


def test_every_public_name_can_be_had_and_the_types_are_shipped() -> None:
    import eccos_core

    for name in eccos_core.__all__:
        assert getattr(eccos_core, name) is not None
    assert (Path(eccos_core.__file__).parent / "py.typed").is_file()


def test_a_router_in_five_lines_answers() -> None:
    from eccos_core import Model, Router
    from eccos_core.testing import ScriptedBackend, TablePredictor, WordEncoder

    encoder = WordEncoder(["hard"])
    predictor = TablePredictor(["small", "large"], [[0.1, 0.9], [0.9, 0.95]])
    backend = ScriptedBackend({"small": ["fine"] * 9, "large": ["fine"] * 9})
    models = [Model("small", 1e-7, 4e-7), Model("large", 3e-6, 1.5e-5)]
    with Router(models=models, predictor=predictor, backend=backend, encoder=encoder) as router:
        answers = router.complete_batch(["an easy question"] * 3)
        assert len(answers) == 3
        assert {answer.decision.model for answer in answers} == {answer.model for answer in answers}
        assert router.complete("one more").text


def test_a_configuration_is_read(tmp_path: Path) -> None:
    from eccos_core.config import load_config

    (tmp_path / "eccos.yaml").write_text(CONFIG)
    assert [model.name for model in load_config(tmp_path / "eccos.yaml").models] == ["small", "large"]


def test_the_command_checks_a_configuration_and_lists_its_commands(tmp_path: Path) -> None:
    (tmp_path / "eccos.yaml").write_text(CONFIG)
    told = eccos("--help", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "check" in told.stdout
    checked = eccos("check", "eccos.yaml", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    (tmp_path / "eccos.yaml").write_text(CONFIG.replace("policy", "polcy"))
    wrong = eccos("check", "eccos.yaml", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "policy" in wrong.stdout + wrong.stderr


@pytest.mark.parametrize(
    ("package", "module", "name", "extra"),
    [
        ("langchain_core", "eccos_integrations.langchain", "ChatEccos", "langchain"),
        ("llama_index", "eccos_integrations.llama_index", "EccosLLM", "llama-index"),
    ],
)
def test_a_missing_extra_says_how_to_install_it(package: str, module: str, name: str, extra: str) -> None:
    from eccos_core import MissingDependencyError

    if importlib.util.find_spec(package) is not None:
        assert getattr(importlib.import_module(module), name) is not None
        return
    with pytest.raises(MissingDependencyError, match=rf"pip install 'eccos\[{extra}\]'"):
        getattr(importlib.import_module(module), name)
