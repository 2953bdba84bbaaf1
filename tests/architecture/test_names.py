"""One name, one class. Every public name explains itself, and has its place in the reference."""

import ast
import importlib
import inspect
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
REFERENCE = ROOT / "docs" / "reference"
PUBLIC_PACKAGES = (
    "eccos_core",
    "eccos_core.testing",
    "eccos_integrations.langchain",
    "eccos_integrations.llama_index",
)
NOT_EXPLAINED_BY_A_DOCSTRING = {"__version__"}


def class_names(*packages: str, root: Path = ROOT) -> dict[str, list[str]]:
    """Where each class of `packages` is defined, private and nested ones included."""
    found = defaultdict(list)
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    found[node.name].append(f"{path.relative_to(root)}:{node.lineno}")
    return dict(found)


def protocols() -> list[str]:
    """The names of the classes that `protocols.py` defines."""
    module = importlib.import_module("eccos_core.protocols")
    return [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]


def public_names() -> list[tuple[str, str]]:
    """(module, name) of everything that a user may import."""
    named = [(package, name) for package in PUBLIC_PACKAGES for name in importlib.import_module(package).__all__]
    return named + [("eccos_core.protocols", name) for name in protocols()]


def undocumented(names: list[tuple[str, str]]) -> list[str]:
    """The public classes and functions without a docstring of their own."""
    missing = []
    for module, name in names:
        value = getattr(importlib.import_module(module), name)
        if name not in NOT_EXPLAINED_BY_A_DOCSTRING and not _own_docstring(value):
            missing.append(f"{module}.{name}")
    return missing


def _own_docstring(value: Any) -> str:
    if inspect.isclass(value):
        text = value.__dict__.get("__doc__") or ""
        return "" if text.startswith(f"{value.__name__}(") else text  # what `dataclass` writes where nobody did
    return inspect.getdoc(value) or ""


def not_on_a_page(names: list[tuple[str, str]], pages: str) -> list[str]:
    """The public names that no page of the reference names: as `::: module.Name`, as a member, or in backticks."""
    told = set(re.findall(r"^:::\s+([\w.]+)", pages, re.MULTILINE))
    told |= {word for code in re.findall(r"`([^`\n]+)`", pages) for word in re.findall(r"[\w.]+", code)}
    told |= set(re.findall(r"^ {4,}- (\w+)$", pages, re.MULTILINE))  # `members:` of a `:::` block
    last = {name.rpartition(".")[2] for name in told}
    return [f"{module}.{name}" for module, name in names if name not in last and not name.startswith("__")]


def test_no_two_classes_share_a_name() -> None:
    shared = {name: places for name, places in class_names("eccos_core", "eccos_integrations").items() if places[1:]}
    assert shared == {}


def test_a_shared_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "one.py").write_text("class _Run: ...\n")
    (tmp_path / "box" / "two.py").write_text("class Other:\n    class _Run: ...\n")
    assert class_names("box", root=tmp_path)["_Run"] == ["box/one.py:1", "box/two.py:2"]


def test_four_files_and_the_nouns_at_the_top_tell_the_library() -> None:
    top = sorted(path.stem for path in (ROOT / "eccos_core").glob("*.py"))
    assert top == ["__init__", "errors", "protocols", "router"]
    assert (ROOT / "eccos_core" / "domain" / "__init__.py").is_file()


def test_every_public_name_has_a_docstring() -> None:
    assert undocumented(public_names()) == []


def test_a_missing_docstring_is_found() -> None:
    assert undocumented([("dataclasses", "KW_ONLY")]) == ["dataclasses.KW_ONLY"]


@pytest.mark.parametrize(("module", "name"), public_names())
def test_every_public_name_can_be_imported(module: str, name: str) -> None:
    assert getattr(importlib.import_module(module), name) is not None


def test_every_public_name_is_on_a_page_of_the_reference() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in sorted(REFERENCE.rglob("*.md")))
    assert not_on_a_page(public_names(), pages) == []


def test_a_name_without_a_page_is_found() -> None:
    pages = (
        "::: eccos_core.Router\n\n::: eccos_core.domain\n    options:\n      members:\n        - Budget\n\n"
        "Use `Model(name)` here. Deadline in plain text is no entry."
    )
    named = [("eccos_core", name) for name in ("Router", "Budget", "Model", "Deadline")]
    assert not_on_a_page(named, pages) == ["eccos_core.Deadline"]
