"""The docs site: it builds strictly and offline, every page is reachable, generated pages are up to date."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_pages import ROOT, blocks_of, pages

from eccos_core import errors

DOCS = ROOT / "docs"
BENCHMARKS = DOCS / "benchmarks"
LINK = re.compile(r"\[[^\]]*\]\((?!https?://|#|mailto:)([^)#\s]+)")
ASSET = re.compile(
    r"""<(?:link|script|img|iframe|source)\b[^>]*?\b(?:href|src)=["']?(https?:)?//[^"'\s>]+""", re.IGNORECASE
)
STYLE_ASSET = re.compile(r"""(?:@import\s+|url\()["']?(?:https?:)?//[^"')]+""", re.IGNORECASE)
NUMBER = re.compile(r"(?<![\w.,])\d+(?:,\d{3})*\.\d+(?!\w|\.\d)|(?<![\w.,])\d+(?= ?%)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Building it fails for a page outside the navigation, a dead link or a dead anchor."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    # no proxy leads anywhere: a plugin that fetches something fails
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    built = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(built) > 20
    for file in built:
        text = file.read_text(encoding="utf-8")
        pattern = ASSET if file.suffix == ".html" else STYLE_ASSET
        found = [each.group() for each in pattern.finditer(text) if 'rel="canonical"' not in each.group()]
        assert not found, f"{file.relative_to(site)} loads {found[0]}"


def test_search_works_without_a_server(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert "quality_floor" in index


def test_every_page_is_in_the_navigation() -> None:
    # a loader that knows no tags of Python is enough for our file
    configuration = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = list(_targets(configuration["nav"]))
    assert len(listed) == len(set(listed)), "a page is listed twice"
    assert set(listed) == {str(page.relative_to("docs")) for page in pages() if page.parts[0] == "docs"}


def _targets(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, Mapping):
        for value in entry.values():
            yield from _targets(value)
    else:
        for each in entry:
            yield from _targets(each)


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_links_of_pages_beside_the_docs_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target} does not exist"


def test_every_public_name_is_on_the_api_page() -> None:
    listed = set(
        re.findall(r"^::: \S+\.(\w+)$", (DOCS / "reference" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for module in ("eccos_core", "eccos_integrations.langchain", "eccos_integrations.llama_index"):
        public = {name for name in importlib.import_module(module).__all__ if not name.startswith("__")}
        assert public <= listed, f"{module}: {', '.join(sorted(public - listed))} missing"


def test_every_error_has_a_section_that_says_what_to_do() -> None:
    text = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
    classes = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, errors.EccosError)
    }
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(sections) == classes
    assert all(len(section.split()) >= 10 for section in sections.values())


# ------------------------------------------------------------------------------------------------------------- numbers


def _numbers(text: str) -> set[str]:
    """Numbers that were measured: with at least three significant digits, outside code."""
    for block in blocks_of(text):
        text = text.replace(block.body, "")
    prose = re.sub(r"`[^`\n]*`|\]\([^)]*\)|<!--.*?-->", "", text, flags=re.DOTALL)
    return {each for each in NUMBER.findall(prose) if _significant_digits(each) >= 3}


def _significant_digits(number: str) -> int:
    digits = re.sub(r"\D", "", number).lstrip("0")
    return len(digits if "." in number else digits.rstrip("0"))


def test_measured_numbers_are_found() -> None:
    text = "It is 82.5 % right, 0.7598 in area, for 100 % of 6.71 USD, from 3.11.\n\n```text\n99.99 %\n```\nsee `12.34`"
    assert _numbers(text) == {"82.5", "0.7598", "6.71", "3.11"}


def test_a_benchmark_number_stands_on_the_benchmark_pages_only() -> None:
    measured = {each for page in BENCHMARKS.rglob("*.md") for each in _numbers(page.read_text(encoding="utf-8"))}
    assert measured, "the benchmark pages have no numbers"
    for page in pages():
        if page.parts[0] == "docs" and not (ROOT / page).is_relative_to(BENCHMARKS):
            repeated = _numbers((ROOT / page).read_text(encoding="utf-8")) & measured
            assert not repeated, f"{page} repeats {', '.join(sorted(repeated))}; link to docs/benchmarks instead"


def test_every_number_of_the_readme_stands_on_a_benchmark_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    claimed = _numbers(text[text.index("## How good") :]) - {"2502.20576"}
    measured = {each for page in BENCHMARKS.rglob("*.md") for each in _numbers(page.read_text(encoding="utf-8"))}
    assert claimed, "the README claims nothing"
    assert claimed <= measured, f"{', '.join(sorted(claimed - measured))} stand on no benchmark page"
