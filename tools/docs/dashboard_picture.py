"""Take the picture of the dashboard: `python -m tools.docs.dashboard_picture` writes docs/images/dashboard.png.

It serves the pocket pool with plans, asks it held-out questions over HTTP, labels half of the answers by their answer
key, and opens `/ui` in headless Chromium. Every number in the picture is of that run.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from starlette.types import ASGIApp

from eccos_core.decision_log import DecisionLog
from eccos_core.io.outcomes import read_outcomes, split
from eccos_core.pocket import plans_config_path, pocket_predictor_path, pool_history_path
from eccos_core.router import Router
from eccos_core.server.app import build_app
from eccos_core.workflows.demo import grade_answer, read_answer_key
from tools.docs.chromium import open_browser

PICTURE = Path("docs/images/dashboard.png")
QUESTIONS, WIDTH, HEIGHT = 300, 1280, 1660


@dataclass(frozen=True, slots=True)
class ServedRun:
    """A server that has answered questions: its address without a slash at the end, and its decision log."""

    address: str
    log: DecisionLog


@contextmanager
def serve_app(app: ASGIApp) -> Iterator[str]:
    """Serve an application on a free port of this machine, and yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def served_run(folder: Path, questions: int = QUESTIONS) -> Iterator[ServedRun]:
    """Serve the pocket pool with a decision log in `folder`, and ask it held-out questions over HTTP."""
    text = plans_config_path().read_text()
    for name, path in (("history.jsonl.gz", pool_history_path()), ("artifact: predictor", pocket_predictor_path())):
        text = text.replace(name, f"artifact: {path}" if name.startswith("artifact") else str(path))
    config = folder / "eccos.yaml"
    config.write_text(text.replace("decision_log: off", f"decision_log: {{path: {folder / 'decisions.sqlite'}}}"))
    _, held_out = split(read_outcomes(pool_history_path()))
    answer_key = read_answer_key()
    with Router.from_yaml(config) as router, serve_app(build_app(router)) as address:
        with httpx.Client(base_url=address, timeout=60) as client:
            for row in range(min(questions, len(held_out.question_ids))):
                question_id, query = held_out.question_ids[row], held_out.queries[row]
                asked = {"model": "eccos", "messages": [{"role": "user", "content": query}], "max_tokens": 24}
                answer = client.post("/v1/chat/completions", json=asked).raise_for_status().json()
                if row % 2 == 0:
                    said = answer["choices"][0]["message"]["content"] or ""
                    label = grade_answer(answer_key, question_id, query, said)
                    told = {"decision_id": answer["eccos"]["decision_id"], "quality": label}
                    client.post("/v1/eccos/feedback", json=told).raise_for_status()
        log = router.decision_store.log
        assert log is not None
        log.flush()
        yield ServedRun(address, log)


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with served_run(folder) as run, open_browser(folder / "profile") as page:
            page.look(WIDTH, HEIGHT)
            page.open(f"{run.address}/ui?period=all", "document.body?.dataset.ready === 'yes'")
            page.screenshot(PICTURE)
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
