"""What each extra takes on disk: `python benchmarks/install_sizes.py`.

Builds the wheel, installs it with each extra into a virtual environment of its own, and prints a table of megabytes.
`--write` puts the table into docs/reference/install-sizes.md. Needs a package index and up to 3 GB of free space.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "install-sizes.md"
START, END = "<!-- sizes -->\n", "<!-- end of sizes -->"
EXTRAS = (
    *("", "exact", "collect", "report", "server", "postgres", "langchain", "llama-index", "smol", "chroma"),
    *("local", "all"),
)
TORCH = "torch==2.13.0"  # first and alone: where a CPU build is offered, pip takes it


def build_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def installed_megabytes(wheel: Path, extra: str) -> int:
    """Megabytes of site-packages, byte code included, without pip and setuptools."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin" / "python"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "pip==26.3"], check=True, capture_output=True)
        if extra in ("local", "all"):
            subprocess.run([*pip, TORCH], check=True, capture_output=True)
        wanted = f"{wheel}[{extra}]" if extra else str(wheel)
        subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", wanted], check=True, capture_output=True)
        subprocess.run([python, "-m", "pip", "uninstall", "-y", "-q", "setuptools", "pip"], check=True)
        packages = next(Path(folder).glob("lib/python*/site-packages"))
        size = subprocess.run(["du", "-sm", packages], check=True, capture_output=True, text=True).stdout
        return int(size.split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="*", default=EXTRAS)
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    options = parser.parse_args()
    lines = ["| you install | MB on disk |", "|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        for extra in options.extras:
            name = f"eccos[{extra}]" if extra else "eccos"
            lines.append(f'| `pip install "{name}"` | {installed_megabytes(wheel, extra)} |')
            print(lines[-1], flush=True)
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        before, after = page.partition(START)[0], page.partition(END)[2]
        PAGE.write_text(before + START + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
