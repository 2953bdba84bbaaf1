"""Tests reach nothing beyond this machine, and the tests of units open no socket."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_socket

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent

CONNECT = """
import socket

import pytest
import pytest_socket


def test_the_network_is_closed() -> None:
    with pytest.raises((pytest_socket.SocketBlockedError, pytest_socket.SocketConnectBlockedError)):
        socket.create_connection(("192.0.2.1", 80), timeout=0.5)
"""
LOOPBACK = """
import socket


def test_a_server_on_this_machine_is_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
"""
NEEDS_DATA = """
import pytest


@pytest.mark.data
def test_that_reads_shared_data() -> None:
    raise AssertionError("this ran without its data")
"""


FOLDERS = (".", "architecture", "contract", "integration", "property", "unit")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest reports of these tests in each folder of a suite that has our conftest and settings, but no data."""
    project = tmp_path_factory.mktemp("suite") / "project"
    for folder in FOLDERS:
        place = project / "tests" / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, source in (("connect", CONNECT), ("loopback", LOOPBACK), ("data", NEEDS_DATA)):
            (place / f"test_{name}.py").write_text(source)
    shutil.copy(ROOT / "pyproject.toml", project)
    shutil.copy(TESTS / "conftest.py", project / "tests")
    plugins = [word for name in ("pytest_socket", "pytest_asyncio.plugin", "pytest_timeout") for word in ("-p", name)]
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *plugins, "tests"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE_", "PYTEST_"))}
    kept |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "200"}
    return subprocess.run(
        command, cwd=project, env=kept, capture_output=True, text=True, timeout=200, check=False
    ).stdout


def path_of(folder: str, name: str) -> str:
    """Where a test of the suite lies."""
    return f"tests/test_{name}.py" if folder == "." else f"tests/{folder}/test_{name}.py"


def result(reported: str, folder: str, name: str) -> str:
    """The word that pytest prints behind a test."""
    path = path_of(folder, name)
    (word,) = re.findall(rf"^{re.escape(path)}::\S+ (PASSED|FAILED|SKIPPED)", reported, re.MULTILINE)
    return str(word)


def test_a_unit_test_opens_no_socket() -> None:
    with pytest.warns(UserWarning, match="tried to use socket"), pytest.raises(pytest_socket.SocketBlockedError):
        socket.socket(socket.AF_INET)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_folder_of_tests_reaches_the_network(folder: str, reported: str) -> None:
    assert result(reported, folder, "connect") == "PASSED", reported


@pytest.mark.parametrize("folder", FOLDERS)
def test_only_tests_of_the_whole_reach_a_server_on_this_machine(folder: str, reported: str) -> None:
    expected = "FAILED" if folder in ("architecture", "property", "unit") else "PASSED"
    assert result(reported, folder, "loopback") == expected, reported


@pytest.mark.parametrize("folder", FOLDERS)
def test_tests_of_data_that_is_not_here_are_skipped_by_name(folder: str, reported: str) -> None:
    assert result(reported, folder, "data") == "SKIPPED", reported
    assert re.search(rf"SKIPPED \[1\] {path_of(folder, 'data')}:\d+: needs \S+/shared/data, which", reported), reported
