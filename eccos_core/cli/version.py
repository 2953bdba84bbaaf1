"""`eccos version`: print versions."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from eccos_core import __version__
from eccos_core.cli.output import JsonOption, print_json

_PACKAGES = ("litellm", "torch", "transformers", "sentence-transformers", "chromadb", "ortools")


def show_version(json: JsonOption = False) -> None:
    """Print the versions of eccos, Python and the main libraries.

    Example: eccos version --json
    """
    found = {"eccos": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    if json:
        print_json(found)
        return
    sys.stdout.write("".join(f"{name} {number}\n" for name, number in found.items()))
