"""Build the wheel and the sdist, and test the public API of the installed wheel: `make wheel`.

The packages of `eccos_integrations/*/packages` are distributions of their own. Each is built beside the main one, and
imported from an environment into which it was installed.

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
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEWEST_MINOR = 20  # python3.11 to python3.20 are looked for


def find_packages() -> list[Path]:
    """Find the folders of the distributions that only re-export an integration."""
    return sorted(each.parent for each in ROOT.glob("eccos_integrations/*/packages/*/pyproject.toml"))


def build(folder: Path, source: Path = ROOT) -> tuple[Path, Path]:
    """Build the wheel and the sdist of `source` into `folder`, check their metadata, and return (wheel, sdist)."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as made:
        _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", made, str(source)])
        (wheel,), (sdist,) = Path(made).glob("*.whl"), Path(made).glob("*.tar.gz")
        _run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)])
        return wheel.replace(folder / wheel.name), sdist.replace(folder / sdist.name)


def find_module(wheel: Path) -> str:
    """Return the name that you import from a wheel with one package: the shallowest folder with an `__init__.py`."""
    with zipfile.ZipFile(wheel) as opened:
        homes = [Path(name).parent for name in opened.namelist() if name.endswith("/__init__.py")]
    return ".".join(min(homes, key=lambda home: len(home.parts)).parts)


def check_packages(wheels: Sequence[Path], folder: Path) -> None:
    """Install wheels into one fresh environment without their dependencies, and import each one's names from there.

    A `.pth` file lends the environment what they need. Raises `CalledProcessError` when one cannot be installed or
    imported, or comes from elsewhere.
    """
    _run([sys.executable, "-m", "venv", str(folder)])
    here = folder / "bin" / "python"
    _run([str(here), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", *map(str, wheels)])
    _lend_packages(folder)
    for wheel in wheels:
        module = find_module(wheel)
        code = (
            f"import {module} as package, sys\n"
            "assert package.__file__.startswith(sys.prefix), package.__file__\n"
            "assert all(getattr(package, name) for name in package.__all__)\n"
        )
        _run([str(here), "-c", code], cwd=folder, env=_clean_environment())


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


def check_installed(python: str, wheel: Path, folder: Path, *, lend: bool = False) -> None:
    """Install the wheel with its base dependencies, and run `tests/package` on it from outside the repository.

    With `lend`, it is installed alone, and a `.pth` file lends it all packages of this environment. Raises
    `CalledProcessError` when the installation or a test fails.
    """
    environment = folder / "venv"
    _run([python, "-m", "venv", str(environment)])
    here = environment / "bin" / "python"
    pip = [str(here), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if not lend:
        _run([*pip, "--constraint", str(ROOT / "constraints.txt"), str(wheel), "pytest"])
    else:
        _run([*pip, "--no-deps", str(wheel)])
        _lend_packages(environment)
    copied = folder / "package"
    shutil.copytree(ROOT / "tests" / "package", copied, ignore=shutil.ignore_patterns("__pycache__"))
    (copied / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # a folder above may have settings of its own
    kept = _clean_environment() | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "ECCOS_WHEEL_IS_INSTALLED": "1"}
    command = [str(here), "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", str(copied), str(copied)]
    _run(command, cwd=folder, env=kept)


def main() -> int:
    """Build, then test under each Python. Exits 1 at the first failure, after saying which command failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build-only", action="store_true", help="build, check and import, and run no test")
    build_only = parser.parse_args().build_only
    try:
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
        wheel, _ = build(ROOT / "dist")
        packages = [build(ROOT / "dist", each)[0] for each in find_packages()]
        with tempfile.TemporaryDirectory(prefix="eccos-wheel-") as folder:
            check_packages([wheel, *packages], Path(folder))
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
            check_installed(sys.executable, wheel, Path(folder), lend=True)
    except subprocess.CalledProcessError as error:
        print(f"failed: {' '.join(error.cmd)}", file=sys.stderr)
        return 1
    return 0


def _lend_packages(environment: Path) -> None:
    (site,) = (environment / "lib").glob("python*/site-packages")
    (site / "lent.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def _run(command: list[str], **options: object) -> None:
    subprocess.run(command, check=True, **options)  # type: ignore[call-overload]


if __name__ == "__main__":
    sys.exit(main())
