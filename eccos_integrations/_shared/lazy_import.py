"""Load the public names of an integration when you first use them, so that importing the package costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from eccos_core.errors import MissingDependencyError


def import_public_name(
    package: str, name: str, homes: Mapping[str, str], *, framework: str, distribution: str, extra: str
) -> Any:
    """Import `name` from the module of `package` that `homes` gives for it.

    `framework` is the import name of what the package needs, and `distribution` its name on PyPI. Raises
    `AttributeError` for a name without a home. Raises `MissingDependencyError` when the framework is not installed.
    The error names the `extra` of eccos to install.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{package}.{homes[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != framework:
            raise
        raise MissingDependencyError(distribution, package, f"pip install 'eccos[{extra}]'") from error


def require_module(module: str, requirement: str, needed_by: str) -> None:
    """Raise `MissingDependencyError` when `module` itself is not there. Leave a missing parent to the caller.

    `requirement` is what to install, as pip takes it.
    """
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            raise MissingDependencyError(requirement, needed_by, f"pip install '{requirement}'") from error
