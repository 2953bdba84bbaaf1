"""Old names of keys and values. A file that uses one is refused, and the message says the new name."""

from __future__ import annotations

from typing import Final

RENAMED_KEYS: Final = {
    "middle": "intermediate_layer",
    "living": "online",
    "worst_ahead": "floor_insurance",
    "first_wait_s": "initial_backoff_s",
    "longest_wait_s": "max_backoff_s",
    "remembered": "max_sessions",
    "keep_text": "log_prompts",
}
"""Old key -> new key. An old key counts only in a section that has the new one."""

RENAMED_VALUES: Final = {"floor_insurance": {"seen": "history", "trend": "none"}}
"""Key -> old value -> new value."""
