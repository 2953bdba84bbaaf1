"""Entries of a decision log, and databases for logs in PostgreSQL."""

from __future__ import annotations

from uuid import uuid4

import numpy as np
import psycopg

from eccos_core.decision_log import BaseDecisionLog, CompletionEntry, DecisionEntry
from eccos_core.domain import Completion, Decision
from eccos_core.errors import Attempt

FORECAST = {"small": (0.6, 0.001), "large": (0.9, 0.010)}
ROWS = [  # who answered, USD paid, the label
    ("small", 0.001, 1.0), ("small", 0.003, None), ("large", 0.012, 0.0), ("small", 0.001, 0.0),
    ("large", 0.008, 1.0), ("large", 0.011, None), ("large", 0.009, 1.0), ("small", 0.002, 1.0),
]  # fmt: skip


def new_database(server: str) -> str:
    """Make a database that no other test uses. Returns its address."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return server.rpartition("/")[0] + "/" + name


def decided(name: str, model: str = "small", at: float = 100.0) -> DecisionEntry:
    return DecisionEntry(
        decision=Decision(
            id=name, request_id="r", model=model, quality=0.8, quality_se=0.05, cost_usd=0.001, runner_up="large",
            reason="because", usd_per_quality=0.02,
        ),
        text="what is the secret?",
        vector=np.array([0.6, 0.8], dtype=np.float32),
        input_tokens=7,
        forecast={"small": (0.8, 0.001), "large": (0.9, 0.01)},
        session_id="s",
        at=at,
    )  # fmt: skip


def answered(name: str, model: str = "small") -> CompletionEntry:
    return CompletionEntry(
        name,
        Completion("yes", model, 9, 3, 0.002, 0.5, time_to_first_token_s=0.1),
        (Attempt("other", "timeout", "too slow", 1.0),),
    )


def fill(log: BaseDecisionLog, rows: list[tuple[str, float, float | None]]) -> None:
    """Write decisions of the same forecasts, one second apart from second 100 on, with answers and labels."""
    for number, (model, paid, label) in enumerate(rows):
        quality, cost = FORECAST[model]
        made = Decision(f"d{number}", f"r{number}", model, quality, 0.1, cost, None, "because")
        vector = np.ones(2, dtype=np.float32)
        log.add_decision(DecisionEntry(made, f"Question {number}?", vector, 10, FORECAST, at=100.0 + number))
        log.add_completion(CompletionEntry(made.id, Completion("yes", model, 10, 5, paid, 0.1)))
        if label is not None:
            log.label(made.id, label)
