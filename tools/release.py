"""Build, check and tag a release: `make release`. Nothing is uploaded.

A release is the wheel and the sdist of eccos, and those of the packages in `eccos_integrations/*/packages`, which have
the same version. A tree with changes is refused, and so is a version that has its tag already. The version is
`eccos_core.__version__`.
`--dry-run` does everything but the tag.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)


def read_version(root: Path) -> str:
    """Read the version from the one place where it stands."""
    found = VERSION.search((root / "eccos_core" / "__init__.py").read_text(encoding="utf-8"))
    if found is None:
        raise SystemExit('eccos_core/__init__.py has no line __version__ = "...". Write one.')
    return found[1]


def find_other_versions(root: Path) -> list[str]:
    """Find the packages whose version or requirement of eccos is not that of eccos: one line for each."""
    version, found = read_version(root), []
    for file in sorted(root.glob("eccos_integrations/*/packages/*/pyproject.toml")):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        if project["version"] != version:
            found.append(f"{project['name']} has version {project['version']}, must be {version}")
        if not any(each.startswith("eccos[") and each.endswith(f">={version}") for each in project["dependencies"]):
            found.append(f"{project['name']} must need eccos[...]>={version}")
    return found


def git(*arguments: str) -> str:
    """Run git in the repository and return what it printed."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    """Refuse, or build, check and tag. Exits 1 with the reason."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="do everything but the tag")
    dry_run = parser.parse_args().dry_run
    tag = f"v{read_version(ROOT)}"
    changed = git("status", "--porcelain")
    if changed:
        print(f"The tree has changes. Commit or remove them, then release.\n{changed}", file=sys.stderr)
        return 1
    if others := find_other_versions(ROOT):
        print("\n".join(["The packages go with eccos:", *others]), file=sys.stderr)
        return 1
    if git("tag", "--list", tag):
        print(f"{tag} is tagged already. Raise __version__ in eccos_core/__init__.py.", file=sys.stderr)
        return 1
    built = subprocess.run([sys.executable, str(ROOT / "tools" / "check_wheel.py"), "--build-only"], check=False)
    if built.returncode != 0:
        return 1
    if dry_run:
        print(f"dry run: {tag} is not tagged")
        return 0
    git("tag", "--annotate", tag, "--message", f"eccos {tag}")
    print(f"tagged {tag}. Push it with: git push origin {tag}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
