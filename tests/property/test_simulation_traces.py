"""What a trace says does not depend on the order of its rows, on zones, or on the format."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eccos_core.simulation.orders import ORDERS, arrange
from eccos_core.simulation.traces import read_trace

ROWS = st.lists(
    st.tuples(st.integers(0, 10**9), st.integers(0, 10**6)), min_size=1, max_size=30, unique_by=lambda r: r[0]
)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, zones=st.lists(st.integers(-12, 14), min_size=30, max_size=30), random=st.randoms())
def test_order_zone_and_format_change_nothing(rows: list[tuple[int, int]], zones: list[int], random) -> None:  # type: ignore[no-untyped-def]
    start = datetime(2023, 11, 16, tzinfo=UTC)
    moments = [start + timedelta(milliseconds=each) for each, _ in rows]
    lines = [
        f"{moment.astimezone(timezone(timedelta(hours=zone))).isoformat()},1,{size}"
        for moment, zone, (_, size) in zip(moments, zones, rows, strict=False)
    ]
    random.shuffle(lines)
    entries = [
        {"at": moment.timestamp(), "output_tokens": size} for moment, (_, size) in zip(moments, rows, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace"
        path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]))
        azure = read_trace(path)
        path.write_text("\n".join(map(json.dumps, entries)))
        logged = read_trace(path)
    ordered = sorted(rows)
    for trace in (azure, logged):
        assert trace.times_s == pytest.approx([(each - ordered[0][0]) / 1000 for each, _ in ordered], abs=1e-5)
        assert trace.size.tolist() == [size for _, size in ordered]
    if len(rows) > 1:
        assert azure.at_rate(7.0).per_second == pytest.approx(7.0)


@settings(max_examples=40, deadline=None)
@given(
    order=st.sampled_from(ORDERS),
    values=st.lists(st.tuples(*(st.floats(0, 1),) * 3), min_size=1, max_size=40),
    seed=st.integers(0, 99),
)
def test_every_order_brings_each_question_once(order, values, seed) -> None:  # type: ignore[no-untyped-def]
    quality, length, size = np.array(values).T
    found = arrange(order, quality, length, size, np.random.default_rng(seed))
    assert sorted(found.tolist()) == list(range(len(values)))
    if order == "length":  # (the larger the request, the longer the answer)
        by_size = length[found][np.argsort(size, kind="stable")]
        assert (np.diff(by_size) >= 0).all()
