"""`eccos certify`: choose the cheapest rule that labels show to keep a floor."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eccos_core.cli.options import resolve_config
from eccos_core.cli.output import JsonOption, console, print_json
from eccos_core.cli.route import PoolOption

if TYPE_CHECKING:
    from eccos_core.workflows.certify import CertifyReport

LabelsOption = Annotated[
    Path,
    typer.Option("--labels", "-l", metavar="OUTCOMES", help="Outcomes with a score of every model for each question."),
]
GrowingOption = Annotated[
    bool,
    typer.Option("--growing", help="Use a test that you may repeat with more labels added at the end of the file."),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="The certificate to write. Default: eccos.policy.certificate."),
]


def certify(
    labels: LabelsOption,
    config: PoolOption = None,
    growing: GrowingOption = False,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    """Show by a test on labels that a floor is kept, and write a certificate.

    The policy of the configuration must be `certified_floor` or `within_points_of`. Exit code 1 means that no
    certificate could be given.

    Example: eccos certify --config eccos.yaml --labels labels.jsonl
    """
    from rich.text import Text

    from eccos_core.config import load_config
    from eccos_core.workflows.certify import certify as run_certify

    loaded = load_config(resolve_config(config))
    with console().status("Reading the labels ...") as status:
        report = run_certify(
            loaded, labels, growing=growing, out=out, progress=lambda stage: status.update(Text(stage))
        )
    if json:
        print_json({**asdict(report), "path": str(report.path), "passed": report.passed})
    else:
        console(sys.stdout).print(describe(report), soft_wrap=True, markup=False)
    if not report.passed:
        raise typer.Exit(1)


def describe(report: CertifyReport) -> str:
    """Say what was found."""
    made = report.certificate
    claim = f"{made.claim.in_words()}, with {made.claim.confidence:.0%} confidence"
    if report.passed:
        return (
            f"Certified: {claim}. {made.labels} labels, {made.test} test, p = {made.p_value:.4f}, labelled mean "
            f"{made.mean:.3f}.\nA request is expected to cost {report.cost_usd / report.dearest_usd:.1%} of what the "
            f"dearest model costs.\nWrote {report.path}."
        )
    if report.more_labels is not None:
        return f"Too little data for: {claim}. About {report.more_labels} more labels are needed."
    return (
        f"Not reached: {claim}. On these {made.labels} labels the safest setting has a mean quality of "
        f"{report.best_mean:.3f}. Lower the floor, or add a better model."
    )
