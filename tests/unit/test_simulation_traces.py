"""Arrivals from traces: Azure's columns, Acme's, and the decision log of eccos."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest

from eccos_core.decision_log import CompletionEntry, DecisionEntry, DecisionLog
from eccos_core.domain import Completion, Decision
from eccos_core.errors import DataError, InputError
from eccos_core.simulation.traces import read_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:46.6805900,374,44
"""
ACME = """job_id,user,node_num,gpu_num,cpu_num,type,state,submit_time,start_time,end_time,duration,queue,gpu_time
5778432,u5907,1,8,128,Other,FAILED,2023-03-01 00:18:22+08:00,2023-03-01 00:18:54+08:00,,117,32,936.0
5778469,"u5907, again",1,0,128,Other,COMPLETED,2023-02-28 16:23:58+00:00,,,2693.5,13,21544.0
"""
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def write(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_azure_rows_are_sorted_and_their_size_is_the_generated_tokens(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, AZURE))
    assert (trace.format, trace.skipped) == ("azure", 0)
    assert trace.times_s == pytest.approx([0.0, 4.314579], abs=1e-5)
    assert trace.size.tolist() == [44, 109]


def test_acme_jobs_have_zones_and_gpu_seconds(tmp_path: Path) -> None:
    """Rows of Acme's README, one of them in another zone."""
    trace = read_trace(write(tmp_path, ACME))
    assert trace.format == "acme"
    assert trace.times_s.tolist() == [0.0, 336.0]
    assert trace.size.tolist() == [936.0, 0.0]
    assert "training jobs" in trace.describe()


