"""The reports as people open them: the HTML page in headless Chromium, the picture as pixels."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from browser import require_chromium

from eccos_core.domain import Float32Array, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.evaluation import plots
from eccos_core.evaluation.baselines import BASELINES, BENCHMARK_BASELINES, routers_by_name
from eccos_core.evaluation.html import render_html, write_html
from eccos_core.evaluation.html_figures import CHARACTER_PIXELS, LINE_PIXELS, PLOT_PIXELS, frontier_figure
from eccos_core.evaluation.palette import assign_colours
from eccos_core.evaluation.plot_labels import PlotPoint
from eccos_core.evaluation.plots import draw_frontier, draw_report
from eccos_core.evaluation.replay import evaluate
from eccos_core.evaluation.report import EvaluationReport, RouterResult
from eccos_core.evaluation.report_tables import render_markdown

PRICES = {"tiny": (1e-7, 1e-7), "middle <b>": (1e-6, 2e-6), "</script><large>": (1e-5, 3e-5)}


@dataclass(frozen=True)
class LetterEncoder:
    name: str = "letters"
    dimensions: int = 26

    def encode(self, texts: Sequence[str]) -> Float32Array:
        counts = np.array([[1e-3 + text.count(chr(97 + i)) for i in range(26)] for text in texts], dtype=np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    """A history of 600 questions in three topics that the three models are good at to different degrees."""
    random = np.random.default_rng(0)
    topics = ("add these numbers", "what is the capital", "prove this theorem")
    chances = np.array([[0.9, 0.92, 0.95], [0.4, 0.8, 0.85], [0.05, 0.3, 0.8]])
    topic = random.integers(0, 3, 600)
    table = OutcomeTable(
        question_ids=tuple(f"q{i}" for i in range(600)),
        queries=tuple(f"{topics[t]} {i}" for i, t in enumerate(topic)),
        models=tuple(PRICES),
        quality=(random.random((600, 3)) < chances[topic]).astype(np.float64),
        input_tokens=np.full((600, 3), 30.0),
        output_tokens=random.integers(5, 200, (600, 3)).astype(np.float64),
    )
    routers = routers_by_name(["prior", "knn", "linear", "avengers_pro", "aios"])
    return evaluate(table, PRICES, routers, {"text": LetterEncoder()}, dataset="toy <i>history</i>")


def open_in_chromium(page: Path, profile: Path, *arguments: str) -> str:
    """What Chromium prints for a page, with every connection to anywhere refused."""
    command = [
        require_chromium(),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={profile}",
        "--window-size=1200,2600",
        "--virtual-time-budget=10000",
        *arguments,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_the_html_page_draws_its_plots_in_chromium_without_a_network(report: EvaluationReport, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_html(report, page)
    dom = open_in_chromium(page, tmp_path / "profile", "--dump-dom")
    assert dom.count('class="main-svg"') >= 3  # frontier, reliability, latency
    assert dom.count("scatterlayer") >= 2
    assert dom.count('class="trace bars"') == 2  # encoding, deciding
    for name in ("oracle", "random_mix", "prior", "knn", "linear", "avengers_pro", "aios"):
        assert f">{name}</text>" in dom, name  # in a legend, drawn
    assert ">USD per 1,000 questions (logarithmic)</text>" in dom
    assert ">forecast probability of a good answer</text>" in dom


def test_the_screenshot_of_the_page_shows_the_routers_lines(report: EvaluationReport, tmp_path: Path) -> None:
    from matplotlib.image import imread

    page = tmp_path / "report.html"
    write_html(report, page)
    open_in_chromium(page, tmp_path / "profile", f"--screenshot={tmp_path / 'shot.png'}")
    pixels = (imread(tmp_path / "shot.png")[:, :, :3] * 255).round().astype(int)
    assert pixels.shape[1] == 1200
    frontier = pixels[200:800]
    for colour in ("#e69f00", "#7f6bb3", "#a6761d"):  # linear, avengers_pro, aios
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(frontier - wanted).max(axis=2) < 12).sum() > 100, colour


def test_kept_promises_follow_the_frontier_in_every_report(report: EvaluationReport, tmp_path: Path) -> None:
    for text in (render_html(report), render_markdown(report)):
        places = [text.index(title) for title in ("Cost to reach an accuracy", "Kept promises", "Area against")]
        assert places == sorted(places)
    assert "floor that was asked for" in render_html(report)
    alone = draw_frontier(
        tmp_path / "alone.svg", title="t", singles=[], frontiers={"a": [(1, 0.5)]}, random_mix=[(1, 0.5)]
    )
    beside = draw_report(report, tmp_path / "beside.svg", routers=("knn",))
    assert "kept promises" in beside.read_text()
    assert "kept promises" not in alone.read_text()


def test_names_cannot_break_out_of_the_page(report: EvaluationReport) -> None:
    page = render_html(report)
    assert "</script><large>" not in page
    assert "<i>history" not in page
    assert "middle &lt;b&gt;" in page


def test_the_page_refers_to_nothing_outside_itself(report: EvaluationReport) -> None:
    page = render_html(report)
    assert "<script src" not in page
    assert "<link" not in page
    assert "@import" not in page.split("<script", 1)[0]


def test_the_picture_of_a_report_has_lines_dots_and_the_chosen_point(report: EvaluationReport, tmp_path: Path) -> None:
    from matplotlib.image import imread

    path = draw_report(report, tmp_path / "frontier.png", routers=("knn", "linear"))
    pixels = (imread(path)[:, :, :3] * 255).round().astype(int)
    assert pixels.shape[0] > 700
    for colour in ((213, 94, 0), (0, 114, 178), (31, 41, 51)):  # first router, second router, models
        assert (np.abs(pixels - colour).max(axis=2) < 10).sum() > 100, colour


def large_pool_report(models: int) -> EvaluationReport:
    """Many models, most of them nearly as good as each other, with names as long as real ones."""
    random = np.random.default_rng(models)
    names = tuple(f"vendor-{'x' * int(random.integers(0, 12))}-{index}b" for index in range(models))
    chances = np.sort(0.85 - 0.4 * random.random(models) ** 2)
    usd = np.exp(random.normal(2 + 4 * chances, 0.8)) * 1e-7
    table = OutcomeTable(
        question_ids=tuple(f"q{i}" for i in range(300)),
        queries=tuple(f"question {i}" for i in range(300)),
        models=names,
        quality=(random.random((300, models)) < chances).astype(np.float64),
        input_tokens=np.full((300, models), 30.0),
        output_tokens=np.full((300, models), 100.0),
    )
    prices = {name: (float(each), float(each)) for name, each in zip(names, usd, strict=True)}
    return evaluate(table, prices, routers_by_name(["prior"]), {}, dataset="large pool")


def overlapping(boxes: np.ndarray) -> int:
    """The number of pairs of boxes (P, 4: left, bottom, right, top) that overlap."""
    apart = (boxes[:, None, :2] >= boxes[None, :, 2:]).any(axis=2)
    return int(np.triu(~(apart | apart.T), k=1).sum())


@pytest.mark.parametrize("models", [34, 57])
def test_no_name_covers_another_in_a_large_pool(models: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    report = large_pool_report(models)
    seen: list[Axes] = []
    place = plots.place_labels
    monkeypatch.setattr(plots, "place_labels", lambda axes, *rest: (place(axes, *rest), seen.append(axes)))
    draw_report(report, tmp_path / "frontier.png")
    (axes,) = seen
    extents = [text.get_window_extent() for text in axes.texts]
    assert len(extents) == models + 1  # and the oracle
    assert overlapping(np.array([[box.x0, box.y0, box.x1, box.y1] for box in extents])) == 0

    figure = frontier_figure(report)
    names = [each for each in figure.layout.annotations if each.text != "oracle"]
    assert len(names) == models
    (low, high), (left, right) = figure.layout.yaxis.range, figure.layout.xaxis.range
    boxes = []
    for each in names:
        x = (each.x - left) / (right - left) * PLOT_PIXELS[0] + each.ax
        y = (each.y - low) / (high - low) * PLOT_PIXELS[1] - each.ay
        half = CHARACTER_PIXELS * len(each.text) / 2
        boxes.append([x - half, y - LINE_PIXELS / 2, x + half, y + LINE_PIXELS / 2])
    assert overlapping(np.array(boxes)) == 0


def test_every_router_has_a_colour_of_its_own() -> None:
    found = assign_colours(
        {
            name: RouterResult(name, "baseline", None, None)  # type: ignore[arg-type]  # colours need no score
            for name in (each.name for each in (*BASELINES, *BENCHMARK_BASELINES))
        }
    )
    assert len(set(found.values())) == len(found) == len(BASELINES) + len(BENCHMARK_BASELINES)


def test_a_picture_of_an_unknown_kind_is_refused_before_it_is_drawn(report: EvaluationReport, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a picture cannot be a \.docx file. It can be: .*png"):
        draw_report(report, tmp_path / "frontier.docx")


def test_a_picture_works_with_one_free_model_and_nothing_else(tmp_path: Path) -> None:
    path = draw_frontier(
        tmp_path / "one.svg",
        title="one free model",
        singles=[PlotPoint("free-model", 0.0, 0.5)],
        frontiers={"eccos": [(0.0, 0.5)]},
        random_mix=[(0.0, 0.5)],
        chosen=PlotPoint("chosen", 0.0, 0.5),
    )
    assert path.read_text().lstrip().startswith("<?xml")
