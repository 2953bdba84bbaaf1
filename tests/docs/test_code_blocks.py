"""Every code block of README and docs runs, or says why not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path

import pytest
from doc_pages import EMPTY, FAKE_KEYS, ROOT, RUN, SAID, Page, blocks_of, pages, write_start

from eccos_core.errors import ConfigError
from eccos_core.testing import ModelServer

pytestmark = [pytest.mark.timeout(600), pytest.mark.service]


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with ModelServer(script=SAID) as server:
        yield server.url


@pytest.fixture(autouse=True)
def _keep_log_levels() -> Iterator[None]:
    """A page may set up logging. Other tests of this process must not notice."""
    loggers = [logging.getLogger(), logging.getLogger("eccos")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.mark.parametrize("page", pages(), ids=str)
def test_a_page_runs_from_top_to_bottom(
    page: Path, server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in FAKE_KEYS:
        monkeypatch.setenv(name, "sk-not-a-key")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text(encoding="utf-8")
    if EMPTY not in text:
        write_start(tmp_path, server_url)
    Page(page, tmp_path, server_url).run_all(text)


def test_a_block_that_does_not_run_gives_a_reason_of_several_words() -> None:
    for page in pages():
        for block in blocks_of((ROOT / page).read_text(encoding="utf-8")):
            if block.not_run is not None:
                assert block.language in RUN | {"yaml", "json"}, f"{page}:{block.line}: {block.language} never runs"
                assert len(block.not_run.split()) >= 3, f"{page}:{block.line}: 'not run: {block.not_run}' is no reason"


BROKEN = {
    "a language that nobody runs": "```console\nls\n```\n",
    "no language": "```\nls\n```\n",
    "Python that raises": "```python\n1 / 0\n```\n",
    "a command that fails": "```bash\neccos check nowhere.yaml\n```\n",
    "a command that should fail": "<!-- exits 1 -->\n```bash\ntrue\n```\n",
    "YAML with a misspelt key": "```yaml\neccos:\n  policy: {quality_flor: 0.8}\n```\n",
    "JSON that does not parse": '```json\n{"id": }\n```\n',
    "a file outside the folder": '```json title="../x.json"\n{}\n```\n',
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_block_is_found(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_start(tmp_path, "http://127.0.0.1:1/v1")
    page = Page(Path("broken.md"), tmp_path, "http://127.0.0.1:1/v1")
    with pytest.raises((AssertionError, ArithmeticError, ConfigError, JSONDecodeError)):
        page.run_all(text)


def test_blocks_are_read_with_their_marks() -> None:
    text = (
        "Words.\n\n<!-- not run: needs an API key -->\n```python\nprint(1)\n```\n\n"
        '1. a list\n\n    ```yaml title="eccos.yaml"\n    eccos:\n      encoder: static\n    ```\n\n'
        "<!-- exits 1 -->\n```bash\nfalse\n```\n"
    )
    python, yaml, bash = blocks_of(text)
    assert (python.language, python.not_run, python.line) == ("python", "needs an API key", 4)
    assert (yaml.language, yaml.title, yaml.body) == ("yaml", "eccos.yaml", "eccos:\n  encoder: static\n")
    assert (bash.language, bash.exits, bash.not_run) == ("bash", 1, None)
