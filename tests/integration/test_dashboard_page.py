"""The dashboard in headless Chromium, with the data of a real run: values, phones, dark mode, keyboard, screen reader.

The run is real: the pocket pool answers questions over HTTP, and its answers are labelled by their answer key.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import require_chromium
from dashboard_server import ADMIN, TENANT_A, KeyedGate, logged_router

from eccos_core.domain import Request
from eccos_core.server.app import build_app
from tools.docs.chromium import Page, open_browser
from tools.docs.dashboard_picture import ServedRun, serve_app, served_run

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]
FOCUSED = "((e) => e.id || e.dataset.focus || e.className || e.tagName)(document.activeElement)"
READY = "document.body?.dataset.ready === 'yes'"
TEXT = "document.body.innerText"
HOSTILE = ("<img src=x onerror=alert(1)>", "\"'></title><script>alert(2)</script>")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page of Debian's Chromium. Without it the tests are skipped. On the CI machine they fail."""
    with open_browser(tmp_path_factory.mktemp("profile"), require_chromium()) as opened:
        yield opened


@pytest.fixture(scope="module")
def run(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedRun]:
    with served_run(tmp_path_factory.mktemp("run"), questions=60) as served:
        yield served


@pytest.fixture(autouse=True)
def quiet(page: Page) -> Iterator[None]:
    """No test may end with an error in the console, or with a request to anywhere else."""
    page.messages.clear()
    page.requested.clear()
    yield
    assert page.messages == []
    assert all(url.startswith("http://127.0.0.1:") or url == "about:blank" for url in page.requested)


def cards(page: Page) -> dict[str, str]:
    script = """[...document.querySelectorAll('#cards > div')]
      .map((e) => [e.children[0].innerText, e.children[1].firstChild.data])"""
    return dict(page.run(script))


def table(page: Page, place: str) -> list[list[str]]:
    cells = "[...row.cells].map((cell) => cell.textContent)"
    return list(page.run(f"[...document.querySelectorAll('#{place} tbody tr')].map((row) => {cells})"))


@contextmanager
def at(page: Page, address: str, width: int, height: int, scheme: Any = "light") -> Iterator[None]:
    page.look(width, height, scheme)
    page.open("about:blank")
    page.open(address, READY)
    yield


def test_every_number_is_that_of_the_log(page: Page, run: ServedRun) -> None:
    entries = run.log.entries(last=1000)
    labels = [entry.label for entry in entries if entry.label is not None]
    paid = sum(entry.paid_usd or 0.0 for entry in entries)
    with at(page, f"{run.address}/ui?period=all", 1280, 1400):
        shown = cards(page)
        assert shown["Decisions"] == str(len(entries)) == "60"
        assert float(shown["Spent on answers"].removeprefix("$")) == pytest.approx(paid, rel=0.01)
        assert shown["Quality asked"] == "0.800"
        assert shown["Quality predicted"] == f"{sum(entry.quality for entry in entries) / len(entries):.3f}"
        assert shown["Quality realised"] == f"{sum(labels) / len(labels):.3f}"
        assert shown["Saved"].startswith("$")
        models = {row[0]: row for row in table(page, "models-table")}
        for name, row in models.items():
            own = [entry for entry in entries if entry.model == name]
            assert row[1:3] == [str(len(own)), f"{100 * len(own) / len(entries):.1f} %"]
            assert row[6] == str(sum(entry.label is not None for entry in own))
        assert sum(int(row[1]) for row in table(page, "calibration-table")) == len(labels)
        assert sum(int(row[1]) for row in table(page, "money-table")) == len(entries)
        listed = table(page, "decisions")
        assert len(listed) == 10
        for row, entry in zip(listed, entries, strict=False):
            assert row[1].startswith(str(entry.model))
            assert row[3] == f"{entry.quality:.3f}"
            assert row[7] == entry.reason
        for chart in ("money", "quality", "share", "latency", "calibration"):
            assert page.run(f"document.querySelector('#{chart} svg').getAttribute('aria-label')")
        drawn = page.run(
            "[...document.querySelectorAll('#calibration circle + text')].map((e) => Number(e.textContent))"
        )
        assert sum(drawn) == len(labels)


