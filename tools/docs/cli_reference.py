"""Writes docs/reference/cli.md from the commands themselves. `--check` only says whether the page is up to date."""

from __future__ import annotations

import inspect
import sys
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typer.models import ArgumentInfo, CommandInfo, OptionInfo

from eccos_core.cli import app
from tools.docs.generated import ROOT, write_or_check

PAGE = ROOT / "docs" / "reference" / "cli.md"
START = """# Command line

<!-- Written by tools/docs/cli_reference.py from the commands themselves. Change their help texts, not this page. -->

You reach everything through `eccos COMMAND`. Ask any command what it takes:

```bash
eccos ask --help
```

With `--json`, standard output holds one JSON document and nothing else.
Whatever else a command says goes to standard error.

| exit code | means |
|---|---|
| 0 | done |
| 1 | what you gave is wrong, or cannot be done |
| 2 | a fault of eccos. Set `ECCOS_DEBUG=1` to see the traceback, and report it |
| 130 | you interrupted it |

Without `--config`, a command reads `eccos.yaml` in your folder.
Where there is no such file, `ask`, `route` and `plan` use the bundled pocket pool.
"""


def reference() -> str:
    """The whole page."""
    return START + "".join(_command(name, command) for name, command in commands())


def commands() -> list[tuple[str, CommandInfo]]:
    """Every command with its full name, those of a group (`keys create`) after all others."""
    found = [(str(each.name), each) for each in app.registered_commands]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        found += [(f"{group.name} {each.name}", each) for each in group.typer_instance.registered_commands]
    return found


def _command(name: str, command: CommandInfo) -> str:
    assert command.callback is not None
    hints = get_type_hints(command.callback, include_extras=True)
    parameters = inspect.signature(command.callback).parameters.values()
    found = [(each.name, *get_args(hints[each.name])[:2], each.default) for each in parameters]
    found = [each for each in found if not each[2].hidden]
    arguments = [info.metavar for _, _, info, _ in found if isinstance(info, ArgumentInfo)]
    usage = " ".join(["eccos", name, *map(str, arguments), "[OPTIONS]"])
    said = inspect.cleandoc(command.callback.__doc__ or "")
    rows = "".join(_row(*each) for each in found)
    table = f"| parameter | default | what |\n|---|---|---|\n{rows}"
    return f"\n## eccos {name}\n\n{said}\n\n```text\n{usage}\n```\n\n{table}"


def _row(name: str, kind: Any, info: OptionInfo | ArgumentInfo, default: object) -> str:
    if isinstance(info, ArgumentInfo):
        shown = f"`{info.metavar}`"
    else:
        value = f" {info.metavar or _value(kind)}" if kind is not bool and kind != bool | None else ""
        # typer takes the first name of an option for its default until it sees the annotation
        first = [info.default] if isinstance(info.default, str) and info.default.startswith("-") else []
        names = [*first, *(info.param_decls or ())] or [f"--{name.replace('_', '-')}"]
        shown = ", ".join(f"`{each}{value if each.startswith('--') else ''}`" for each in names)
    return "| " + " | ".join(_cell(text) for text in (shown, _default(default), info.help or "")) + " |\n"


def _value(kind: Any) -> str:
    """What an option takes: the names of an enumeration, or the kind of a value."""
    bare = next((each for each in get_args(kind) if each is not type(None)), kind)
    if inspect.isclass(bare) and issubclass(bare, Enum):
        return "|".join(str(each.value) for each in bare)
    return {int: "N", float: "NUMBER", Path: "PATH"}.get(bare, "TEXT")


def _default(default: object) -> str:
    if default is inspect.Parameter.empty:
        return "required"
    if default is None or default is False:
        return ""
    return f"`{default.value if isinstance(default, Enum) else default}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, reference(), "tools.docs.cli_reference"))
