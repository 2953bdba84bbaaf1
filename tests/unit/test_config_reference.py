"""The configuration reference is written from the models, and is up to date."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from eccos_core.config.schema import EccosSection

SCRIPT = Path(__file__).parents[2] / "tools" / "docs" / "config_reference.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("config_reference", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--check"]) == 0
    assert capsys.readouterr().err == ""


def test_an_old_page_is_reported_and_written_anew(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "configuration.md"
    assert script.main(["--check", "--page", str(page)]) == 1
    page.write_text("old")
    assert script.main(["--check", "--page", str(page)]) == 1
    assert "is old. Run `python -m tools.docs.config_reference`." in capsys.readouterr().err
    assert page.read_text() == "old"
    assert script.main(["--page", str(page)]) == 0
    assert script.main(["--check", "--page", str(page)]) == 0


def test_the_page_has_every_key_with_its_bound_and_default(script: ModuleType) -> None:
    text = script.render_page()
    for key, field in EccosSection.model_fields.items():
        assert f"## `{key}`\n\n{field.description}\n" in text
    assert "| `window_ms` | a number from 0 to 50 | `0` |" in text
    assert "| `breaker_open_s` | a number > 0 | `30` |" in text
    assert "| `attempts` | a whole number ≥ 1 | `3` |" in text
    assert "| `method` | `heads`, `fine_tuned` | `heads` |" in text
    assert "| `middle` | `intermediate_layer` |" in text
