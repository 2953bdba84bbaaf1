import contextlib
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from decision_logs import answered, decided

from eccos_core.decision_log import DecisionLog, sqlite
from eccos_core.errors import UnknownDecisionError

SUPPORT = str(Path(__file__).parents[1] / "support")


@pytest.fixture
def log(tmp_path: Path):  # type: ignore[no-untyped-def]
    log = DecisionLog(tmp_path / "deep" / "decisions.sqlite")
    yield log
    log.close()


def test_the_probability_of_a_choice_is_kept(log: DecisionLog) -> None:
    log.add_decision(replace(decided("d1"), decision=replace(decided("d1").decision, propensity=0.125)))
    log.add_decision(decided("d2"))
    assert log.flush()
    assert {each.id: each.propensity for each in log.entries()} == {"d1": 0.125, "d2": 1.0}


def test_a_log_of_an_older_version_is_read_and_continued(tmp_path: Path) -> None:
    path = tmp_path / "decisions.sqlite"
    old = DecisionLog(path)
    old.add_decision(decided("before"))
    old.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE decisions DROP COLUMN propensity")
    log = DecisionLog(path)
    assert [each.propensity for each in log.entries()] == [1.0]
    log.add_decision(replace(decided("after"), decision=replace(decided("after").decision, propensity=0.5)))
    assert log.label("before", 0.75).propensity == 1.0
    log.close()
    assert {each.id: (each.propensity, each.label) for each in log.entries()} == {
        "before": (1.0, 0.75),
        "after": (0.5, None),
    }


def test_text_is_kept_only_when_asked_for(tmp_path: Path) -> None:
    for log_prompts, expected in ((False, None), (True, "what is the secret?")):
        path = tmp_path / f"{log_prompts}.sqlite"
        log = DecisionLog(path, log_prompts=log_prompts)
        log.add_decision(decided("d"))
        log.close()
        found = log.get("d")
        assert found is not None
        assert found.text == expected
        assert (b"secret" in path.read_bytes()) is log_prompts


def test_a_label_can_be_given_once_or_again(log: DecisionLog) -> None:
    log.add_decision(decided("d1"))
    log.label("d1", 1.0)
    log.label("d1", 0.25)
    found = log.get("d1")
    assert found is not None
    assert found.label == 0.25
    with pytest.raises(UnknownDecisionError, match="'d2'"):
        log.label("d2", 1.0)


def test_a_broken_disk_is_reported_once_and_nothing_blocks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("not a folder")
    log = DecisionLog(tmp_path / "file" / "decisions.sqlite")
    with caplog.at_level(logging.ERROR, logger="eccos.decision_log"):
        for i in range(3):
            log.add_decision(decided(f"d{i}"))
            log.flush()
    assert log.problem is not None
    assert log.dropped == 3
    assert len(caplog.records) == 1
    log.close()


def test_a_damaged_file_is_reported_and_writing_goes_on_once_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "decisions.sqlite"
    path.write_bytes(b"this is no database" * 100)
    log = DecisionLog(path)
    log.add_decision(decided("lost"))
    log.flush()
    assert log.problem is not None
    path.unlink()
    log.add_decision(decided("kept"))
    log.flush()
    assert log.problem is None
    assert log.get("kept") is not None
    log.close()


FULL_DISK = """
import logging, resource, signal, sys
sys.path.insert(0, {tests!r})
from decision_logs import answered, decided
from eccos_core.decision_log import DecisionLog
logging.basicConfig()
log = DecisionLog({path!r})
log.add_decision(decided("before"))
assert log.flush()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))  # the disk is full
for group in range(3):
    log.add_decision(decided(f"lost {{group}}"))
    assert log.flush()
assert log.problem is not None and log.dropped == 3, (log.problem, log.dropped)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))  # there is room again
log.add_decision(decided("after"))
assert log.flush() and log.problem is None, log.problem
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_a_full_disk_is_reported_once_and_writing_goes_on_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "decisions.sqlite"
    script = FULL_DISK.format(tests=SUPPORT, path=str(path))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("decision log:") == 1
    assert {entry.id for entry in DecisionLog(path).entries()} == {"before", "after"}


def test_what_comes_after_the_end_is_counted_as_dropped(log: DecisionLog) -> None:
    log.close()
    log.add_decision(decided("too late"))
    assert log.flush()
    assert (log.dropped, log.get("too late")) == (1, None)


def test_a_killed_process_leaves_a_log_that_opens_with_everything_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "decisions.sqlite"
    script = f"""
import sys
sys.path.insert(0, {SUPPORT!r})
from decision_logs import decided
from eccos_core.decision_log import DecisionLog
log = DecisionLog({str(path)!r})
for i in range(10**6):
    log.add_decision(decided(f"d{{i}}"))
    if i % 50 == 0 and log.flush():
        print(i, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = -1
    deadline = time.monotonic() + 60
    while acknowledged < 500 and time.monotonic() < deadline:
        acknowledged = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    rest = process.stdout.read().split()
    acknowledged = int(rest[-1]) if rest else acknowledged
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kept = {row[0] for row in connection.execute("SELECT id FROM decisions")}
    assert acknowledged >= 500
    assert {f"d{i}" for i in range(acknowledged + 1)} <= kept


def test_rows_of_one_statement_are_found_by_their_key(log: DecisionLog) -> None:
    log.add_decision(decided("d1"))
    assert log.flush()
    statement = sqlite._UPDATE_COMPLETIONS.format(rows=f"({', '.join('?' * 9)})")
    with contextlib.closing(sqlite3.connect(log.path)) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", (None,) * 9)]
    assert any("SEARCH decisions USING" in step for step in plan), plan


def test_the_last_of_two_completions_in_a_group_stands(log: DecisionLog) -> None:
    log.add_decision(decided("d1"))
    log.add_completion(answered("d1", model="large"))
    log.add_completion(answered("d1", model="small"))
    assert log.find("d1").model == "small"


def test_a_process_that_ends_by_itself_has_written_everything(tmp_path: Path) -> None:
    path = tmp_path / "decisions.sqlite"
    script = f"""
import sys
sys.path.insert(0, {SUPPORT!r})
from decision_logs import decided
from eccos_core.decision_log import DecisionLog
DecisionLog({str(path)!r}).add_decision(decided("last words"))
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert DecisionLog(path).get("last words") is not None
