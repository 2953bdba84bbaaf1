"""No module of ours imports itself through others, not even late, for types alone, or by a string.

An import below `if TYPE_CHECKING:` closes no cycle when the program runs. It counts here all the same: two modules that
need each other's types are one part cut in two, and a reader cannot read one before the other.
"""

from pathlib import Path

import pytest
from import_graph import find_cycles, find_modules, import_graph, shortest_cycle

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("eccos_core", "eccos_integrations", "tools")


def test_no_module_imports_itself_through_others() -> None:
    graph = import_graph(find_modules(ROOT, PACKAGES))
    cycles = [" -> ".join(shortest_cycle(graph, group)) for group in find_cycles(graph)]
    assert cycles == []


def test_every_module_is_seen() -> None:
    graph = import_graph(find_modules(ROOT, PACKAGES))
    assert graph["eccos_core.routing.decider"] >= {"eccos_core.domain", "eccos_core.protocols"}
    assert graph["eccos_core"] >= {"eccos_core.domain", "eccos_core.router"}, "the lazy table of the package counts"
    assert graph["eccos_integrations.llama_index"] >= {"eccos_integrations.llama_index.llm"}
    assert any(name.startswith("tools.") for name in graph)


@pytest.mark.parametrize(
    "link",
    [
        "from box import two",
        "from . import two",
        "from .two import Two",
        "import box.two",
        "from box.two import Two",
        "def later():\n    from box.two import Two\n    return Two",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from box.two import Two",
        "from importlib import import_module\ndef later():\n    return import_module('box.two').Two",
        "import importlib\ndef later():\n    return importlib.import_module('.two', __package__).Two",
        "from importlib import import_module\nHOMES = {'Two': 'two'}\ndef later(n):\n"
        "    return import_module(f'box.{HOMES[n]}')",
        "from importlib import import_module\nHOMES = {'Two': 'box.two'}\ndef later(n):\n"
        "    return import_module(HOMES[n])",
        "from importlib import import_module\nHOMES = {'two': ('Two',)}\ndef later(n):\n"
        "    return import_module(f'box.{n}')",
        "from box.shelf import Two",
    ],
)
def test_a_cycle_is_found_however_it_is_written(link: str, tmp_path: Path) -> None:
    box = tmp_path / "box"
    (box / "shelf").mkdir(parents=True)
    (box / "__init__.py").write_text("")
    (box / "one.py").write_text(link + "\n")
    (box / "two.py").write_text("from box.one import *\n")
    (box / "shelf" / "__init__.py").write_text("from box.two import Two\n")
    graph = import_graph(find_modules(tmp_path, ["box"]))
    (group,) = find_cycles(graph)
    assert {"box.one", "box.two"} <= set(group)
    assert shortest_cycle(graph, group)[0] == shortest_cycle(graph, group)[-1]


def test_a_lazy_table_of_a_package_counts_whoever_reads_it(tmp_path: Path) -> None:
    box = tmp_path / "box"
    box.mkdir()
    (box / "__init__.py").write_text("from shared import lazy\nHOMES = {'Two': 'two'}\nget = lazy(__name__, HOMES)\n")
    (box / "two.py").write_text("from box import One\n")
    assert find_cycles(import_graph(find_modules(tmp_path, ["box"]))) == [["box", "box.two"]]


def test_modules_without_a_cycle_pass(tmp_path: Path) -> None:
    box = tmp_path / "box"
    box.mkdir()
    (box / "__init__.py").write_text("from box.one import One\n")
    (box / "one.py").write_text("import json\nfrom box.two import Two\nname = 'box'\n")
    (box / "two.py").write_text("Two = 2\n")
    assert find_cycles(import_graph(find_modules(tmp_path, ["box"]))) == []
