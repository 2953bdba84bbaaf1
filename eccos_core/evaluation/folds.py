"""Decide which questions train and which test: by the hash of the id, by file, or one group left out at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import IntArray, OutcomeTable
from eccos_core.errors import InputError, did_you_mean
from eccos_core.io.outcome_tables import joined, with_models
from eccos_core.io.outcomes import is_test


@dataclass(frozen=True, slots=True)
class ReplaySample:
    """Train on `rows` training rows only, drawn with `seed`. A smaller sample is always part of a larger one."""

    rows: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise InputError(f"the number of training rows is {self.rows}, it must be >= 1")

    def of(self, rows: IntArray) -> IntArray:
        """Draw from these rows, and keep their order."""
        order = np.random.default_rng(self.seed).permutation(len(rows))
        return np.asarray(rows[np.sort(order[: self.rows])])


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Rows of one table to train on (N,) and to test on (R,)."""

    train: IntArray
    test: IntArray


def make_folds(
    table: OutcomeTable, train: OutcomeTable | None, sample: ReplaySample | None, split_by: str | None
) -> tuple[OutcomeTable, tuple[Fold, ...]]:
    """Return one table of all answered questions, and its folds.

    By default there is one fold, by the hash of the id. With `train`, everything in `table` is tested. With `split_by`,
    the name of a label, every group of questions is tested by routers that were fitted on the other groups. Raises
    `InputError` when there is nothing to train on or to test.
    """
    if split_by is not None:
        if train is not None:
            raise InputError("choose one: training data of their own, or a label to split by")
        table = _drop_unanswered(table)
        folds = _one_group_out(table, split_by)
    elif train is not None:
        _refuse_shared_questions(train, table)
        train, test = _drop_unanswered(train), _drop_unanswered(_align_models(table, train.models))
        table = joined(train, test)
        folds = (Fold(np.arange(len(train)), np.arange(len(train), len(table))),)
    else:
        table = _drop_unanswered(table)
        tested = np.array([is_test(question_id) for question_id in table.question_ids], dtype=np.bool_)
        folds = (Fold(np.flatnonzero(~tested), np.flatnonzero(tested)),)
    for fold in folds:
        for name, rows in (("training", fold.train), ("test", fold.test)):
            if not len(rows):
                raise InputError(
                    f"there are no {name} questions with a known outcome after the split. Give more questions, or "
                    "put training and test data into files of their own."
                )
    if sample is not None:
        folds = tuple(Fold(sample.of(fold.train), fold.test) for fold in folds)
    return table, folds


def _one_group_out(table: OutcomeTable, label: str) -> tuple[Fold, ...]:
    """Return one fold per group of a label. Questions without the label are always trained on."""
    if label not in table.labels:
        raise InputError(
            f"no question has the label {label!r}{did_you_mean(label, table.labels) or '.'} "
            f"The labels are: {', '.join(table.labels) or 'none'}."
        )
    groups = np.array([value or "" for value in table.labels[label]])
    names = [name for name in dict.fromkeys(table.labels[label]) if name]
    if len(names) < 2:
        raise InputError(f"every question has the same {label}, so there is no other group to train on")
    return tuple(Fold(np.flatnonzero(groups != name), np.flatnonzero(groups == name)) for name in names)


def _refuse_shared_questions(train: OutcomeTable, test: OutcomeTable) -> None:
    shared = set(train.question_ids) & set(test.question_ids)
    if shared:
        raise InputError(
            f"{len(shared)} questions are in both the training and the test data, {min(shared)!r} for one. "
            "A router must not be tested on its training data. Remove them from one of the files."
        )


def _drop_unanswered(table: OutcomeTable) -> OutcomeTable:
    """Keep the rows with at least one known outcome."""
    return table.rows(np.flatnonzero((~np.isnan(table.quality)).any(axis=1)))


def _align_models(table: OutcomeTable, models: tuple[str, ...]) -> OutcomeTable:
    """Give the table these models as columns, in this order. A model without outcomes becomes a column of NaN."""
    unknown = [model for model in table.models if model not in models]
    if unknown:
        raise InputError(
            f"the test data has models that the training data lacks: {', '.join(unknown)}. "
            "Remove them, or add their outcomes to the training data."
        )
    return with_models(table, models)
