"""The command line: `eccos COMMAND`. One module a command; what is slow to import is imported when a command runs."""

from __future__ import annotations

import sys

import typer

from eccos_core.cli.calibrate import calibrate
from eccos_core.cli.certify import certify
from eccos_core.cli.check import check
from eccos_core.cli.collect import collect
from eccos_core.cli.complete import batches, complete
from eccos_core.cli.convert import convert
from eccos_core.cli.demo import demo
from eccos_core.cli.evaluate import evaluate
from eccos_core.cli.fit import fit
from eccos_core.cli.fit_reward import fit_reward
from eccos_core.cli.ingest import ingest
from eccos_core.cli.init import init
from eccos_core.cli.keys import keys
from eccos_core.cli.log import log, record
from eccos_core.cli.output import run
from eccos_core.cli.plan import plan
from eccos_core.cli.price import price
from eccos_core.cli.quantise import quantise
from eccos_core.cli.replay import replay
from eccos_core.cli.route import ask, route
from eccos_core.cli.savings import savings
from eccos_core.cli.schema import schema
from eccos_core.cli.serve import serve
from eccos_core.cli.simulate import simulate
from eccos_core.cli.status import status
from eccos_core.cli.version import show_version

app = typer.Typer(
    name="eccos",
    help="Answer every request with the cheapest model that is good enough, and prove it.",
    epilog="Exit codes: 0 done, 1 your input, 2 our fault. Every command has --help and --json.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SET_UP, ROUTE, STUDY, OPERATE = "Set up", "Route", "Study", "Operate"

# one line registers a command: name, function, and the panel of `eccos --help` that lists it
app.command("init", rich_help_panel=SET_UP)(init)
app.command("check", rich_help_panel=SET_UP)(check)
app.command("schema", rich_help_panel=SET_UP)(schema)
app.command("collect", rich_help_panel=SET_UP)(collect)
app.command("price", rich_help_panel=SET_UP)(price)
app.command("quantise", rich_help_panel=SET_UP)(quantise)
app.command("convert", rich_help_panel=SET_UP)(convert)
app.command("ingest", rich_help_panel=SET_UP)(ingest)
app.command("fit", rich_help_panel=SET_UP)(fit)
app.command("fit-reward", rich_help_panel=SET_UP)(fit_reward)
app.command("certify", rich_help_panel=SET_UP)(certify)
app.command("ask", rich_help_panel=ROUTE)(ask)
app.command("route", rich_help_panel=ROUTE)(route)
app.command("plan", rich_help_panel=ROUTE)(plan)
app.command("complete", rich_help_panel=ROUTE)(complete)
app.command("serve", rich_help_panel=ROUTE)(serve)
app.command("demo", rich_help_panel=STUDY)(demo)
app.command("evaluate", rich_help_panel=STUDY)(evaluate)
app.command("simulate", rich_help_panel=STUDY)(simulate)
app.command("calibrate", rich_help_panel=STUDY)(calibrate)
app.command("log", rich_help_panel=OPERATE)(log)
app.command("record", rich_help_panel=OPERATE)(record)
app.command("savings", rich_help_panel=OPERATE)(savings)
app.command("replay", rich_help_panel=OPERATE)(replay)
app.command("batches", rich_help_panel=OPERATE)(batches)
app.command("status", rich_help_panel=OPERATE)(status)
app.add_typer(keys, name="keys", rich_help_panel=OPERATE)
app.command("version", rich_help_panel=OPERATE)(show_version)


def main() -> None:
    """The console script `eccos`."""
    sys.exit(run(app, sys.argv[1:]))
