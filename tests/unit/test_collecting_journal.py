"""The journal: what is written stays, torn lines go, one process at a time."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.collecting.journal import (
    AnswerEntry,
    CallStartedEntry,
    Entry,
    FailedAttemptEntry,
    FailureEntry,
    GradeEntry,
    Journal,
    VerdictEntry,
    read_journal,
    replay_journal,
)
from eccos_core.errors import DataError, InputError

ENTRIES: list[Entry] = [
    CallStartedEntry("q1", "m", "answer", 0.5),
    AnswerEntry("q1", "m", "d", 'tricky\n"text" \u2028 é', 3, 4, 0.1, 0.2, "stop"),
    CallStartedEntry("q2", "m", "answer", 0.5),
    FailureEntry("q2", "m", "d", "timeout", "too slow", 0.5),
    GradeEntry("q1", "m", 1.0),
    VerdictEntry("q1", "m", "Score: 3", 10, 2, 0.25, 0.1),
    GradeEntry("q1", "m", None, 0.25, "the judge gave no score", "42"),
    AnswerEntry("q1", "m", "d", "42", 3, 4, 0.1, 0.2, "stop", {"mean_logprob": -0.5}),
]


async def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "l.jsonl")
    for entry in ENTRIES:
        await journal.append(entry)
    journal.close()
    assert read_journal(tmp_path / "l.jsonl") == ENTRIES


async def test_entries_queued_but_not_awaited_are_on_the_disk_after_close(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "l.jsonl")
    for entry in ENTRIES:
        journal.append(entry)
    journal.close()
    assert read_journal(tmp_path / "l.jsonl") == ENTRIES


async def test_many_appends_at_once_keep_every_line_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "l.jsonl")
    grades = [GradeEntry(f"q{number}", "m" * (number % 50 + 1), 0.5) for number in range(500)]

    async def one(grade: GradeEntry) -> None:
        journal.write_unsynced(CallStartedEntry(grade.id, grade.model, "answer", 0.0))
        await journal.append(grade)

    await asyncio.gather(*(one(grade) for grade in grades))
    journal.close()
    entries = read_journal(tmp_path / "l.jsonl")
    assert [entry for entry in entries if isinstance(entry, GradeEntry)] == grades
    assert len(entries) == 1000


@given(cut=st.integers(1, 400))
def test_a_torn_last_line_is_dropped_and_the_rest_is_read(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("journal") / "l.jsonl"
    asyncio.run(_write(path, ENTRIES))
    content = path.read_bytes()
    torn = content[: max(0, len(content) - cut)]
    path.write_bytes(torn)
    whole = torn.count(b"\n")
    assert read_journal(path) == ENTRIES[:whole]
    asyncio.run(_write(path, [ENTRIES[0]]))
    assert read_journal(path) == [*ENTRIES[:whole], ENTRIES[0]]


async def _write(path: Path, entries: list[Entry]) -> None:
    journal = Journal(path)
    for entry in entries:
        await journal.append(entry)
    journal.close()


def test_a_line_that_is_no_entry_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    for line in ('{"kind": "call_started", "id": "q"}', '{"kind": "vote", "id": "q"}', '{"id": "q"}', "nonsense"):
        path.write_text(
            f'{{"kind": "grade", "id": "q", "model": "m", "score": 1, "cost_usd": 0, "error": ""}}\n{line}\n'
        )
        with pytest.raises(DataError, match=r"l\.jsonl:2: "):
            read_journal(path)


def test_a_second_process_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    first = Journal(path)
    with pytest.raises(InputError, match="another `eccos collect` is writing it"):
        Journal(path)
    first.close()
    Journal(path).close()


async def test_a_full_disk_is_an_error_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "l.jsonl")
    await journal.append(ENTRIES[0])
    real_write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) > 20:
            return real_write(descriptor, bytes(data)[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(InputError, match="No space left on device"):
        await journal.append(ENTRIES[1])
    monkeypatch.setattr(os, "write", real_write)
    await journal.append(ENTRIES[4])
    journal.close()
    assert read_journal(tmp_path / "l.jsonl") == [ENTRIES[0], ENTRIES[4]]


def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Journal(tmp_path / "file" / "l.jsonl")


def test_calls_without_a_reply_were_in_flight_and_may_have_been_billed() -> None:
    contents = replay_journal(
        [
            CallStartedEntry("q1", "m", "answer", 0.5),
            CallStartedEntry("q1", "other", "answer", 0.25),
            CallStartedEntry("q2", "m", "answer", 0.125),
            AnswerEntry("q1", "m", "d", "x", 1, 1, 0.01, 0.1),
            CallStartedEntry("q1", "m", "grade", 1.0),
            VerdictEntry("q1", "m", "Score: 10", 10, 2, 0.02, 0.1),
            GradeEntry("q1", "m", 1.0, 0.02),
            FailureEntry("q2", "m", "d", "timeout", "slow", 0.125),
        ]
    )
    assert contents.in_flight == 1
    assert contents.usd_at_risk == 0.25 + 0.125
    assert contents.grading_usd == 0.02
    assert set(contents.answers) == {("q1", "m")}
    assert set(contents.failures) == {("q2", "m")}


def test_an_answer_after_a_failure_replaces_it_and_an_earlier_grade() -> None:
    answer = AnswerEntry("q", "m", "d", "x", 1, 1, 0.01, 0.1)
    contents = replay_journal([FailureEntry("q", "m", "d", "timeout", "slow"), answer])
    assert contents.failures == {}
    assert contents.answers == {("q", "m"): answer}


def test_a_verdict_waits_for_its_grade_and_a_failed_attempt_is_no_longer_in_flight() -> None:
    verdict = VerdictEntry("q", "m", "Score: 3", 10, 2, 0.02, 0.1)
    started = CallStartedEntry("q", "m", "grade", 1.0)
    contents = replay_journal([started, FailedAttemptEntry("q", "m", "grade"), started, verdict])
    assert (contents.in_flight, contents.usd_at_risk, contents.verdicts) == (0, 0.0, {("q", "m"): verdict})
    assert replay_journal([verdict, GradeEntry("q", "m", 0.3, 0.02)]).verdicts == {}
