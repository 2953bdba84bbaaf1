"""An old key or value is refused, and the message says the new name."""

from pathlib import Path

import pytest

from eccos_core.config import load_config
from eccos_core.config.renamed import RENAMED_KEYS, RENAMED_VALUES
from eccos_core.errors import ConfigError

POOL = "model_list:\n- {model_name: m, litellm_params: {model: openai/x}, model_info: {free: true}}\n"
OLD_KEYS = [
    ("encoder: {kind: minilm, middle: false}", "encoder.middle", "intermediate_layer"),
    ("predictor: {kind: retrieval, living: true}", "predictor.living", "online"),
    ("stream: {worst_ahead: 0.5}", "stream.worst_ahead", "floor_insurance"),
    ("retries: {first_wait_s: 1}", "retries.first_wait_s", "initial_backoff_s"),
    ("retries: {longest_wait_s: 1}", "retries.longest_wait_s", "max_backoff_s"),
    ("sessions: {remembered: 1}", "sessions.remembered", "max_sessions"),
    ("decision_log: {keep_text: true}", "decision_log.keep_text", "log_prompts"),
    ("telemetry: {keep_text: true}", "telemetry.keep_text", "log_prompts"),
]
OLD_VALUES = [
    ("stream: {floor_insurance: seen}", "stream.floor_insurance", "'seen' is called 'history' now"),
    ("stream: {floor_insurance: trend}", "stream.floor_insurance", "'trend' is called 'none' now"),
]


def problems_of(folder: Path, section: str) -> list[tuple[str, str]]:
    (folder / "eccos.yaml").write_text(POOL + f"eccos: {{{section}}}")
    with pytest.raises(ConfigError) as raised:
        load_config(folder / "eccos.yaml")
    return [(problem.place, problem.message) for problem in raised.value.problems]


@pytest.mark.parametrize(("section", "place", "new"), OLD_KEYS)
def test_an_old_key_is_refused_with_its_new_name(tmp_path: Path, section: str, place: str, new: str) -> None:
    assert problems_of(tmp_path, section) == [(f"eccos.{place}", f"is called {new} now")]


@pytest.mark.parametrize(("section", "place", "message"), OLD_VALUES)
def test_an_old_value_is_refused_with_its_new_name(tmp_path: Path, section: str, place: str, message: str) -> None:
    assert problems_of(tmp_path, section) == [(f"eccos.{place}", message)]


def test_an_old_key_with_an_old_value_says_both_new_names(tmp_path: Path) -> None:
    expected = "is called floor_insurance now, and its value 'seen' is called 'history'"
    assert problems_of(tmp_path, "stream: {worst_ahead: seen}") == [("eccos.stream.worst_ahead", expected)]


def test_an_old_key_in_another_section_is_an_unknown_key(tmp_path: Path) -> None:
    [(place, message)] = problems_of(tmp_path, "workload: {middle: true}")
    assert place == "eccos.workload.middle"
    assert message.startswith("unknown key")


def test_every_old_name_has_a_test() -> None:
    assert {place.partition(".")[2] for _, place, _ in OLD_KEYS} == set(RENAMED_KEYS)
    assert {new for _, _, new in OLD_KEYS} == set(RENAMED_KEYS.values())
    values = [message for _, _, message in OLD_VALUES]
    old = {(a, b) for renamed in RENAMED_VALUES.values() for a, b in renamed.items()}
    assert {f"{a!r} is called {b!r} now" for a, b in old} == set(values)
