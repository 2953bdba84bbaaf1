"""Problems and warnings found while a configuration file is read, and how values are shown in them."""

from __future__ import annotations

from pathlib import Path

from eccos_core.config.yaml import describe_yaml
from eccos_core.errors import Problem


class Problems:
    """Every problem and warning found so far.

    `not_applied` are the warnings about rules that do not hold here. `translated` says what became of LiteLLM's
    settings that do. `left_out` maps the names of entries that do not join the pool to the reason.
    """

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.warnings: list[str] = []
        self.not_applied: list[str] = []
        self.translated: list[str] = []
        self.left_out: dict[str, str] = {}

    def add(self, place: str, message: str) -> None:
        """Add a problem once."""
        problem = Problem(place, message)
        if problem not in self.found:
            self.found.append(problem)

    def add_all(self, others: Problems) -> None:
        """Add the problems of another list."""
        for problem in others.found:
            self.add(problem.place, problem.message)

    def warn(self, place: str, message: str) -> None:
        """Add a warning once: something that is not wrong, but worth knowing."""
        _add_once(self.warnings, f"{place}: {message}")

    def leave_out(self, place: str, name: str, reason: str) -> None:
        """Add once why an entry of `model_list` does not join the pool."""
        self.left_out[name] = reason
        self.warn(place, f"left out of the pool: {reason}")

    def not_apply(self, place: str, message: str) -> None:
        """Add once that a rule of the file, which its writer may rely on, does not hold here."""
        _add_once(self.not_applied, f"{place}: {message}")

    def translate(self, place: str, message: str) -> None:
        """Add once what a setting of LiteLLM becomes."""
        _add_once(self.translated, f"{place}: {message}")


def _add_once(warnings: list[str], warning: str) -> None:
    if warning not in warnings:
        warnings.append(warning)


def show_value(value: object) -> str:
    """Show a value in a message. Scalars use YAML's spelling and are cut short. Collections show only their kind."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case int() | float():
            return repr(value)
        case _:
            return describe_yaml(value)


def resolve_path(path: str | Path, folder: Path) -> Path:
    """Make a path absolute. A relative path starts at `folder`, and `~` is the home folder."""
    return (folder / Path(path).expanduser()).resolve()
