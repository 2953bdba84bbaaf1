"""Test the LangChain integration on the previous minor release of langchain-core: `make previous-langchain`.

The release before the installed one is installed, with the langchain and langgraph that fit it, into a virtual
environment that borrows everything else from this one. Needs a package index.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from tools.lent_environment import ROOT, make_lent_environment, offline_environment

TESTS = sorted(
    str(path.relative_to(ROOT))
    for folder in ("unit", "integration")
    for path in (ROOT / "tests" / folder).glob("test_langchain_*.py")
)


def previous_minor(installed: str) -> str:
    """Return the requirement of the minor release before a version: `~=1.7.0` for 1.8.3."""
    major, minor, *_ = installed.split(".")
    if minor == "0":
        raise SystemExit(f"langchain-core {installed} is the first of its major release. Name the one before it here.")
    return f"~={major}.{int(minor) - 1}.0"


def main() -> int:
    """Install, and run the tests. Exits with pytest's code, or with pip's where nothing fits."""
    wanted = f"langchain-core{previous_minor(version('langchain-core'))}"
    with tempfile.TemporaryDirectory(prefix="eccos-langchain-") as folder:
        try:
            python = make_lent_environment(Path(folder), [wanted, "langchain", "langgraph"])
        except subprocess.CalledProcessError as error:
            print(f"failed: {' '.join(error.cmd)}", file=sys.stderr)
            return error.returncode
        environment = offline_environment()
        names = ("langchain-core", "langchain", "langgraph")
        show = f"from importlib.metadata import version; print(*(f'{{n}} {{version(n)}}' for n in {names}), sep=', ')"
        subprocess.run([str(python), "-c", show], check=True, env=environment)
        return subprocess.run(
            [str(python), "-m", "pytest", "-q", *TESTS], cwd=ROOT, env=environment, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
