"""Run the test suites of other projects against eccos in place of their fakes: `make outside`.

    python -m tools.outside.run

Each suite comes from the project's sdist on PyPI, in the version that is installed here. It runs twice in an
environment that borrows the packages of this one: with the project's own fakes, then with ours. A test that passes with
theirs and fails with ours is a difference. `differences.toml` names the known ones, each with its reason. Exits 1 for a
difference that is not named, and for a name that is no difference any more. Needs a package index.

langgraph-prebuilt has a suite too. It compares whole messages, ids and metadata included, so it says nothing here.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path

from tools.lent_environment import ROOT, make_lent_environment, offline_environment

DIFFERENCES = Path(__file__).with_name("differences.toml")


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests of one distribution: where they are in its sdist, and what they need beside it."""

    distribution: str
    tests: str
    packages: tuple[str, ...] = ()


SUITES = (
    Suite(
        "langchain",
        "tests/unit_tests/agents",
        ("blockbuster", "langchain-openai", "pytest-mock", "syrupy", "toml", "vcrpy"),
    ),
)
WITHOUT_TESTS = ("llama-index-core",)  # looked at each time: a later sdist may have some


def fetch_sdist(distribution: str, folder: Path) -> Path:
    """Download and unpack the sdist of the installed version. Return its root folder."""
    wanted = f"{distribution}=={version(distribution)}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    _run([*pip, "--no-build-isolation", "--dest", str(folder), wanted])
    (archive,) = folder.glob(f"{distribution.replace('-', '_')}-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def run_suite(python: Path, root: Path, suite: Suite, *, ours: bool) -> dict[str, bool | None]:
    """Run the tests in `root`. Return for each whether it passed, None for a skipped one."""
    report = root / f"report-{'ours' if ours else 'theirs'}.xml"
    environment = offline_environment()
    environment["PYTHONPATH"] = f"{ROOT}:{root}" if ours else str(root)
    plugin = ["-p", "tools.outside.langchain_fakes"] if ours else []
    command = [str(python), "-m", "pytest", "-q", "--disable-socket", "--allow-unix-socket", "--timeout", "60"]
    done = subprocess.run(
        [*command, *plugin, f"--junitxml={report}", suite.tests],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if not report.exists():
        raise SystemExit(f"{suite.distribution}: the tests did not run.\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return read_report(report)


def read_report(report: Path) -> dict[str, bool | None]:
    """Return the result of each test of a JUnit report, by `class::name`."""
    results: dict[str, bool | None] = {}
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('tests.unit_tests.')}::{case.get('name')}"
        failed = case.find("failure") is not None or case.find("error") is not None
        results[name] = None if case.find("skipped") is not None else not failed
    return results


def find_reason(name: str, known: Mapping[str, Sequence[str]]) -> str | None:
    """Return why a test is known to differ."""
    return next((reason for reason, names in known.items() if any(fnmatchcase(name, each) for each in names)), None)


def compare(suite: Suite, theirs: Mapping[str, bool | None], ours: Mapping[str, bool | None]) -> bool:
    """Print passes and differences by name. Return whether every difference is known, and every known one is there."""
    known: dict[str, dict[str, list[str]]] = tomllib.loads(DIFFERENCES.read_text())[suite.distribution]
    failed = [name for name, passed in ours.items() if passed is False]
    differences = {
        name: find_reason(name, {**known["always"], **known["sometimes"]}) for name in failed if theirs.get(name)
    }
    print(f"\n{suite.distribution} {version(suite.distribution)}, {suite.tests}")
    print(f"  {sum(passed is True for passed in ours.values())} of {len(ours)} tests pass with eccos, ", end="")
    print(f"{sum(passed is True for passed in theirs.values())} with the project's own fakes")
    print(f"  {len(failed) - len(differences)} fail with both")
    for name, reason in sorted(differences.items()):
        print(f"  {'differs' if reason else 'NOT KNOWN'}: {name}" + (f"\n      {reason}" if reason else ""))
    expected = [each for names in known["always"].values() for each in names]
    gone = [each for each in expected if not any(fnmatchcase(name, each) for name in failed)]
    for each in gone:
        print(f"  NO DIFFERENCE ANY MORE: {each}. Take it out of {DIFFERENCES.name}.")
    return not gone and all(differences.values())


def main() -> int:
    """Run all suites. Exits 1 when a difference is not known."""
    good = True
    with tempfile.TemporaryDirectory(prefix="eccos-outside-") as folder:
        packages = sorted({package for suite in SUITES for package in suite.packages})
        python = make_lent_environment(Path(folder) / "venv", packages)
        for suite in SUITES:
            root = fetch_sdist(suite.distribution, Path(folder))
            results = [run_suite(python, root, suite, ours=ours) for ours in (False, True)]
            good = compare(suite, *results) and good
        for distribution in WITHOUT_TESTS:
            root = fetch_sdist(distribution, Path(folder))
            found = len([path for path in root.rglob("test_*.py") if "tests" in path.parts])
            print(f"\n{distribution} {version(distribution)}: its sdist has {found} tests, so there is nothing to run.")
            good = good and found == 0
    return 0 if good else 1


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
