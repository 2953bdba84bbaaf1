"""Builds what remembers decisions: in memory, in the decision log, and for the conversations they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eccos_core.assembly.assembled import Assembled
    from eccos_core.config import Config
    from eccos_core.protocols import OnlineHistory
    from eccos_core.routing.decision_store import DecisionStore


def reuse_or_build_decision_store(
    config: Config, labels: OnlineHistory | None, current: Assembled | None
) -> DecisionStore:
    """Return the store in use where history, log and sessions stay. Else the next one keeps what stays of them.

    `labels` is the history that labels join.
    """
    from eccos_core.decision_log import open_decision_log
    from eccos_core.routing.decision_store import DecisionStore
    from eccos_core.routing.sessions import Sessions

    wanted = config.decision_log
    before = current.parts.decision_store if current is not None else None
    same_sessions = current is not None and current.config.sessions == config.sessions
    same_log = current is not None and current.config.decision_log == wanted
    if before is not None and same_sessions and same_log and before.history is labels:
        return before
    sessions = before.sessions if before is not None and same_sessions else None
    log = before.log if before is not None and same_log else None
    if log is None:
        log = open_decision_log(wanted.path, wanted.address, log_prompts=wanted.log_prompts, keep_days=wanted.keep_days)
    kept = config.sessions
    return DecisionStore(labels, log, sessions or Sessions(kept.max_sessions, kept.idle_s, kept.cache_s))
