"""Routing quality on recorded outcomes: eccos against its rivals, each at its best, on the files of `../shared/data`.

Says so and does nothing where the data is absent. Each run is an `eccos evaluate`, whose report is read back. The first
one embeds 19,000 questions with MiniLM, which takes minutes. Embeddings are kept, and so are the answers of routers
whose code and data did not change. Test outcomes only score.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
STATIC = ("--encoder", "static+surface")
RUNS = {
    "qa_math_mix9": (),
    "llmrouter_dcrouter": (),
    "openhands34": STATIC,  # these two carry their costs, and no tokens
    "judged_mix4": STATIC,
    "routellm_mmlu": (*STATIC, "--train-rows", "1500"),
}
ROUTERS = ["prior", "retrieval", "trained", "hybrid"]
OWN = "hybrid"  # the default of `eccos fit`
TARGETS = ("0.90", "0.95", "0.98", "1.00")


def main() -> int:
    if not DATA.is_dir():
        print(f"needs {DATA}, which is not here")
        return 0
    reports = {}
    for name, options in RUNS.items():
        reports[name] = run(name, options)
        print_report(name, reports[name])
    print_summary(reports)
    return 0


def run(name: str, options: tuple[str, ...]) -> dict[str, Any]:
    """The report of one `eccos evaluate`."""
    routers = list(ROUTERS) if options else [*ROUTERS, "hybrid_static"]
    if importlib.util.find_spec("pareto_bandit") is not None:  # pip install "eccos[benchmark]"
        routers.append("pareto_bandit")
    prices = DATA / f"{name}.prices.json"
    charged = ("--prices", str(prices)) if prices.exists() else ()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        command = [sys.executable, "-m", "eccos_core.cli", "evaluate", "--data", str(DATA / f"{name}.jsonl.gz")]
        command += [*charged, *options, "--baselines", "--routers", ",".join(routers), "--json", str(file)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return dict(json.loads(file.read_text()))


def print_report(name: str, report: dict[str, Any]) -> None:
    """One row per router, the largest area first."""
    two_models = len(report["models"]) == 2
    best = report["best_single"]
    print(f"\n`{name}`: {report['train']:,} training and {report['test']:,} test questions. The best single model is")
    print(f"{best['model']}: {best['accuracy']:.3f} right at {best['usd_per_1k']:.3g} USD per 1,000.\n")
    paper = ("APGR", "CPT50", "CPT80") if two_models else ()
    print("| router |", " | ".join([*TARGETS, "area", f"against {OWN}, 95 %", *paper, "floors: mean, worst"]), "|")
    print("| --- |" + " ---: |" * (len(TARGETS) + 3 + len(paper)))
    for router, result in sorted(report["routers"].items(), key=lambda each: -(each[1]["area"] or 0)):
        if result["role"] == "single":
            continue
        cells = [number(result["cost_share"][target], ".3f") for target in TARGETS]
        cells += [number(result["area"], ".4f"), difference(report, router, "area")]
        if two_models:
            gap = result["paper"]
            cells += [number(gap["apgr"], ".3f"), number(gap["cpt50"], ".1%"), number(gap["cpt80"], ".1%")]
        kept = result.get("promises")
        cells.append(f"{100 * kept['mean_difference']:+.2f}, {100 * kept['worst']:+.2f}" if kept else "")
        print(f"| `{router}` |", " | ".join(cells), "|")


def print_summary(reports: dict[str, dict[str, Any]]) -> None:
    """The area of every router on every data set, and whether it differs from ours."""
    print("\nArea. `=` marks no difference to", OWN, "by its 95 % interval, `+` a better and `-` a worse router.\n")
    print("| router |", " | ".join(reports), "|")
    print("| --- |" + " ---: |" * len(reports))
    names = dict.fromkeys(name for report in reports.values() for name in report["routers"])
    shown = [name for name in names if all(name in report["routers"] for report in reports.values())]
    for name in shown:
        cells = [
            f"{number(report['routers'][name]['area'], '.4f')} {mark(report, name)}" for report in reports.values()
        ]
        print(f"| `{name}` |", " | ".join(cells), "|")


def found_difference(report: dict[str, Any], router: str, metric: str) -> dict[str, Any] | None:
    """The difference of a router to ours, from the report."""
    for each in report["differences"]:
        if each["metric"] == metric and {each["router"], each["other"]} == {router, OWN}:
            return dict(each)
    return None


def difference(report: dict[str, Any], router: str, metric: str) -> str:
    """The interval, as router minus ours, and the verdict about the router."""
    found = found_difference(report, router, metric)
    if found is None:
        return ""
    sign = 1 if found["router"] == router else -1
    low, high = sorted((sign * found["low"], sign * found["high"]))
    return f"{low:+.4f} to {high:+.4f}: {verdict(found, router)}"


def verdict(found: dict[str, Any], router: str) -> str:
    """Whether the router is better than ours."""
    if found["router"] == router or found["verdict"] == "no difference":
        return str(found["verdict"])
    return "worse" if found["verdict"] == "better" else "better"


def mark(report: dict[str, Any], router: str) -> str:
    """The verdict as one character."""
    found = found_difference(report, router, "area")
    return "" if found is None else {"better": "+", "worse": "-"}.get(verdict(found, router), "=")


def number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


if __name__ == "__main__":
    sys.exit(main())