def test_why_this_model_shows_the_counterfactual(page: Page, run: ServedRun) -> None:
    entry = run.log.entries(last=1)[0]
    with at(page, f"{run.address}/ui?period=all#decision={entry.id}", 1280, 1400):
        page.wait_for("document.getElementById('why').open")
        told = page.run("document.getElementById('why-body').textContent")
        assert entry.reason in told
        for name in entry.forecast:
            assert name in told
        assert "(chosen)" in told
        assert "(at this price)" in told
        page.press("Escape", 27)
        page.wait_for("!document.getElementById('why').open")


def test_an_admin_labels_an_answer_from_the_page(page: Page, run: ServedRun) -> None:
    entry = next(each for each in run.log.entries(last=100) if each.label is None)
    with at(page, f"{run.address}/ui?period=all#decision={entry.id}", 1280, 1400):
        page.wait_for("document.querySelector('[data-focus=good]')")
        page.run("document.querySelector('[data-focus=good]').click()")
        page.wait_for("document.getElementById('why-body').textContent.includes('realised 1.000 (human)')")
    found = run.log.get(entry.id)
    assert found is not None
    assert (found.label, found.label_source) == (1.0, "human")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(360, 2000), (1280, 1500)])
def test_it_fits_phones_and_desks_in_light_and_dark(
    page: Page, run: ServedRun, tmp_path: Path, width: int, height: int, scheme: Any
) -> None:
    from matplotlib.image import imread

    with at(page, f"{run.address}/ui?period=all", width, height, scheme):
        assert page.run("document.documentElement.scrollWidth") == width
        wide = """[...document.querySelectorAll('svg, button, select, h2, p')]
          .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll'))"""
        assert page.run(f"{wide}.map((e) => e.outerHTML.slice(0, 80))") == []
        page.screenshot(tmp_path / "shot.png")
        pixels = imread(tmp_path / "shot.png")[:, :, :3]
        assert pixels.shape[:2] == (height, width)
        assert (pixels.mean() < 0.3) if scheme == "dark" else (pixels.mean() > 0.8)
        page.run("document.querySelector('[data-id]').click()")
        page.wait_for("document.getElementById('why').open")
        assert page.run("document.getElementById('why').getBoundingClientRect().width") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(page: Page, run: ServedRun, scheme: Any) -> None:
    """Web Content Accessibility Guidelines 2.2, 1.4.3: a contrast of 4.5 to 1."""
    colours = """(() => {
      const style = getComputedStyle(document.documentElement);
      const rgb = (name) => { const canvas = document.createElement('canvas').getContext('2d');
        canvas.fillStyle = style.getPropertyValue(name).trim(); canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); };
      const names = ['page', 'card', 'ink', 'faint', 'accent', 'good', 'bad'];
      return Object.fromEntries(names.map((name) => [name, rgb('--' + name)]));
    })()"""
    with at(page, f"{run.address}/ui?period=all", 1280, 1500, scheme):
        found = page.run(colours)
    for text in ("ink", "faint", "accent", "good", "bad"):
        assert contrast(found[text], found["card"]) >= 4.5, text
    for text in ("ink", "faint"):
        assert contrast(found[text], found["page"]) >= 4.5, text


def test_a_screen_reader_meets_landmarks_headings_labels_and_tables(page: Page, run: ServedRun) -> None:
    with at(page, f"{run.address}/ui?period=all", 1280, 1500):
        met = page.accessible()
    roles = [role for role, _ in met]
    for landmark in ("main", "banner", "navigation", "contentinfo", "status"):
        assert landmark in roles
    headings = [name for role, name in met if role == "heading"]
    assert headings[0] == "eccos dashboard"
    assert "Calibration" in headings
    assert all(name for role, name in met if role in ("image", "region", "button", "combobox", "checkbox", "table"))
    assert sum(role == "image" for role in roles) >= 5
    assert page.run("document.documentElement.lang") == "en"


