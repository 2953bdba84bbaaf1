"""What all commands share: exit codes, errors for people, JSON for programs, tables.

Exit codes: 0 done; 1 what you gave us is wrong, or cannot be done; 2 our fault; 130 interrupted.
With `--json` standard output holds JSON and nothing else. Everything else that a command says goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from eccos_core.errors import ConfigError, EccosError
from eccos_core.io.safe_text import printable, printable_json

if TYPE_CHECKING:
    from rich.console import Console, Group

DONE, YOUR_INPUT, OUR_FAULT, INTERRUPTED = 0, 1, 2, 130
DEBUG_VARIABLE = "ECCOS_DEBUG"
_WIDTH_WITHOUT_TERMINAL = 160
_NAME_WIDTH = 24

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]
ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML file (LiteLLM's format).")]


def console(stream: TextIO | None = None) -> Console:
    """A rich console on standard error, or on `stream`. Where there is no terminal, lines are not broken at 80."""
    from eccos_core.cli.safe_console import SafeConsole

    made = SafeConsole(file=stream or sys.stderr)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _WIDTH_WITHOUT_TERMINAL
    return made


def print_json(value: object) -> None:
    """One JSON document on standard output. NaN and infinity are not JSON: they raise ValueError."""
    sys.stdout.write(printable_json(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)) + "\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[str] = ()) -> Group:
    """A table under its title; columns named in `numbers` stand to the right. Cells are plain text, never markup."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    cells = [tuple(row) for row in rows]
    names = min(max((len(row[0]) for row in cells), default=0), _NAME_WIDTH)  # in a narrow terminal names stay whole
    for position, column in enumerate(columns):
        made.add_column(
            Text(column),
            justify="right" if column in numbers else "left",
            overflow="fold",
            min_width=None if position else names,
        )
    for row in cells:
        made.add_row(*(Text(cell) for cell in row))
    # not Table(title=...): rich would fold it to the width of the columns
    return Group(Text(title, style="bold"), made)


def print_table(
    out: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[str] = ()
) -> None:
    """Print a `table`."""
    out.print(table(title, columns, rows, numbers=numbers))


def run(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; whatever it raises becomes a message, never a traceback."""
    as_json = "--json" in arguments
    try:
        app(list(arguments), prog_name="eccos")
    except SystemExit as leaving:
        # Typer leaves with 2 when it cannot read the command line; that is input, not our fault
        return YOUR_INPUT if leaving.code == 2 else leaving.code if isinstance(leaving.code, int) else DONE
    except EccosError as error:
        _print_error(error, as_json)
        return YOUR_INPUT
    except KeyboardInterrupt:
        console().print("Interrupted.")
        return INTERRUPTED
    except BrokenPipeError:
        # whoever read our output (`eccos ... | head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:  # noqa: BLE001 - the one place where an unexpected error becomes exit code 2
        _print_fault(error, as_json)
        return OUR_FAULT
    return DONE


def _print_error(error: EccosError, as_json: bool) -> None:
    if as_json:
        print_json({"error": {"type": type(error).__name__, "message": str(error), **_details(error)}})
    if isinstance(error, ConfigError):
        print_problems(error)
    else:
        _say("Error", str(error))
    if os.environ.get(DEBUG_VARIABLE):
        _print_traceback(error)


def _details(error: EccosError) -> Mapping[str, Any]:
    if isinstance(error, ConfigError):
        return {"file": error.file, "problems": [{"place": p.place, "message": p.message} for p in error.problems]}
    return {}


def _print_fault(error: Exception, as_json: bool) -> None:
    from eccos_core.backends.litellm.redaction import SecretRedactor

    first_line = (str(error).strip().splitlines() or [""])[0]
    message = SecretRedactor.for_parameters([]).redact(f"{type(error).__name__}: {first_line}"[:300])
    if as_json:
        print_json({"error": {"type": type(error).__name__, "message": message, "fault": "eccos"}})
    _say("This is a fault of eccos, not of your input", message)
    if os.environ.get(DEBUG_VARIABLE):
        _print_traceback(error)
    else:
        console().print(f"Run it again with {DEBUG_VARIABLE}=1 for the traceback, and please report it.", style="dim")


def _print_traceback(error: Exception) -> None:
    import traceback

    from eccos_core.backends.litellm.redaction import SecretRedactor

    sys.stderr.write(printable(SecretRedactor.for_parameters([]).redact("".join(traceback.format_exception(error)))))


def _say(what: str, message: str) -> None:
    from rich.text import Text

    console().print(Text.assemble((f"{what}: ", "bold red"), message), soft_wrap=True)


def print_problems(error: ConfigError) -> None:
    """Every problem of a configuration file on standard error: its place, then what is wrong."""
    from rich.padding import Padding
    from rich.text import Text

    out = console()
    count = len(error.problems)
    out.print(Text(f"{error.file}: {count} problem{'s' if count != 1 else ''}", style="bold red"), soft_wrap=True)
    for problem in error.problems:
        if problem.place:
            out.print(Text(f"  {problem.place}", style="bold"), soft_wrap=True)
        if out.is_terminal:
            out.print(Padding(Text(problem.message), (0, 0, 0, 6)))
        else:
            out.print(Text(f"      {problem.message}"), soft_wrap=True)
