"""`mypy --strict` agrees with what we say of our types, with README's Python, and with every example."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WRONG = """
from typing import assert_type

from eccos_core import Completion, EccosError, Router


def wrong(router: Router) -> None:
    assert_type(router.complete_batch(["one"], return_exceptions=True), list[Completion])
    router.complete(1)
    router.compleet("one")


from eccos_core import Rooter
"""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What one run of mypy says of each file. It shares the cache of `make types`, which has read eccos already."""
    folder = tmp_path_factory.mktemp("typed")
    shutil.copy(HERE / "public_api.py", folder / "public_api.py")
    (folder / "wrong.py").write_text(WRONG)
    for number, block in enumerate(PYTHON_BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))):
        (folder / f"readme_{number}.py").write_text(block)
    for example in (ROOT / "examples").glob("*.py"):
        shutil.copy(example, folder / example.name)
    files = sorted(folder.glob("*.py"))
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "pyproject.toml", "--no-error-summary"]
    command += ["--hide-error-context", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, list[str]] = {path.name: [] for path in files}
    for line in done.stdout.splitlines():
        path, _, rest = line.partition(":")
        name = Path(path).name if "eccos_" not in path else path
        found.setdefault(name, []).append(rest)
    return found


def test_the_public_methods_have_the_types_that_we_say(complaints: dict[str, list[str]]) -> None:
    assert complaints["public_api.py"] == []


def test_every_python_block_of_the_readme_is_strictly_typed(complaints: dict[str, list[str]]) -> None:
    readme = {name: told for name, told in complaints.items() if name.startswith("readme_")}
    assert readme
    assert {name: told for name, told in readme.items() if told} == {}


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_every_example_is_strictly_typed(example: str, complaints: dict[str, list[str]]) -> None:
    assert complaints[example] == []


def test_our_own_code_gives_no_complaint_on_the_way(complaints: dict[str, list[str]]) -> None:
    ours = {name: told for name, told in complaints.items() if "eccos_" in name}
    assert ours == {}


def test_mypy_finds_what_is_wrong(complaints: dict[str, list[str]]) -> None:
    told = "\n".join(complaints["wrong.py"])
    assert "[assert-type]" in told
    assert "[arg-type]" in told
    assert '"Router" has no attribute "compleet"' in told
    assert "Rooter" in told, "a misspelled import is an error"
