"""Hot reload of local models: what nobody can call any more is closed, and what stays is not loaded again."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from eccos_core.backends.local.engine import LocalEngine
from eccos_core.backends.local.registry import local_models
from eccos_core.domain import Chunk, Completion, Request
from eccos_core.errors import BackendError
from eccos_core.router import Router
from eccos_core.testing import build_tiny_model

pytestmark = pytest.mark.timeout(120)

MODEL = """
- model_name: {name}
  litellm_params: {{model: eccos-local/{folder}}}
  model_info: {{input_cost_per_token: 1.0e-7, output_cost_per_token: 1.0e-7, max_concurrency: {cap}}}
"""
OURS = """
eccos:
  encoder: static
  predictor: prior
  history: {outcomes: outcomes.jsonl}
  policy: {usd_per_quality_point: 0}
  decision_log: off
  %s
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {name: build_tiny_model(place / name, seed=seed) for seed, name in enumerate(("kept", "gone"))}


def write(file: Path, folders: dict[str, Path], *names: str, cap: int = 2, more: str = "") -> None:
    outputs = [{"model": name, "correct": 1, "output_tokens": 5} for name in folders]
    rows = [{"id": f"q{i}", "query": f"question {i}", "outputs": outputs} for i in range(4)]
    (file.parent / "outcomes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pool = "".join(MODEL.format(name=name, folder=folders[name], cap=cap) for name in names)
    beside = file.with_suffix(".new")
    beside.write_text("model_list:" + pool + OURS % more)
    beside.replace(file)


def until(condition: Callable[[], object], what: str) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends, what
        time.sleep(0.02)


def ask(router: Router, name: str) -> Completion:
    return router.complete(Request.of("hi", allow=frozenset({name})), max_tokens=4)


def engine(folders: dict[str, Path], name: str) -> LocalEngine:
    return local_models().engine(str(folders[name]))


def loaded(name: str) -> bool:
    """Whether an engine's thread is at work."""
    return any(thread.name.startswith("eccos-local ") and name in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize("more", ["", "stream: {window_ms: 1}"])
def test_a_removed_model_is_freed_when_its_last_request_has_ended_and_a_kept_one_stays(
    tmp_path: Path, folders: dict[str, Path], more: str
) -> None:
    file = tmp_path / "eccos.yaml"
    write(file, folders, "kept", "gone", more=more)
    with Router.from_yaml(file, reload=True) as router:
        assert ask(router, "kept").text
        assert ask(router, "gone").text
        kept, model = engine(folders, "kept"), weakref.ref(engine(folders, "gone").model)
        permits = threading.Semaphore(2)
        hook = engine(folders, "gone").model.register_forward_pre_hook(lambda *_: permits.acquire(timeout=60) and None)
        stream = router.stream(Request.of("hello", allow=frozenset({"gone"})), max_tokens=20)
        pieces: list[Chunk] = [next(stream)]
        old = router.models
        write(file, folders, "kept", cap=3, more=more)
        until(lambda: router.models != old, "the change is in use")
        assert ask(router, "kept").text
        assert loaded("gone"), "a request is in flight"
        hook.remove()
        permits.release(100)
        pieces += stream
        assert pieces[-1].completion is not None
        assert pieces[-1].completion.output_tokens == 20 or pieces[-1].completion.finish_reason == "stop"
        del stream, pieces, hook
        until(lambda: not loaded("gone"), "the engine is closed")
        until(lambda: model() is None, "its memory is free")
        assert engine(folders, "kept") is kept
        old = router.models
        write(file, folders, "kept", "gone", cap=4, more=more)
        until(lambda: router.models != old, "the model is back")
        assert ask(router, "gone").text
        assert engine(folders, "kept") is kept
        assert loaded("gone")


def test_a_failed_call_keeps_no_removed_model_in_memory(tmp_path: Path, folders: dict[str, Path]) -> None:
    file = tmp_path / "eccos.yaml"
    write(file, folders, "kept", "gone")
    with Router.from_yaml(file, reload=True) as router:
        ask(router, "gone")
        with pytest.raises(BackendError, match="temperature is 5"):
            router.complete(Request.of("hi", allow=frozenset({"gone"})), temperature=5)
        write(file, folders, "kept", cap=3)
        until(lambda: not loaded("gone"), "the engine is closed")


def test_a_router_that_nobody_uses_any_more_frees_its_models(tmp_path: Path, folders: dict[str, Path]) -> None:
    file = tmp_path / "eccos.yaml"
    write(file, folders, "gone")
    router = Router.from_yaml(file, reload=True)
    ask(router, "gone")
    assert loaded("gone")
    router.close()
    del router
    until(lambda: not gc.collect() and not loaded("gone"), "the engine is closed")


def test_no_thread_is_freeing_a_model_when_the_process_ends(folders: dict[str, Path]) -> None:
    """A thread inside torch when the interpreter goes away takes the process down (terminate called without ...)."""
    script = f"""
import atexit, threading
atexit.register(lambda: print([t.name for t in threading.enumerate() if t.name.startswith("eccos")]))  # runs last
from eccos_core.backends.local.registry import local_models
class Owner: pass
owner, models = Owner(), local_models()
from eccos_core.backends.local.model import EngineOptions
models.claim(owner, [({str(folders["gone"])!r}, EngineOptions())])
models.engine({str(folders["gone"])!r}).model
del owner  # the engine is being closed while the process ends
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
