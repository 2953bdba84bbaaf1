"""A virtual environment that borrows the packages of this one, and puts others before them."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def make_lent_environment(folder: Path, packages: Sequence[str]) -> Path:
    """Make a virtual environment in `folder`, install `packages` there, and return its Python.

    A `.pth` file lends it the packages of the environment that runs this. pip installs only what is missing there, or
    has another version. Raises `CalledProcessError` when a package cannot be installed.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "lent.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *packages], check=True)
    return python


def offline_environment() -> dict[str, str]:
    """Return the variables of a test run: this checkout first, one thread, no hub, no price map from the network."""
    fixed = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**os.environ, **fixed}
