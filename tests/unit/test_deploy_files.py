"""The files for containers: they parse, what they copy exists, and the command in them is one that eccos has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, with lines that go on joined."""
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def test_the_dockerfile_has_known_instructions_and_ends_as_a_user() -> None:
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "CMD"}
    names = [name for name, _ in instructions()]
    assert set(names) <= known
    assert names[0] == "FROM"
    assert [rest for name, rest in instructions() if name == "USER"] == ["eccos"]
    assert all(":" in rest for name, rest in instructions() if name == "FROM")  # no image without a version


def test_what_the_dockerfile_copies_exists() -> None:
    copied = [rest.split() for name, rest in instructions() if name == "COPY"]
    sources = [source for words in copied if not words[0].startswith("--from") for source in words[:-1]]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_the_command_of_the_dockerfile_is_one_that_eccos_has() -> None:
    (command,) = [json.loads(rest) for name, rest in instructions() if name == "CMD"]
    assert command[:2] == ["eccos", "serve"]
    told = subprocess.run(
        [sys.executable, "-m", "eccos_core.cli", "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200", "PATH": "", "PYTHONPATH": str(ROOT)},
    ).stdout
    for word in command[2:]:
        if word.startswith("-"):
            assert word in told
    (health,) = [rest for name, rest in instructions() if name == "HEALTHCHECK"]
    assert "/ready" in health


@pytest.mark.parametrize("name", ["compose.yaml", "compose.shared.yaml"])
def test_the_compose_files_parse(name: str) -> None:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    assert "eccos" in content["services"]
    assert set(content) <= {"services", "volumes"}
    for service in content["services"].values():
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()
        for other in service.get("depends_on", {}):
            assert other in content["services"]


def test_without_keys_nothing_is_published_beyond_this_machine() -> None:
    content = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert content["services"]["eccos"]["ports"] == ["127.0.0.1:8484:8484"]
