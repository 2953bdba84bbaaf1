"""`eccos savings`: what routing saved against sending every request to one model."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eccos_core.cli.log import format_time, open_log, parse_since
from eccos_core.cli.options import PictureOption, SinceOption, resolve_config
from eccos_core.cli.output import JsonOption, console, print_json
from eccos_core.cli.route import PoolOption

if TYPE_CHECKING:
    from eccos_core.off_policy import IntervalEstimate
    from eccos_core.routing.savings import EstimatedSavings, SavingsReport

BaselineOption = Annotated[
    str | None,
    typer.Option(
        "--baseline",
        metavar="MODEL",
        help="The model that would have answered every request. Default: the one with the best mean forecast.",
    ),
]


def savings(
    config: PoolOption = None,
    baseline: BaselineOption = None,
    since: SinceOption = None,
    picture: PictureOption = None,
    json: JsonOption = False,
) -> None:
    """Show what routing saved against sending every request to one model.

    The numbers come from the decision log. What was paid and labelled is measured, also what the judge and shadow
    answers cost on top. What the baseline would have cost is estimated. The two are kept apart.

    Example: eccos savings --baseline gpt-4o --since 7d
    """
    from eccos_core.config import load_config
    from eccos_core.routing.logged_traffic import read_traffic
    from eccos_core.routing.savings import measure_savings

    found = resolve_config(config)
    after = parse_since(since)
    pool = [model.name for model in load_config(found).models]
    with open_log(found) as log:
        traffic = read_traffic(log, pool, after)
    report = measure_savings(traffic, pool, baseline)
    if picture is not None:
        from eccos_core.workflows.proof_plots import draw_savings

        draw_savings(report, picture)
    if json:
        print_json(_as_json(report))
        return
    print_report(describe(report), picture)


def print_report(lines: Sequence[str], picture: Path | None) -> None:
    """Print the lines of a report, and where its picture is."""
    out = console(sys.stdout)
    for line in lines:
        out.print(line, soft_wrap=True, markup=False)
    if picture is not None:
        out.print(f"Picture: {picture}", soft_wrap=True)


def describe_counts(counts: Mapping[str, int]) -> str:
    """Write counts as `small 1,200, large 30`."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def describe(report: SavingsReport) -> list[str]:
    """Say what was measured, then what is estimated."""
    from eccos_core.routing.decisions import format_usd

    measured, estimated = report.measured, report.estimated
    answers = describe_counts(measured.answers)
    left_out = f" {measured.unanswered:,} more got no answer and are left out." if measured.unanswered else ""
    lines = [
        f"{report.log}: {format_time(measured.first_at)} to {format_time(measured.last_at)} (UTC)",
        "",
        "Measured",
        f"  {measured.requests:,} requests were answered for {format_usd(measured.paid_usd)}: {answers}.{left_out}",
    ]
    if measured.labelling_usd > 0:
        parts = ((measured.judge_usd, "for the judge"), (measured.shadow_usd, "for shadow answers"))
        each = ", ".join(f"{format_usd(usd)} {what}" for usd, what in parts if usd > 0)
        lines.append(f"  Labelling cost {format_usd(measured.labelling_usd)} on top: {each}.")
    if measured.mean_label is not None:
        mean = describe_estimate(measured.mean_label, report.confidence)
        sources = describe_counts(measured.label_sources)
        lines.append(f"  {measured.labelled:,} answers have a label ({sources}). Their mean quality is {mean}.")
    why = " It has the best mean forecast of the pool, and --baseline names another." * report.baseline_is_default
    lines += ["", f"Estimated: every request to {estimated.baseline}", f"  {_describe_cost(estimated, report)}{why}"]
    return [*lines, *(f"  {line}" for line in _describe_quality(report))]


def _describe_cost(estimated: EstimatedSavings, report: SavingsReport) -> str:
    from eccos_core.routing.decisions import format_usd

    baseline, ends = estimated.baseline, estimated.baseline_usd_interval
    said = f"It would have cost about {format_usd(estimated.baseline_usd)}"
    if ends is not None:
        said += f" ({report.confidence:.0%} interval {format_usd(ends[0])} to {format_usd(ends[1])})"
    if estimated.saved_share is None:
        said += ". "
    elif estimated.saved_usd >= 0:
        said += f". Routing saved {format_usd(estimated.saved_usd)}, {estimated.saved_share:.1%}. "
    else:
        said += f". Routing cost {format_usd(-estimated.saved_usd)} more, {-estimated.saved_share:.1%}. "
    if report.measured.labelling_usd > 0:
        said += f"After what labelling cost, {_describe_net(estimated)}. "
    if estimated.baseline_calls:
        return said + (
            f"That is its forecast cost times {estimated.cost_correction:.2f}, which is what its "
            f"{estimated.baseline_calls:,} recorded calls cost against their forecast."
        )
    return said + f"That is its forecast cost. No call of {baseline} is in the log, so nothing checks it."


def _describe_net(estimated: EstimatedSavings) -> str:
    from eccos_core.routing.decisions import format_usd

    usd, share = estimated.net_saved_usd, estimated.net_saved_share
    said = f"you saved {format_usd(usd)}" if usd >= 0 else f"you paid {format_usd(-usd)} more"
    return said if share is None else f"{said}, {abs(share):.1%}"


def _describe_quality(report: SavingsReport) -> list[str]:
    measured, estimated, confidence = report.measured, report.estimated, report.confidence
    baseline = estimated.baseline
    forecast = f"{estimated.forecast_quality:.3f} as routed, {estimated.forecast_baseline_quality:.3f} by {baseline}"
    if estimated.quality is None or estimated.baseline_quality is None or estimated.quality_change is None:
        return [
            f"No answer has a label, so quality is only forecast: {forecast}. Label some answers with `eccos record`."
        ]
    lines = [
        f"Quality of {baseline}: {describe_estimate(estimated.baseline_quality, confidence)}.",
        f"Routing changed quality by {describe_estimate(estimated.quality_change, confidence, signed=True)}.",
    ]
    if measured.labelled < measured.requests:
        every = describe_estimate(estimated.quality, confidence)
        lines.insert(0, f"Quality of all answers as routed, with and without a label: {every}.")
    if not estimated.quality_change.excludes_zero:
        lines.append("From these labels you cannot tell which of the two is better.")
    if estimated.measurable < 1:
        lines.append(
            f"Labels tell about {baseline} on {estimated.measurable:.0%} of the requests. On the others its quality is "
            f"forecast, and the interval takes the worst and the best case. Forecasts alone: {forecast}."
        )
    return lines


def describe_estimate(estimate: IntervalEstimate, confidence: float, *, signed: bool = False) -> str:
    """Say a quality with its interval."""
    sign = "+" if signed else ""
    value, low, high = (f"{each:{sign}.3f}" for each in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({confidence:.0%} interval {low} to {high})"


def _as_json(report: SavingsReport) -> dict[str, Any]:
    values = asdict(report)
    del values["curve"]
    values["measured"]["labelling_usd"] = report.measured.labelling_usd
    return values