def test_gzip_quotes_a_byte_order_mark_and_other_columns_change_nothing(tmp_path: Path) -> None:
    rows = ['"TIMESTAMP","note","GeneratedTokens","ContextTokens"']
    rows += [
        '"2023-11-16 18:15:50.9951690","two\nlines, ""quoted""","109","396"',
        "2023-11-16T18:15:46.680590,,44.0,374",
    ]
    packed = tmp_path / "trace.csv.gz"
    packed.write_bytes(gzip.compress(("\ufeff" + "\r\n".join(rows) + "\r\n").encode()))
    found, plain = read_trace(packed), read_trace(write(tmp_path, AZURE))
    assert found.times_s == pytest.approx(plain.times_s)
    assert found.size.tolist() == plain.size.tolist()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",396,109", ":4: column TIMESTAMP is empty. It must be a time"),
        ("yesterday,396,109", ":4: column TIMESTAMP is 'yesterday'. It must be a time"),
        ("2023-11-16 18:15:51+00:00,396,109", "which has a time zone, but earlier rows have none"),
        ("2023-11-16 18:15:51,396,", ":4: column GeneratedTokens is empty. It must be a whole number >= 0. Correct"),
        ("2023-11-16 18:15:51,396", ":4: column GeneratedTokens is empty"),
        ("2023-11-16 18:15:51,many,1", ":4: column ContextTokens is 'many'"),
        ("2023-11-16 18:15:51,-1,1", ":4: column ContextTokens is '-1'"),
        ("2023-11-16 18:15:51,1,nan", ":4: column GeneratedTokens is 'nan'"),
        ("2023-11-16 18:15:51,1,1.5", ":4: column GeneratedTokens is '1.5'. It must be a whole number >= 0. Corr"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_line_column_rule_and_way_out(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path, AZURE + row + "\n")
    with pytest.raises(DataError) as caught:
        read_trace(path)
    assert message in str(caught.value)
    assert "bad=skip" in str(caught.value)
    trace = read_trace(path, "skip")
    assert (len(trace), trace.skipped) == (2, 1)
    assert "1 bad rows left out" in trace.describe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns are of no known trace"),
        ("time,tokens\n1,2\n", "They are: time, tokens. Needed are azure: TIMESTAMP, ContextTokens, Generat"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "holds no requests"),
        (AZURE + '2023-11-16 18:15:51,"1,2', ":4: not CSV"),
        ('{"at": "now"}\n', ":1: `at` is the text"),
        ('{"at": true}\n', ":1: `at` is the truth value"),
        ('{"at": 1, "input_tokens": "7"}\n', "`input_tokens` is the text"),
        ('{"at": 1, "output_tokens": -1}\n', "`output_tokens` is the number -1"),
        ('[{"at": 1}, 3]', "entry 2 must be a JSON object"),
        ("[1", "not JSON"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_trace(write(tmp_path, text))
    assert message in str(caught.value)


def test_a_line_that_is_no_json_is_a_bad_row(tmp_path: Path) -> None:
    path = write(tmp_path, '{"at": 1}\n{"at": 2\n{"at": "3"}\n{"at": 4}\n', "log.jsonl")
    with pytest.raises(DataError, match=r"log\.jsonl:2: "):
        read_trace(path)
    trace = read_trace(path, "skip")
    assert (trace.times_s.tolist(), trace.skipped) == ([0.0, 3.0], 2)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_trace(tmp_path / "nothing.csv")
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(gzip.compress(AZURE.encode() * 200)[:60])
    with pytest.raises(DataError, match="gzip data is damaged"):
        read_trace(broken)
    latin = tmp_path / "latin.csv"
    latin.write_bytes(AZURE.encode() + "é".encode("latin-1") + b",1,1\n")
    with pytest.raises(DataError, match=r":4: not UTF-8"):
        read_trace(latin)
    foreign = tmp_path / "other.sqlite"
    foreign.write_bytes(b"SQLite format 3\x00 and then nothing of it")
    with pytest.raises(DataError, match="cannot be read as a decision log"):
        read_trace(foreign)


def logged(folder: Path) -> Path:
    path = folder / "decisions.sqlite"
    log = DecisionLog(path)
    for name, at in (("b", 107.5), ("a", 100.0), ("c", 110.0)):
        log.add_decision(
            DecisionEntry(
                Decision(
                    id=name, request_id="r", model="small", quality=0.8, quality_se=0.05, cost_usd=0.001,
                    runner_up="large", reason="because", usd_per_quality=0.02,
                ),
                text="?",
                vector=np.zeros(2, dtype=np.float32),
                input_tokens=7,
                forecast={"small": (0.8, 0.001)},
                at=at,
            )
        )  # fmt: skip
    log.add_completion(CompletionEntry("a", Completion("yes", "small", 9, 3, 0.002, 0.5)))
    log.add_completion(CompletionEntry("b", Completion("yes", "small", 9, 30, 0.002, 0.5)))
    assert log.flush()
    log.close()
    return path


def test_the_decision_log_is_read_from_its_store_from_json_and_from_json_lines(tmp_path: Path) -> None:
    entries = [
        {"at": 107.5, "output_tokens": 30},
        {"at": 100, "output_tokens": 3},
        {"at": 110.0, "output_tokens": None},
    ]
    files = [
        logged(tmp_path),
        write(tmp_path, json.dumps(entries, indent=2), "log.json"),
        write(tmp_path, "\n".join(map(json.dumps, entries)), "log.jsonl"),
    ]
    before = files[0].read_bytes()
    for path in files:
        trace = read_trace(path)
        assert trace.format == "decision log"
        assert trace.times_s.tolist() == [0.0, 7.5, 10.0]
        assert trace.size[:2].tolist() == [3, 30]
        assert math.isnan(trace.size[2])
    assert files[0].read_bytes() == before


def test_a_trace_is_played_faster_or_at_a_rate(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, json.dumps([{"at": at} for at in (0, 1, 5, 10)]), "log.json"))
    assert trace.per_second == pytest.approx(0.3)
    assert trace.at_speed(2).times_s.tolist() == [0, 0.5, 2.5, 5]
    assert trace.at_rate(3).times_s == pytest.approx([0, 0.1, 0.5, 1.0])
    assert trace.first(2).times_s.tolist() == [0, 1]
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="must be a finite number > 0"):
            trace.at_speed(wrong)
        with pytest.raises(InputError, match="must be a finite number > 0"):
            trace.at_rate(wrong)
    with pytest.raises(InputError, match="the trace has 4 requests"):
        trace.first(5)
    with pytest.raises(InputError, match="all come at the same moment"):
        trace.first(1).at_rate(2)


@pytest.mark.parametrize(("name", "requests"), [("code", 8819), ("conv", 19366)])
def test_azures_traces_are_read_whole(name: str, requests: int) -> None:
    path = SHARED / f"azure_llm_trace_{name}.csv.gz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    trace = read_trace(path)
    assert len(trace) == requests
    assert (np.diff(trace.times_s) >= 0).all()
    assert trace.times_s[-1] == pytest.approx(3500, rel=0.05)
    assert np.isfinite(trace.size).all()
