"""`eccos replay`: what another policy would have done on the traffic of the decision log."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eccos_core.cli.log import open_log, parse_since
from eccos_core.cli.options import PictureOption, SinceOption, resolve_config
from eccos_core.cli.output import JsonOption, console, print_json
from eccos_core.cli.route import PoolOption
from eccos_core.cli.savings import describe_counts, describe_estimate, print_report

if TYPE_CHECKING:
    from eccos_core.workflows.replay import ReplayReport

PolicyOption = Annotated[
    Path,
    typer.Option("--policy", "-p", metavar="CONFIG", help="The configuration with the policy or predictor to try."),
]


def replay(
    policy: PolicyOption,
    config: PoolOption = None,
    since: SinceOption = None,
    picture: PictureOption = None,
    json: JsonOption = False,
) -> None:
    """Estimate what another policy or predictor would have done on logged traffic.

    Nothing is called. The estimate is doubly robust, with 95 % intervals. It says "cannot tell" where the log does not
    hold the answer. A log with exploration (`eccos.learning.explore`) can tell more.

    Example: eccos replay --config eccos.yaml --policy new.yaml --since 7d
    """
    from rich.text import Text

    from eccos_core.config import load_config
    from eccos_core.workflows.replay import replay as run_replay

    found = resolve_config(config)
    after = parse_since(since)
    with open_log(found) as log, console().status("Reading the log ...") as status:
        report = run_replay(
            load_config(found), log, policy, since=after, progress=lambda stage: status.update(Text(stage))
        )
    if picture is not None:
        from eccos_core.workflows.proof_plots import draw_replay

        draw_replay(report, picture)
    if json:
        print_json({**asdict(report), "quality_verdict": report.quality_verdict, "cost_verdict": report.cost_verdict})
        return
    print_report(describe(report), picture)


def describe(report: ReplayReport) -> list[str]:
    """Say what the policy would have done, and how far the log can tell."""
    from eccos_core.routing.decisions import format_usd

    value, confidence = report.value, report.confidence
    cost, change = value.cost_usd.times(1000), value.cost_change_usd
    chosen, logged = (describe_counts(each) for each in (report.chosen, report.logged))
    left_out = f" {report.unanswered:,} more got no answer and are left out." if report.unanswered else ""
    if report.planned:
        left_out += f" {report.planned:,} were answered by a plan of several calls and are left out too."
    lines = [
        f"{report.log}: {report.requests:,} answered requests, {report.labelled:,} with a label.{left_out}",
        f"Logged choices: {logged}.",
        f"{report.policy} chooses: {chosen}. The two agree on {value.agreement:.1%} of the requests.",
        "",
        f"Quality: {report.quality_verdict}",
        f"  logged      {describe_estimate(value.logged_quality, confidence)}",
        f"  new policy  {describe_estimate(value.quality, confidence)}",
        f"  change      {describe_estimate(value.quality_change, confidence, signed=True)}",
        f"Cost of 1,000 requests: {report.cost_verdict}",
        f"  logged      {format_usd(1000 * value.logged_cost_usd)}",
        f"  new policy  {format_usd(cost.value)} ({confidence:.0%} interval {format_usd(cost.low)} to "
        f"{format_usd(cost.high)})",
        f"  change      {_signed_usd(1000 * change.value)} ({confidence:.0%} interval {_signed_usd(1000 * change.low)} "
        f"to {_signed_usd(1000 * change.high)})",
        f"Effective sample size: {value.effective_sample_size:,.0f} labels",
    ]
    return [*lines, *_cautions(report)]


def _cautions(report: ReplayReport) -> list[str]:
    value, said = report.value, []
    if not report.labelled:
        said.append("No answer has a label, so quality is only forecast. Label some answers with `eccos record`.")
    if not report.explored and value.agreement < 1:
        said.append(
            f"The log was made without exploration. It measures only the {value.agreement:.1%} of the requests on "
            "which the two agree. The rest is forecast, and its intervals take the worst and the best case."
        )
    elif value.measurable < 1 and report.labelled:
        said.append(
            f"Labels can tell about the new choice on {value.measurable:.1%} of the requests. On the others it is "
            "forecast, and the intervals take the worst and the best case."
        )
    if value.positivity_in_doubt:
        said.append(
            "The log holds the new choices far less often than their propensities say. Perhaps some models could not "
            "be chosen for some requests, and then these estimates are wrong."
        )
    if report.quality_verdict == "cannot tell":
        change = value.quality_change
        said.append(
            f"You cannot tell which has the better quality: the interval is {change.high - change.low:.3f} wide, and "
            f"the difference about {abs(change.value):.3f}. More labels or more exploration would narrow it."
        )
    if report.learned_from:
        said.append(
            f"{report.learned_from:,} of the questions are in the history that the new predictor learned from, so its "
            "choices for them may look better than they are. Give a --since after its fit."
        )
    return ["", *said] if said else []


def _signed_usd(amount: float) -> str:
    from eccos_core.routing.decisions import format_usd

    return f"{'+' if amount >= 0 else '-'}{format_usd(abs(amount))}"
