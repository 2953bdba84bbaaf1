"""Build the wheel and the sdist, and test the public API of the installed wheel: `make wheel`.

Each Python from 3.11 on that this machine offers gets a virtual environment of its own, with the wheel and its base
dependencies only. `tests/package` runs there, copied to a folder outside the repository. Then it runs with all extras,
under the Python that runs this script: a `.pth` file lends it the development environment's packages, whose versions
constraints.txt pins. The wheel itself stands before them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEWEST_MINOR = 20  # python3.11 to python3.20 are looked for


def build(folder: Path) -> tuple[Path, Path]:
    """Build wheel and sdist into `folder`, check their metadata, and return (wheel, sdist)."""
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)])
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    _run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)])
    return wheel, sdist


def find_pythons() -> dict[str, str]:
    """Find one interpreter for each minor version from 3.11 on: the running one, those on the path, pyenv's."""
    found = {f"3.{sys.version_info.minor}": sys.executable}
    versions = sorted((Path.home() / ".pyenv" / "versions").glob("3.*"))
    for minor in range(11, NEWEST_MINOR + 1):
        places = [shutil.which(f"python3.{minor}")]
        places += [str(each / "bin" / "python") for each in versions if each.name.split(".")[1] == str(minor)]
        for place in places:
            if (
                place
                and Path(place).exists()
                and subprocess.run([place, "-c", ""], capture_output=True, check=False).returncode == 0
            ):
                found.setdefault(f"3.{minor}", place)
    return found


def check_installed(python: str, wheel: Path, folder: Path, *, lent: Path | None = None) -> None:
    """Install the wheel with its base dependencies, and run `tests/package` on it from outside the repository.

    `lent` is a folder of further packages that the environment may import. Raises `CalledProcessError` when the
    installation or a test fails.
    """
    environment = folder / "venv"
    _run([python, "-m", "venv", str(environment)])
    here = environment / "bin" / "python"
    pip = [str(here), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if lent is None:
        _run([*pip, "--constraint", str(ROOT / "constraints.txt"), str(wheel), "pytest"])
    else:
        _run([*pip, "--no-deps", str(wheel)])
        (site,) = (environment / "lib").glob("python*/site-packages")
        (site / "lent.pth").write_text(f"{lent}\n")
    copied = folder / "package"
    shutil.copytree(ROOT / "tests" / "package", copied, ignore=shutil.ignore_patterns("__pycache__"))
    (copied / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # a folder above may have settings of its own
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    kept |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "ECCOS_WHEEL_IS_INSTALLED": "1"}
    command = [str(here), "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", str(copied), str(copied)]
    _run(command, cwd=folder, env=kept)


def main() -> int:
    """Build, then test under each Python. Exits 1 at the first failure, after saying which command failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build-only", action="store_true", help="build and check, install nothing")
    build_only = parser.parse_args().build_only
    try:
        wheel, _ = build(ROOT / "dist")
        if build_only:
            return 0
        pythons = find_pythons()
        print(f"Pythons found: {', '.join(pythons)}")
        for version, python in pythons.items():
            with tempfile.TemporaryDirectory(prefix="eccos-wheel-") as folder:
                print(f"Python {version}, base dependencies", flush=True)
                check_installed(python, wheel, Path(folder))
        with tempfile.TemporaryDirectory(prefix="eccos-wheel-") as folder:
            print("all extras", flush=True)
            check_installed(sys.executable, wheel, Path(folder), lent=Path(sysconfig.get_paths()["purelib"]))
    except subprocess.CalledProcessError as error:
        print(f"failed: {' '.join(error.cmd)}", file=sys.stderr)
        return 1
    return 0


def _run(command: list[str], **options: object) -> None:
    subprocess.run(command, check=True, **options)  # type: ignore[call-overload]


if __name__ == "__main__":
    sys.exit(main())
