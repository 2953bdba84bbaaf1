"""The three packages for LlamaHub: each builds offline, and imports beside the installed `llama_index`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from doc_pages import SAID, Page, blocks_of, write_start

import eccos_core
import eccos_integrations.llama_index as ours
from eccos_core.testing import ModelServer

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / "eccos_integrations" / "llama_index" / "packages"
KINDS = ("embeddings", "llms", "selectors")

pytestmark = pytest.mark.service


def folder_of(kind: str) -> Path:
    return PACKAGES / f"llama-index-{kind}-eccos"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all three wheels, built and installed without a network."""
    folder = tmp_path_factory.mktemp("packages")
    target = folder / "site"
    offline = {**os.environ, "PIP_NO_INDEX": "1"}
    for kind in KINDS:
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist")]
        subprocess.run([*build, str(folder_of(kind))], check=True, capture_output=True, env=offline, timeout=120)
    wheels = sorted(str(each) for each in (folder / "dist").glob("*.whl"))
    assert len(wheels) == len(KINDS)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    subprocess.run([*install, *wheels], check=True, capture_output=True, env=offline, timeout=120)
    return target


def test_there_are_packages_for_these_and_no_others() -> None:
    assert sorted(each.name for each in PACKAGES.iterdir()) == [folder_of(kind).name for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_says_what_llamahub_asks_for(kind: str) -> None:
    described = tomllib.loads((folder_of(kind) / "pyproject.toml").read_text())
    hub, project = described["tool"]["llamahub"], described["project"]
    assert hub["import_path"] == f"llama_index.{kind}.eccos"
    assert hub["class_authors"].keys() <= set(ours.__all__)
    assert project["version"] == eccos_core.__version__
    assert any(each.endswith(f">={eccos_core.__version__}") for each in project["dependencies"])
    assert (folder_of(kind) / project["readme"]).is_file()


def test_the_packages_only_re_export(installed: Path) -> None:
    """They import beside `llama_index.core` and `llama_index.llms.openai`, which other distributions bring."""
    code = (
        "import importlib, json, llama_index.core, llama_index.llms.openai\n"
        "import eccos_integrations.llama_index as ours\n"
        f"packages = [importlib.import_module(f'llama_index.{{kind}}.eccos') for kind in {list(KINDS)}]\n"
        "assert all(getattr(each, name) is getattr(ours, name) for each in packages for name in each.__all__)\n"
        "print(json.dumps([[each.__file__, each.__all__] for each in packages]))\n"
    )
    paths = os.pathsep.join([str(installed), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    for kind, (file, names) in zip(KINDS, json.loads(done.stdout), strict=True):
        assert Path(file).is_relative_to(installed)
        described = tomllib.loads((folder_of(kind) / "pyproject.toml").read_text())
        assert set(described["tool"]["llamahub"]["class_authors"]) <= set(names)


def test_the_packages_take_no_part_of_the_namespace_from_others(installed: Path) -> None:
    files = {str(each.relative_to(installed)) for each in installed.rglob("*.py")}
    assert files == {f"llama_index/{kind}/eccos/__init__.py" for kind in KINDS}


def test_the_wheel_of_eccos_does_not_hold_them() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert str(PACKAGES.relative_to(ROOT)) in wheel["exclude"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_program_of_a_readme_runs(
    kind: str, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.chdir(tmp_path)
    blocks = [each for each in blocks_of((folder_of(kind) / "README.md").read_text()) if each.language == "python"]
    assert blocks
    with ModelServer(script=SAID) as server:
        write_start(tmp_path, server.url)
        page = Page(Path(f"{folder_of(kind).name}/README.md"), tmp_path, server.url)
        for block in blocks:
            page.run(block)
    assert {"embeddings": "384", "llms": "e-06", "selectors": "Lima"}[kind] in capsys.readouterr().out
