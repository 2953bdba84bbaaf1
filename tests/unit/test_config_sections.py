"""The `eccos:` section: defaults, short words and mappings, and the paths that they name."""

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from eccos_core import config as configs
from eccos_core.config import Config, load_config
from eccos_core.domain import Budget, Policy, QualityFloor, QualityPrice
from eccos_core.errors import ConfigError

EXAMPLES = Path(__file__).parents[2] / "examples" / "configs"
POOL = """
model_list:
- {model_name: m, litellm_params: {model: openai/x}, model_info: {free: true, tags: [eu]}}
- {model_name: n, litellm_params: {model: openai/y}, model_info: {free: true}}
"""


def load(folder: Path, section: str | None = None, **environment: str) -> Config:
    file = folder / "eccos.yaml"
    file.write_text(POOL + ("" if section is None else f"eccos: {{{section}}}\n"))
    return load_config(file, environment=environment)


def test_a_file_without_our_section_gets_sensible_defaults(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert config.policy == QualityFloor(0.75, "best_effort")
    assert config.encoder == configs.SentenceTransformerConfig(model="minilm", device="auto", threads=1)
    assert config.predictor == configs.HybridConfig(artifact=None)
    assert config.history == configs.ChromaPersistentConfig(path=tmp_path / ".eccos" / "history")
    log = configs.DecisionLogConfig(path=tmp_path / ".eccos" / "decisions.sqlite", log_prompts=False)
    assert config.decision_log == log
    assert config.telemetry == configs.TelemetryConfig(enabled=False)
    assert config.warnings == ()


def test_an_empty_section_is_no_section(tmp_path: Path) -> None:
    (tmp_path / "eccos.yaml").write_text(POOL + "eccos:\n")
    assert load_config(tmp_path / "eccos.yaml").policy == load(tmp_path).policy


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("{quality_floor: 0.9}", QualityFloor(0.9, "error")),
        ("{quality_floor: 0.9, confidence: 0.8}", QualityFloor(0.9, "error", 0.8)),
        ("{quality_floor: 0, on_infeasible: best_effort}", QualityFloor(0.0, "best_effort")),
        ("{budget_usd: 2}", Budget(2.0)),
        ("{usd_per_quality_point: 1e-4}", QualityPrice(1e-4)),
    ],
)
def test_each_policy_has_its_key(tmp_path: Path, text: str, policy: Policy) -> None:
    assert load(tmp_path, f"policy: {text}").policy == policy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("minilm", configs.SentenceTransformerConfig()),
        ("static", configs.StaticConfig(model="minilm", dimensions=384)),
        ("org/some-model", configs.SentenceTransformerConfig(kind="sentence_transformer", model="org/some-model")),
        (
            "all-mpnet-base-v2",
            configs.SentenceTransformerConfig(kind="sentence_transformer", model="all-mpnet-base-v2"),
        ),
        ("{kind: minilm, threads: 2, device: 'cuda:1'}", configs.SentenceTransformerConfig(device="cuda:1", threads=2)),
        ("{kind: minilm, intermediate_layer: false}", configs.SentenceTransformerConfig(intermediate_layer=False)),
        ("{kind: static, model: org/m, dimensions: 64}", configs.StaticConfig(model="org/m", dimensions=64)),
        (
            "[minilm, static]",
            configs.ConcatenatedConfig(encoders=(configs.SentenceTransformerConfig(), configs.StaticConfig())),
        ),
        ("{kind: concatenated, encoders: [static]}", configs.ConcatenatedConfig(encoders=(configs.StaticConfig(),))),
    ],
)
def test_an_encoder_is_a_word_a_mapping_or_a_list(tmp_path: Path, text: str, expected: configs.EncoderConfig) -> None:
    assert load(tmp_path, f"encoder: {text}").encoder == expected


def test_an_encoder_folder_is_seen_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir("/")
    expected = configs.SentenceTransformerConfig(kind="sentence_transformer", model=str(tmp_path / "model"))
    assert load(tmp_path, "encoder: ./model").encoder == expected
    assert load(tmp_path, "encoder: model").encoder == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prior", configs.PriorConfig()),
        ("{kind: retrieval, neighbours: 16, bandwidth: 0.1}", configs.RetrievalConfig(neighbours=16, bandwidth=0.1)),
        ("{kind: retrieval, online: true}", configs.RetrievalConfig(online=True)),
        ("{kind: trained, method: fine_tuned}", configs.TrainedConfig(method="fine_tuned")),
        ("{kind: hybrid}", configs.HybridConfig()),
    ],
)
def test_each_predictor_has_its_class(tmp_path: Path, text: str, expected: configs.PredictorConfig) -> None:
    assert load(tmp_path, f"predictor: {text}").predictor == expected


