import json
import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "litellm",
    "chromadb",
    "ortools",
    "langchain_core",
    "langchain",
    "llama_index",
    "transformers",
    "sentence_transformers",
    "sklearn",
    "scipy",
    "matplotlib",
    "plotly",
)


def loaded_by(statement: str) -> set[str]:
    """The heavy packages that are loaded after `statement` ran in a fresh interpreter."""
    code = f"import json, sys\n{statement}\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import eccos_core",
        "import eccos_core.domain, eccos_core.protocols, eccos_core.errors",
        "from eccos_core import Router",
        "import eccos_core.config",
        "import eccos_core.cli",
        "import eccos_core.optimizer, eccos_core.workload",
        "import eccos_integrations",
    ],
)
def test_importing_loads_no_heavy_package(statement: str) -> None:
    assert loaded_by(statement) == set()


def test_the_list_of_heavy_packages_is_not_vacuous() -> None:
    assert loaded_by("import torch") >= {"torch"}


def test_every_exported_name_can_be_had() -> None:
    import eccos_core

    for name in eccos_core.__all__:
        assert getattr(eccos_core, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Rooter'"):
        _ = eccos_core.Rooter
