"""The machinery that keeps our habits: hooks, the release, large files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent


def test_every_hook_of_pre_commit_is_local_and_its_command_exists() -> None:
    told = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repository in told["repos"] for hook in repository["hooks"]]
    assert {repository["repo"] for repository in told["repos"]} == {"local"}
    assert {hook["id"] for hook in hooks} == {"ruff", "ruff-format", "mypy", "prose", "large-files"}
    for hook in hooks:
        command, *arguments = hook["entry"].split()
        assert hook["language"] == "system"
        assert (Path(sys.executable).parent / Path(command).name).exists(), command
        for script in arguments:
            assert not script.startswith("tools/") or (ROOT / script).is_file(), script


def test_make_test_runs_every_folder_of_tests_once() -> None:
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    named = [line.partition(":= ")[2].split() for line in lines if line.startswith(("IN_PROCESS ", "WITH_PROCESSES "))]
    folders = {str(file.parent.relative_to(ROOT)) for file in (ROOT / "tests").rglob("test_*.py")}
    assert len(named) == 2
    assert sorted(named[0] + named[1]) == sorted({"/".join(folder.split("/")[:2]) for folder in folders})


def test_a_large_file_is_refused_and_named(tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_bytes(b"x")
    (tmp_path / "large.bin").write_bytes(b"x" * 1_000_001)
    script = str(ROOT / "tools" / "refuse_large_files.py")
    names = [str(tmp_path / "small.txt"), str(tmp_path / "large.bin")]
    done = subprocess.run([sys.executable, script, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "large.bin" in done.stderr
    assert "small.txt" not in done.stderr


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with what a release reads, committed, whose build only notes that it ran."""
    folder = tmp_path / "clone"
    for name in ("tools/release.py", "eccos_core/__init__.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "tools" / "check_wheel.py").write_text("print('built and checked')\n")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "Begin"]):
        _git(folder, *command)
    return folder


def _git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def _release(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / "tools" / "release.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_release_refuses_a_tree_with_changes(clone: Path) -> None:
    (clone / "new.txt").write_text("new")
    done = _release(clone, "--dry-run")
    assert done.returncode == 1
    assert "The tree has changes" in done.stderr
    assert "new.txt" in done.stderr
    assert "built" not in done.stdout


def test_a_dry_run_builds_and_tags_nothing(clone: Path) -> None:
    done = _release(clone, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "built and checked" in done.stdout
    assert _git(clone, "tag") == ""


def test_a_version_with_its_tag_is_refused(clone: Path) -> None:
    import eccos_core

    _git(clone, "tag", f"v{eccos_core.__version__}")
    done = _release(clone)
    assert done.returncode == 1
    assert "tagged already" in done.stderr


def test_a_build_that_fails_is_not_tagged(clone: Path) -> None:
    (clone / "tools" / "check_wheel.py").write_text("raise SystemExit(1)\n")
    _git(clone, "commit", "-q", "-a", "-m", "Break")
    assert _release(clone).returncode == 1
    assert _git(clone, "tag") == ""


def test_a_clean_tree_is_built_and_tagged(clone: Path) -> None:
    import eccos_core

    _git(clone, "config", "user.name", "Ann")
    _git(clone, "config", "user.email", "ann@example.org")
    done = _release(clone)
    assert done.returncode == 0, done.stderr
    assert _git(clone, "tag").split() == [f"v{eccos_core.__version__}"]
