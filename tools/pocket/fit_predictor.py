"""Fit the predictor that ships with the pocket pool: `python -m tools.pocket.fit_predictor`.

Run it after you change the code of the predictors, the encoders or the history. A test compares the digests.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from eccos_core.pocket import pocket_predictor_path, pool_config_path, pool_history_path

MADE_FROM = "made_from.json"
COMMAND = "python -m tools.pocket.fit_predictor"
_PACKAGE = Path(__file__).parents[2] / "eccos_core"
_SOURCES = (
    "plans/**/*.py",
    "predictors/**/*.py",
    "encoders/static*.py",
    "encoders/surface.py",
    "encoders/concatenated.py",
)


def fit_pocket_predictor(folder: Path) -> None:
    """Fit the pool's predictor and its plans on the whole history, write them, and note what they were made from."""
    from eccos_core.config import load_config
    from eccos_core.workflows.fit import fit_to_folder

    fit_to_folder(load_config(pool_config_path()), pool_history_path(), folder)
    for file in folder.rglob("*.*"):
        file.chmod(0o644)  # safetensors writes files that only their owner can read
    text = json.dumps(current_digests(), indent=1) + "\n"
    (folder / MADE_FROM).write_text(text, encoding="utf-8")


def current_digests() -> dict[str, str]:
    """Digest the code that fits and the history that it fits on. Comments and docstrings change nothing."""
    code = hashlib.sha256()
    for path in sorted({path for pattern in _SOURCES for path in _PACKAGE.glob(pattern)}):
        code.update(path.relative_to(_PACKAGE).as_posix().encode())
        code.update(_without_docstrings(path.read_text(encoding="utf-8")).encode())
    history = hashlib.sha256(pool_history_path().read_bytes())
    return {"code": code.hexdigest(), "history": history.hexdigest()}


def recorded_digests(folder: Path) -> dict[str, str]:
    """Read what a fitted folder was made from."""
    digests: dict[str, str] = json.loads((folder / MADE_FROM).read_text(encoding="utf-8"))
    return digests


def _without_docstrings(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)]
    return ast.unparse(tree)


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, write, and say how large it is."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--out", type=Path, default=pocket_predictor_path(), help="folder to write to")
    options = parser.parse_args(arguments)
    fit_pocket_predictor(options.out)
    size = sum(file.stat().st_size for file in options.out.rglob("*.*"))
    sys.stderr.write(f"{options.out}: {size / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