def test_the_keyboard_reaches_everything_and_focus_stays_when_data_is_read_again(page: Page, run: ServedRun) -> None:
    with at(page, f"{run.address}/ui?period=all", 1280, 1500):
        met = []
        for _ in range(40):
            page.press("Tab", 9)
            met.append(page.run(FOCUSED))
            if page.run("Boolean(document.activeElement.dataset.id)"):
                break
        assert met[0] == "skip"
        for control in ("period", "baseline", "auto", "refresh", "model"):
            assert control in met
        focused = met[-1]
        assert "none" not in page.run("getComputedStyle(document.activeElement).outlineStyle")
        before = page.run("document.getElementById('updated').textContent")
        page.wait_for(f"document.getElementById('updated').textContent !== {before!r}", within_s=40)
        assert page.run("document.activeElement.dataset.focus") == focused
        page.press("Enter", 13, "\r")
        page.wait_for("document.getElementById('why').open")
        assert page.run("document.getElementById('why').contains(document.activeElement)")
        page.press("Escape", 27)
        page.wait_for("!document.getElementById('why').open")
        assert page.run("document.activeElement.dataset.focus") == focused


def test_hostile_names_and_prompts_are_shown_as_text(page: Page, tmp_path: Path) -> None:
    with logged_router(tmp_path, names=HOSTILE, log_prompts=True) as router, serve_app(build_app(router)) as address:
        asked = Request.of("<script>alert(3)</script><b>bold</b>", tenant="<i>tenant</i>")
        decision = router.complete(asked).decision
        with at(page, f"{address}/ui?period=1h#decision={decision.id}", 1280, 1500):
            page.wait_for("document.getElementById('why').open")
            assert page.run("document.querySelectorAll('img, script:not([src]), body b, body i').length") == 0
            told = page.run(TEXT)
            assert HOSTILE[0] in told
            assert "<script>alert(3)</script><b>bold</b>" in told
            assert page.run("document.title") == "eccos dashboard"


def test_a_key_is_asked_for_kept_in_memory_and_decides_what_is_shown(page: Page, tmp_path: Path) -> None:
    with logged_router(tmp_path, log_prompts=True) as router, serve_app(build_app(router, KeyedGate())) as address:
        for tenant in ("a", "b", "b"):
            router.complete(Request.of("hello", tenant=tenant))
        page.look(1280, 1500)
        for key, decisions, says in (
            (TENANT_A, "1", "Read only, tenant a, key k-a"),
            (ADMIN, "3", "Admin, key k-admin"),
        ):
            page.open("about:blank")
            page.open(f"{address}/ui", "document.getElementById('key-form')?.hidden === false")
            assert cards(page) == {}
            page.run(
                f"document.getElementById('key').value = {key!r}; document.getElementById('key-form').requestSubmit()"
            )
            page.wait_for(READY)
            assert cards(page)["Decisions"] == decisions
            assert page.run("document.getElementById('who').textContent") == says
            assert key not in page.run("document.documentElement.outerHTML + location.href + document.cookie")
            assert page.run("localStorage.length + sessionStorage.length") == 0
            page.run("document.querySelector('[data-id]').click()")
            page.wait_for("document.getElementById('why').open")
            assert page.run("Boolean(document.querySelector('[data-focus=good]'))") is (key == ADMIN)
            assert page.run("document.getElementById('why-body').textContent.includes('What was asked')") is (
                key == ADMIN
            )
        assert page.messages  # the browser tells of the answers with status 401
        assert all("401" in message for message in page.messages)
        page.messages.clear()


def test_without_a_log_it_says_so(page: Page, tmp_path: Path) -> None:
    with logged_router(tmp_path, with_log=False) as router, serve_app(build_app(router)) as address:
        page.open("about:blank")
        page.open(f"{address}/ui", "document.getElementById('said')?.textContent.includes('keeps no decision log')")
        assert len(table(page, "health-table")) == 2


def contrast(one: list[int], other: list[int]) -> float:
    """Return the contrast of two colours (WCAG 2.2, relative luminance)."""

    def luminance(rgb: list[int]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (each / 255 for each in rgb)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
