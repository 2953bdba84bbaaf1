"""The page of `eccos simulate` in headless Chromium: phones, dark mode, screen reader, no request to anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import require_chromium
from stream_scenario import scenario

from eccos_core.roofline import LinearCost
from eccos_core.simulation import poisson_arrivals
from eccos_core.simulation.serving import (
    SCHEDULERS,
    EngineSettings,
    ServingWorkload,
    TrueLengths,
    simulate_engine,
)
from eccos_core.simulation.study import StreamPlan, run_study
from eccos_core.streaming import FloorTarget
from eccos_core.workflows.engine_page import write_engine_page
from eccos_core.workflows.engine_report import EngineReport
from eccos_core.workflows.simulation_page import write_page
from tools.docs.chromium import Page, open_browser

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]
HOSTILE = "<img src=x onerror=alert(1)>" + "a" * 60


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    plan = StreamPlan(("eccos", "greedy", "port", "best_first"), ("random", "hard_first"), (0, 1))
    rate = scenario(300).mean_rate(0.6)
    report = run_study(
        lambda seed, order: scenario(300, seed=seed),
        lambda seed, _: poisson_arrivals(300, rate, seed),
        FloorTarget(0.6),
        rate,
        plan,
        dataset=HOSTILE,
        arrivals="poisson",
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(replace(report, models=(HOSTILE, HOSTILE, HOSTILE)), path)
    return path.as_uri()


@pytest.fixture(scope="module")
def engine_address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a serving engine, whose names are as hostile."""
    ones = np.ones(30, dtype=np.int64)
    workload = ServingWorkload(np.arange(30.0), 200 * ones, 20 * ones, 20 * ones)
    lengths = TrueLengths(workload.output_tokens)
    results = [
        simulate_engine(workload, EngineSettings(LinearCost(0.05, 1e-4, 1e-3), one, 500), lengths)
        for one in SCHEDULERS.values()
    ]
    path = tmp_path_factory.mktemp("engine") / "engine.html"
    write_engine_page(EngineReport(HOSTILE, HOSTILE, 500, 12, tuple(results)), path)
    return path.as_uri()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page of Debian's Chromium. Without it the tests are skipped. On the CI machine they fail."""
    with open_browser(tmp_path_factory.mktemp("profile"), require_chromium()) as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_phones_and_desks_in_light_and_dark(
    page: Page, address: str, tmp_path: Path, width: int, scheme: Any
) -> None:
    from matplotlib.image import imread

    page.requested.clear()
    page.look(width, 1600, scheme)
    page.open("about:blank")
    page.open(address)
    assert page.run("document.documentElement.scrollWidth") == width
    sizes = page.run(
        """[...document.querySelectorAll('svg text')].map((e) =>
          parseFloat(getComputedStyle(e).fontSize) * Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b))"""
    )
    assert len(sizes) > 40
    assert min(sizes) >= 8.5
    ink = page.run("getComputedStyle(document.querySelector('svg text')).fill")
    assert ink == page.run("getComputedStyle(document.body).color")
    page.screenshot(tmp_path / "shot.png")
    mean = imread(tmp_path / "shot.png")[:, :, :3].mean()
    assert (mean < 0.3) if scheme == "dark" else (mean > 0.8)
    assert set(page.requested) <= {address, "about:blank"}
    assert page.messages == []


def test_a_screen_reader_meets_plots_with_their_numbers_and_named_tables(page: Page, address: str) -> None:
    page.look(1280, 1600)
    page.open(address)
    met = page.accessible()
    titles = ["Quality over cost", "Latency", "Forecast quality along the stream", "Cost per order"]
    assert [name for role, name in met if role == "image" and name.split(" eccos:")[0] in titles]
    for title in titles:
        assert any(role == "image" and name.startswith(title) and "greedy: " in name for role, name in met), title
    assert all(name for role, name in met if role in ("region", "image"))
    headings = [name for role, name in met if role == "heading"]
    assert headings[0].startswith("Simulation of <img")
    assert "Cost per order" in headings
    assert "main" in [role for role, _ in met]
    assert page.run("document.querySelectorAll('img, script').length") == 0


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_of_an_engine_fits_and_tells_its_plots(page: Page, engine_address: str, width: int) -> None:
    page.requested.clear()
    page.look(width, 1600)
    page.open("about:blank")
    page.open(engine_address)
    assert page.run("document.documentElement.scrollWidth") == width
    met = page.accessible()
    for title in ("GPU time", "Time to the first token", "Time to the answer"):
        assert any(role == "image" and name.startswith(title) and "reserve: " in name for role, name in met), title
    assert {"GPU time and cache", "Waiting"} <= {name for role, name in met if role == "heading"}
    # the keyboard reaches what scrolls
    assert page.run("[...document.querySelectorAll('.wide')].every((e) => e.tabIndex === 0 && e.ariaLabel)")
    assert page.run("document.querySelectorAll('img, script').length") == 0
    assert set(page.requested) <= {engine_address, "about:blank"}
    assert page.messages == []
