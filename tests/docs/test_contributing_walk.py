"""Every path that CONTRIBUTING.md names exists, and every `path: name` is defined in that file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
_CODE = re.compile(r"`([^`\n]+)`")
_PLACE = re.compile(r"(?P<path>[\w.-]+(?:/[\w.-]+)+)(?:: (?P<name>\w+(?:\.\w+)*))?")
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")


def places(text: str) -> list[tuple[str, str | None]]:
    """Every `path` and `path: name` of a page, fenced blocks left out."""
    prose = re.sub(r"^[ \t]*```.*?^[ \t]*```", "", text, flags=re.MULTILINE | re.DOTALL)
    found = [_PLACE.fullmatch(code) for code in _CODE.findall(prose)]
    links = [(link, None) for link in _LINK.findall(prose)]
    return [(match["path"], match["name"]) for match in found if match is not None] + links


def names_of(body: list[ast.stmt]) -> dict[str, list[ast.stmt]]:
    """What a module or class defines, each with its own body."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found[statement.name] = statement.body
            case ast.Assign(targets=targets):
                found.update({target.id: [] for target in targets if isinstance(target, ast.Name)})
            case ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = []
            case _:
                pass
    return found


def defines(source: str, name: str) -> bool:
    """Whether the source defines `name`; `Class.method` looks into the class."""
    body = ast.parse(source).body
    for part in name.split("."):
        known = names_of(body)
        if part not in known:
            return False
        body = known[part]
    return True


WALK = places((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))


def test_the_walk_has_the_questions_that_newcomers_ask() -> None:
    paths = {path for path, _ in WALK}
    assert {
        "eccos_core/config/parse_price.py",
        "eccos_core/streaming/quality_account.py",
        "eccos_core/backends/retrying.py",
        "tests/contract/test_encoder_contract.py",
    } <= paths
    assert sum(name is not None for _, name in WALK) >= 10


@pytest.mark.parametrize(("path", "name"), WALK)
def test_what_the_walk_names_exists(path: str, name: str | None) -> None:
    file = ROOT / path
    assert file.exists(), f"CONTRIBUTING.md names {path}, which does not exist"
    if name is not None:
        assert defines(file.read_text(encoding="utf-8"), name), f"{path} does not define {name}"


def test_a_place_that_does_not_exist_would_be_found() -> None:
    page = "see `a/b.py: Thing.go` and [c](d.md)\n```bash\n`x/y.py`\n```\n"
    assert places(page) == [("a/b.py", "Thing.go"), ("d.md", None)]
    source = "class Thing:\n    def go(self): ...\nLIMIT: int = 3\n"
    assert defines(source, "Thing.go")
    assert defines(source, "LIMIT")
    assert not defines(source, "Thing.stop")
    assert not defines(source, "go")