def test_relative_paths_are_seen_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    config = load(
        tmp_path,
        "predictor: {artifact: ./fitted}, history: {path: store}, decision_log: {path: ../log.db}, "
        "labels: {reward: ./reward}",
    )
    assert config.predictor == configs.HybridConfig(artifact=tmp_path / "fitted")
    assert config.history == configs.ChromaPersistentConfig(path=tmp_path / "store")
    assert config.decision_log.path == tmp_path.parent / "log.db"
    assert config.labels.reward == tmp_path / "reward"


def test_a_history_is_a_folder_a_server_or_memory(tmp_path: Path) -> None:
    assert load(tmp_path, "history: in_memory").history == configs.InMemoryConfig()
    expected = configs.InMemoryConfig(outcomes=tmp_path / "outcomes.jsonl")
    assert load(tmp_path, "history: {outcomes: outcomes.jsonl}").history == expected
    server = load(tmp_path, "history: {url: 'https://h:8000', headers: {X-Token: os.environ/T}}", T="sesame").history
    assert isinstance(server, configs.ChromaServerConfig)
    assert (server.url, server.headers["X-Token"]) == ("https://h:8000", "sesame")
    assert "sesame" not in repr(server)


@pytest.mark.parametrize("word", ["off", "false", "no"])
def test_the_decision_log_can_be_off(tmp_path: Path, word: str) -> None:
    assert load(tmp_path, f"decision_log: {word}").decision_log.path is None


def test_tenants_and_groups_name_models_and_tags_of_the_pool(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "tenants: {a: {policy: {budget_usd: 1}, allow: [m, n], deny: [n], required_tags: [eu], min_quality: 0.2}},"
        " groups: [{tags: [eu], at_least: 0.25}]",
    )
    assert config.tenants["a"] == configs.TenantConfig(
        policy=Budget(1.0),
        min_quality=0.2,
        allow=frozenset({"m", "n"}),
        deny=frozenset({"n"}),
        required_tags=frozenset({"eu"}),
    )
    assert config.groups == (configs.GroupConfig(name="eu", tags=frozenset({"eu"}), at_least=0.25, at_most=1.0),)


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.name)
def test_every_sample_configuration_loads_without_a_warning(file: Path) -> None:
    config = load_config(file, environment={"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b"})
    assert config.warnings == ()


def test_the_sample_with_every_setting_shows_the_defaults(tmp_path: Path) -> None:
    shown = load_config(EXAMPLES / "every_setting.yaml")
    default = load(tmp_path)
    for name in ("policy", "encoder", "conversation", "optimizer", "retries", "sessions", "telemetry"):
        assert getattr(shown, name) == getattr(default, name), name


def test_the_sample_with_every_setting_has_every_setting(tmp_path: Path) -> None:
    written = yaml.safe_load((EXAMPLES / "every_setting.yaml").read_text())["eccos"]
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, "x: 1")
    known = str(raised.value).partition("known here: ")[2].rstrip(")").split(", ")
    assert sorted(written) == known
    page = (EXAMPLES.parents[1] / "docs" / "reference" / "configuration.md").read_text()
    assert [key for key in known if f"## `{key}`" not in page] == []


@pytest.mark.parametrize(("written", "read"), [("none", "none"), ("history", "history"), ("0", 0.0), ("0.4", 0.4)])
def test_how_hard_requests_a_stream_is_insured_against_is_a_word_or_a_quality(
    tmp_path: Path, written: str, read: object
) -> None:
    assert load(tmp_path, f"stream: {{promise: window, floor_insurance: {written}}}").stream.floor_insurance == read
    assert load(tmp_path).stream.floor_insurance == "none"


@pytest.mark.parametrize(
    ("written", "read"),
    [("500", 500), ("1d", timedelta(days=1)), ("12 h", timedelta(hours=12)), ("1.5min", timedelta(seconds=90))],
)
def test_a_horizon_is_a_number_of_requests_or_a_duration(tmp_path: Path, written: str, read: object) -> None:
    assert load(tmp_path, f"stream: {{horizon: {written}}}").stream.horizon == read
    assert load(tmp_path).stream.horizon == 10_000


def test_learning_is_off_until_it_is_written(tmp_path: Path) -> None:
    assert load(tmp_path).learning is None
    assert load(tmp_path, "learning: {}").learning == configs.LearningConfig(
        explore="off", share=0.05, budget_usd_per_day=2.0, forget=1.0
    )
    found = load(tmp_path, "learning: {explore: off, share: 0.1}").learning
    assert found is not None
    assert (found.explore, found.share) == ("off", 0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("explore: sometimes", "explore"),
        ("explore: thompson, share: 1.5", "share"),
        ("budget_usd_per_day: -1", "budget_usd_per_day"),
        ("forget: 0", "forget"),
        ("forgett: 0.9", "forget"),
    ],
)
def test_a_learning_section_outside_its_ranges_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, f"learning: {{{text}}}")
