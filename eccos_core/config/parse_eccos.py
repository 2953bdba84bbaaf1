"""The `eccos:` section: checked by its model, with every problem in its place."""

from __future__ import annotations

from pydantic import ValidationError

from eccos_core.config.context import ParseContext
from eccos_core.config.document import ECCOS
from eccos_core.config.schema import EccosSection


def parse_eccos_section(raw: object, context: ParseContext) -> EccosSection | None:
    """Check the section. Return None when it has problems, after adding them to the context."""
    try:
        return EccosSection.model_validate({} if raw is None else raw, context=context)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            context.problems.add(_place(each["loc"]), each["msg"])
    return None


def _place(location: tuple[int | str, ...]) -> str:
    """Write a location as `eccos.groups[0].models`."""
    return ECCOS + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
