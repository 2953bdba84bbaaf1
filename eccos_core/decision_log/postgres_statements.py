"""Turn entries of the decision log into statements for PostgreSQL. Running one twice changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import TypeAlias

from eccos_core.decision_log.base import QueuedEntry
from eccos_core.decision_log.entries import (
    CalibrationEntry,
    CompletionEntry,
    DecisionEntry,
    LabelEntry,
    ShadowLabelEntry,
    SpendingEntry,
)
from eccos_core.decision_log.rows import DECISION_COLUMNS, completion_row, decision_row, judgement_row
from eccos_core.domain import LABEL_SOURCES

Statement: TypeAlias = tuple[str, tuple[object, ...]]
_JUDGED = ("judge", "grade", "uncalibrated", "preference", "calibration")


def _insert(table: str, columns: Sequence[str], conflict: str) -> str:
    places = ", ".join(["%s"] * len(columns))
    named = ", ".join(f'"{name}"' for name in columns)
    return f"INSERT INTO eccos_{table} ({named}) VALUES ({places}) ON CONFLICT {conflict}"  # noqa: S608 - constants


def _replace(columns: Sequence[str]) -> str:
    return "DO UPDATE SET " + ", ".join(f'"{name}" = excluded."{name}"' for name in columns)


_TRUST = "array_position(ARRAY[{}], CAST({{}} AS text))".format(", ".join(f"'{name}'" for name in LABEL_SOURCES))
_ADD_DECISION = _insert("decisions", (*DECISION_COLUMNS, "replica"), "(id) DO NOTHING")
_UPDATE_COMPLETION = """
UPDATE eccos_decisions SET model = %s, input_tokens = coalesce(%s, input_tokens), output_tokens = %s, paid_usd = %s,
  latency_s = %s, time_to_first_token_s = %s, attempts = %s, calls = %s WHERE id = %s
"""
_ADD_SPENDING = _insert("spending", ("id", "decision_id", "call", "usd", "at"), "(id) DO NOTHING")
_SAVE_SHADOW_LABEL = _insert(
    "shadow_labels",
    ("decision_id", "model", "quality", "at", *_JUDGED),
    f"(decision_id, model) {_replace(('quality', 'at', *_JUDGED))}",
)
_SAVE_CALIBRATION = _insert(
    "calibrations",
    ("version", "judge", "offset", "slope", "pairs", "at"),
    f"(version) {_replace(('judge', 'offset', 'slope', 'pairs', 'at'))}",
)
# the same label again keeps its number, so that no replica counts it twice
_SAVE_LABEL = f"""
INSERT INTO eccos_labels (decision_id, source, quality, at, {", ".join(_JUDGED)}, replica, number)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, nextval('eccos_label_numbers'))
ON CONFLICT (decision_id, source) {_replace(("quality", "at", *_JUDGED, "replica", "number"))}
WHERE eccos_labels.at <> excluded.at OR eccos_labels.replica <> excluded.replica
"""  # noqa: S608 - constants
# as `outranks` says
_UPDATE_LABEL = f"""
UPDATE eccos_decisions SET label = %s, labelled_at = %s, label_source = %s WHERE id = %s
AND (label IS NULL OR {_TRUST.format("%s")} <= {_TRUST.format("label_source")})
"""  # noqa: S608 - constants
# in this order, whatever order entries of one group came in: a decision is there before what belongs to it
_ORDER = (_ADD_DECISION, _UPDATE_COMPLETION, _ADD_SPENDING, _SAVE_SHADOW_LABEL, _SAVE_CALIBRATION, _SAVE_LABEL)


def statements_of(entry: QueuedEntry, key: str, replica: str, *, log_prompts: bool) -> list[Statement]:
    """Return what writes an entry. `key` is one of its own. Raises `ValueError` for an entry that cannot be stored."""
    match entry:
        case DecisionEntry():
            made = [(_ADD_DECISION, (*decision_row(entry, log_prompts=log_prompts), replica))]
        case CompletionEntry():
            made = [(_UPDATE_COMPLETION, completion_row(entry))]
        case SpendingEntry():
            made = [(_ADD_SPENDING, (key, entry.decision_id, entry.call, entry.usd, entry.at))]
        case ShadowLabelEntry():
            label = (entry.decision_id, entry.model, entry.quality, entry.at)
            made = [(_SAVE_SHADOW_LABEL, (*label, *judgement_row(entry.judgement)))]
        case CalibrationEntry():
            made = [(_SAVE_CALIBRATION, astuple(entry))]
        case LabelEntry():
            label = (entry.decision_id, entry.source, entry.quality, entry.at)
            changed = (entry.quality, entry.at, entry.source, entry.decision_id, entry.source)
            made = [(_SAVE_LABEL, (*label, *judgement_row(entry.judgement), replica)), (_UPDATE_LABEL, changed)]
    return [(statement, tuple(map(_storable, values))) for statement, values in made]


def in_order(statements: Sequence[Statement]) -> list[tuple[str, list[tuple[object, ...]]]]:
    """Return the rows of each statement together, in the order in which the statements must run."""
    rows: dict[str, list[tuple[object, ...]]] = {statement: [] for statement in (*_ORDER, _UPDATE_LABEL)}
    for statement, values in statements:
        rows[statement].append(values)
    return [(statement, values) for statement, values in rows.items() if values]


def _storable(value: object) -> object:
    """Replace the one character that PostgreSQL has no place for."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
