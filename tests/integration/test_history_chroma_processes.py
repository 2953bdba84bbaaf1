"""The Chroma history across processes: a writer that is killed, and servers that refuse or are not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from history_tables import persistent, questions, same

from eccos_core.encoders import SurfaceEncoder
from eccos_core.errors import HistoryError
from eccos_core.history import ChromaHistory, MemoryHistory
from eccos_core.history.ingest import ingest
from eccos_core.io.outcomes import write_outcomes


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9"),
        ("127.0.0.1:8000", "Write http://host:port"),
        ("http://", "Write http://host:port"),
        ("http://host:port", "history server is not valid: Port"),
    ],
)
def test_a_server_that_is_not_there_is_a_history_error(url: str, said: str) -> None:
    with pytest.raises(HistoryError) as caught:
        ChromaHistory.server(url, "e", 18)
    assert said in str(caught.value)


def test_a_password_in_the_address_is_never_shown() -> None:
    with pytest.raises(HistoryError) as caught:
        ChromaHistory.server("http://ann:hunter2@127.0.0.1:9", "e", 18)
    assert "hunter2" not in str(caught.value)


_INGEST = """
    import json, sys
    from pathlib import Path
    import eccos_core.history.ingest as ingesting
    from eccos_core.encoders import SurfaceEncoder
    from eccos_core.history import ChromaHistory

    ingesting.QUESTIONS_PER_STEP = 100
    store = ChromaHistory.persistent(sys.argv[1], "surface:v1", 18)
    report = ingesting.ingest(
        sys.argv[2], store, SurfaceEncoder(), progress=lambda done, total: print(done, total, flush=True)
    )
    print(json.dumps([report.questions, report.outcomes, report.new]))
"""


def _ingesting(folder: Path, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(_INGEST), str(folder), str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("steps", [1, 6])
def test_kill_9_in_the_middle_of_ingestion_loses_nothing_acknowledged(tmp_path: Path, steps: int) -> None:
    table = questions(2000)
    path = tmp_path / "o.jsonl"
    write_outcomes(path, table)
    folder = tmp_path / "history"

    process = _ingesting(folder, path)
    assert process.stdout is not None
    done = 0
    for _ in range(steps):
        done = int(process.stdout.readline().split()[0])
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert 0 < done < len(table), "it was killed half way"

    survivor = persistent(tmp_path)
    found, _ = survivor.table()
    assert set(table.queries[:done]) <= set(found.queries)
    row = {query: i for i, query in enumerate(found.queries)}
    for i in range(done):
        for j, model in enumerate(table.models):
            assert found.quality[row[table.queries[i]], found.models.index(model)] == table.quality[i, j]
    known = int((~np.isnan(found.quality)).sum())
    survivor.close()

    again = _ingesting(folder, path)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0
    assert json.loads(output.splitlines()[-1]) == [2000, 4000, 4000 - known]

    whole = persistent(tmp_path)
    undisturbed = MemoryHistory("surface:v1", 18)
    ingest(table, undisturbed, SurfaceEncoder())
    same(whole.table(), undisturbed.table())
    asked = SurfaceEncoder().encode(table.queries[::97])
    found_now, expected = whole.nearest(asked, 3), undisturbed.nearest(asked, 3)
    agree = np.isclose(found_now.similarity, expected.similarity, atol=1e-5)
    assert agree[:, 0].all()
    assert agree.mean() > 0.95, "HNSW is approximate among the many texts here that look alike"


def test_headers_of_a_server_are_sent_with_every_call() -> None:
    import http.server
    import threading

    from eccos_core.errors import HistoryError
    from eccos_core.history import ChromaHistory

    seen: list[str | None] = []

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("X-Chroma-Token"))
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(HistoryError) as caught:
            ChromaHistory.server(url, "encoder", 2, headers={"X-Chroma-Token": "s3cret"})
        server.shutdown()
    assert set(seen) == {"s3cret"}
    assert "s3cret" not in str(caught.value)
