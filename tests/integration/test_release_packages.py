"""All distributions of a release: each wheel is built, installed into a fresh environment, and imported from there."""

from __future__ import annotations

import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest
from doc_pages import SAID, Page, blocks_of, write_start

import eccos_core
from eccos_core.testing import ModelServer
from tools.check_wheel import ROOT, build, check_packages, find_module, find_packages
from tools.release import find_other_versions

pytestmark = pytest.mark.service

MODULES = ["langchain_eccos", *(f"llama_index.{kind}.eccos" for kind in ("embeddings", "llms", "selectors"))]
LANGCHAIN = ROOT / "eccos_integrations" / "langchain" / "packages" / "langchain-eccos"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The wheel of eccos, and those of the packages."""
    folder = tmp_path_factory.mktemp("dist")
    return [build(folder, source)[0] for source in (ROOT, *find_packages())]


def test_a_release_has_eccos_and_four_packages(wheels: list[Path]) -> None:
    assert [find_module(wheel) for wheel in wheels[1:]] == MODULES
    assert {wheel.name.split("-")[1] for wheel in wheels} == {eccos_core.__version__}
    assert find_other_versions(ROOT) == []
    with zipfile.ZipFile(wheels[0]) as opened:
        assert not [name for name in opened.namelist() if "/packages/" in name]


def test_every_wheel_can_be_installed_and_imported(wheels: list[Path], tmp_path: Path) -> None:
    check_packages(wheels, tmp_path / "venv")


def test_a_wheel_that_cannot_be_imported_fails_the_release(tmp_path: Path) -> None:
    source = tmp_path / "broken"
    (source / "broken_package").mkdir(parents=True)
    (source / "broken_package" / "__init__.py").write_text("from eccos_integrations import no_such_name\n")
    (source / "README.md").write_text("# broken\n")
    project = '[project]\nname = "broken-package"\nversion = "1"\ndescription = "x"\nreadme = "README.md"\n'
    backend = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    (source / "pyproject.toml").write_text(project + backend)
    wheel, _ = build(tmp_path / "dist", source)
    with pytest.raises(subprocess.CalledProcessError):
        check_packages([wheel], tmp_path / "venv")


def test_another_version_is_named(tmp_path: Path) -> None:
    for name in ("eccos_core/__init__.py", str(LANGCHAIN.relative_to(ROOT) / "pyproject.toml")):
        (tmp_path / name).parent.mkdir(parents=True)
        text = (ROOT / name).read_text().replace('__version__ = "', '__version__ = "9.')
        (tmp_path / name).write_text(text)
    version = f"9.{eccos_core.__version__}"
    assert find_other_versions(tmp_path) == [
        f"langchain-eccos has version {eccos_core.__version__}, must be {version}",
        f"langchain-eccos must need eccos[...]>={version}",
    ]


def test_the_package_of_langchain_only_re_exports() -> None:
    (code,) = LANGCHAIN.rglob("*.py")
    told = [line for line in code.read_text().splitlines() if line.startswith(("import", "from", "def", "class"))]
    assert told == ["from eccos_integrations.langchain import ("]
    project = tomllib.loads((LANGCHAIN / "pyproject.toml").read_text())["project"]
    assert (LANGCHAIN / project["readme"]).is_file()


def test_the_program_of_its_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(LANGCHAIN))
    monkeypatch.chdir(tmp_path)
    blocks = [each for each in blocks_of((LANGCHAIN / "README.md").read_text()) if each.language == "python"]
    assert blocks
    with ModelServer(script=SAID) as server:
        write_start(tmp_path, server.url)
        page = Page(Path("langchain-eccos/README.md"), tmp_path, server.url)
        for block in blocks:
            page.run(block)
    assert "e-06" in capsys.readouterr().out
