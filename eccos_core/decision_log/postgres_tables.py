"""The tables of a decision log in PostgreSQL, and their version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eccos_core.errors import InputError

if TYPE_CHECKING:
    import psycopg

VERSION = 1
MAKE_LOCK, LABEL_LOCK = 0x0ECC05_01, 0x0ECC05_02  # advisory locks: one makes tables at a time, one writes labels
_JUDGED = "judge TEXT, grade FLOAT8, uncalibrated FLOAT8, preference FLOAT8, calibration TEXT"
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS eccos_decisions (
  id TEXT PRIMARY KEY, at FLOAT8 NOT NULL, request_id TEXT NOT NULL, session_id TEXT, tenant TEXT,
  decided_model TEXT NOT NULL, quality FLOAT8 NOT NULL, cost_usd FLOAT8 NOT NULL, usd_per_quality FLOAT8 NOT NULL,
  floor_met BIGINT NOT NULL, reason TEXT NOT NULL, forecast TEXT NOT NULL, text TEXT, text_key TEXT NOT NULL,
  vector BYTEA NOT NULL, model TEXT, input_tokens BIGINT, output_tokens BIGINT, paid_usd FLOAT8, latency_s FLOAT8,
  time_to_first_token_s FLOAT8, attempts TEXT NOT NULL DEFAULT '[]', label FLOAT8, labelled_at FLOAT8,
  propensity FLOAT8 NOT NULL DEFAULT 1.0, label_source TEXT, calls TEXT NOT NULL DEFAULT '[]', quality_asked FLOAT8,
  left_out TEXT NOT NULL DEFAULT '[]', replica TEXT
);
CREATE TABLE IF NOT EXISTS eccos_labels (
  decision_id TEXT NOT NULL, source TEXT NOT NULL, quality FLOAT8 NOT NULL, at FLOAT8 NOT NULL, {_JUDGED},
  replica TEXT NOT NULL, number BIGINT NOT NULL, PRIMARY KEY (decision_id, source)
);
CREATE TABLE IF NOT EXISTS eccos_shadow_labels (
  decision_id TEXT NOT NULL, model TEXT NOT NULL, quality FLOAT8 NOT NULL, at FLOAT8 NOT NULL, {_JUDGED},
  PRIMARY KEY (decision_id, model)
);
CREATE TABLE IF NOT EXISTS eccos_calibrations (
  version TEXT PRIMARY KEY, judge TEXT NOT NULL, "offset" FLOAT8 NOT NULL, slope FLOAT8 NOT NULL,
  pairs BIGINT NOT NULL, at FLOAT8 NOT NULL
);
CREATE TABLE IF NOT EXISTS eccos_spending (
  id TEXT PRIMARY KEY, decision_id TEXT NOT NULL, call TEXT NOT NULL, usd FLOAT8 NOT NULL, at FLOAT8 NOT NULL
);
CREATE TABLE IF NOT EXISTS eccos_replicas (
  name TEXT PRIMARY KEY, started_at FLOAT8 NOT NULL, seen_at FLOAT8 NOT NULL, dropped BIGINT NOT NULL,
  stopped BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE SEQUENCE IF NOT EXISTS eccos_label_numbers;
CREATE INDEX IF NOT EXISTS eccos_labels_number ON eccos_labels (number);
CREATE INDEX IF NOT EXISTS eccos_decisions_at ON eccos_decisions (at);
CREATE TABLE IF NOT EXISTS eccos_log_version (version BIGINT NOT NULL)
"""


def make_tables(connection: psycopg.Connection[Any], place: str) -> None:
    """Make the tables where they are missing, and check their version. Raises `InputError` for another version."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (MAKE_LOCK,))
    if connection.execute("SELECT to_regclass('eccos_log_version')").fetchone() == (None,):
        for statement in SCHEMA.split(";"):
            connection.execute(statement.encode())
        connection.execute("INSERT INTO eccos_log_version VALUES (%s)", (VERSION,))
    row = connection.execute("SELECT max(version) FROM eccos_log_version").fetchone()
    found = row[0] if row is not None else None
    if found != VERSION:
        raise InputError(
            f"the decision log {place} has version {found}, and this eccos writes version {VERSION}. Use the same "
            "version of eccos for all replicas, or another database."
        )
