"""Everything that can be wrong in a configuration file, and the words in which it is said."""

from pathlib import Path

import pytest

from eccos_core.config import load_config
from eccos_core.errors import ConfigError

GOOD_MODEL = "model_list:\n- {model_name: m, litellm_params: {model: openai/x}, model_info: {free: true}}\n"


def problems_of(folder: Path, text: str, environment: dict[str, str] | None = None) -> list[tuple[str, str]]:
    file = folder / "eccos.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_config(file, environment=environment or {})
    assert str(file) in str(raised.value)
    return [(problem.place, problem.message) for problem in raised.value.problems]


def entry(params: str = "", info: str = "free: true", model: str = "openai/x") -> str:
    return f"model_list:\n- {{model_name: m, litellm_params: {{model: {model}, {params}}}, model_info: {{{info}}}}}\n"


# ------------------------------------------------------------------ the file as a whole


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: the file does not exist"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder, must be a YAML file"):
        load_config(tmp_path)


def test_a_file_in_another_encoding_is_refused_with_the_byte(tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes("model_list: [é]".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not UTF-8 text: byte 13"):
        load_config(file)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_says_what_it_needs(tmp_path: Path, text: str) -> None:
    assert problems_of(tmp_path, text) == [("", "is empty; it needs at least a model_list")]


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text", "42"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    [(_, message)] = problems_of(tmp_path, text)
    assert "must hold a mapping with a model_list" in message


def test_what_is_not_yaml_is_placed_by_line_and_column(tmp_path: Path) -> None:
    [(place, message)] = problems_of(tmp_path, "model_list:\n\t- a\n")
    assert place == "line 2, column 1"
    assert message.startswith("is not YAML: ")


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system [date]",
        "a: 2024-13-45",
        "? [a, b]\n: c",
        "a: \x00",
        "a: *missing",
        "a: 1\n---\nb: 2",
        "[" * 3000,
    ],
)
def test_strange_yaml_is_a_problem_of_the_file_and_nothing_is_run(tmp_path: Path, text: str) -> None:
    assert len(problems_of(tmp_path, text)) == 1


def test_an_alias_that_contains_itself_does_not_hang(tmp_path: Path) -> None:
    assert "contains itself" in problems_of(tmp_path, entry("extra_body: &a {b: [*a, *a]}"))[0][1]


def test_a_key_given_twice_is_a_problem_with_both_lines(tmp_path: Path) -> None:
    found = problems_of(tmp_path, GOOD_MODEL + "eccos:\n  encoder: minilm\n  encoder: static\n")
    assert found == [
        ("line 5, column 3", "the key 'encoder' is given twice in one mapping (first in line 4); keep one")
    ]


def test_a_merged_key_may_be_overridden(tmp_path: Path) -> None:
    file = tmp_path / "eccos.yaml"
    file.write_text(
        "shared: &shared {rpm: 6}\n"
        "model_list:\n"
        "- {model_name: m, litellm_params: {<<: *shared, model: openai/x, rpm: 7}, model_info: {free: true}}\n"
    )
    assert load_config(file).pool[0].requests_per_minute == 7


# ------------------------------------------------------------------ model_list


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("model_list: []", "model_list", "is empty, must list at least one model"),
        ("litellm_settings: {}", "model_list", "is missing"),
        ("eccos: {}\ninclude: []", "model_list", "is missing"),
        ("model_list: {a: b}", "model_list", "is a mapping, must be a list of models"),
        ("model_list: sk-secret", "model_list", "is text, must be a list of models"),
        ("model_list: [5]", "model_list[0]", "is a number, must be a mapping"),
        ("model_list: [{model_name: m}]", "model_list[0] 'm'.litellm_params", "is missing"),
        ("model_list: [{model_name: m, litellm_params: 3}]", "model_list[0] 'm'.litellm_params", "must be a mapping"),
        ("model_list: [{model_name: m, litellm_params: {}}]", "model_list[0] 'm'.litellm_params.model", "is missing"),
        ("model_list: [{litellm_params: {model: a}}]", "model_list[0].model_name", "is missing"),
        ("model_list: [{model_name: 4, litellm_params: {model: a}}]", "model_list[0].model_name", "is 4, must be text"),
        ("modle_list: []", "modle_list", "did you mean 'model_list'?"),
        (GOOD_MODEL + "ecos: {}", "ecos", "did you mean 'eccos'?"),
        ('model_list: [{model_name: "*", litellm_params: {model: "openai/*"}}]', "model_list", "leaves no model"),
        (entry("rpm: abc"), "model_list[0] 'm'.litellm_params.rpm", "is 'abc', must be a whole number >= 1"),
        (entry("tpm: 0"), "model_list[0] 'm'.litellm_params.tpm", "is 0, must be a whole number >= 1"),
        (entry("weight: -1"), "model_list[0] 'm'.litellm_params.weight", "is -1, must be a number > 0"),
        (entry(info="free: true, max_concurrency: 0"), "model_list[0] 'm'.model_info.max_concurrency", "is 0, must be"),
        (entry("max_parallel_requests: 0"), "model_list[0] 'm'.litellm_params.max_parallel_requests", ">= 1"),
        (entry(info="free: maybe"), "model_list[0] 'm'.model_info.free", "is 'maybe', must be true or false"),
        (entry(info="free: true, max_input_tokens: 1.5"), "model_list[0] 'm'.model_info.max_input_tokens", "is 1.5"),
        (entry(info="free: true, supports_vision: 1"), "model_list[0] 'm'.model_info.supports_vision", "true or false"),
        (entry(info="free: true, tags: eu"), "model_list[0] 'm'.model_info.tags", "is 'eu', must be a list of names"),
        (
            entry(info="free: true, assumed_quality: 75"),
            "model_list[0] 'm'.model_info.assumed_quality",
            "between 0 and 1",
        ),
        (
            entry(info="free: true, assume_like: n"),
            "model_list[0] 'm'.model_info.assume_like",
            "must name a model of the",
        ),
        (entry(info="free: true, assume_like: m"), "model_list[0] 'm'.model_info.assume_like", "another model"),
        (entry("max_concurrency: 3"), "model_list[0] 'm'.litellm_params.max_concurrency", "belongs under model_info"),
        (
            entry(model="eccos-local/pocket-smal"),
            "model_list[0] 'm'.litellm_params.model",
            "did you mean 'pocket-small'?",
        ),
        (entry(model="eccos-local/./nothing"), "model_list[0] 'm'.litellm_params.model", "with a config.json"),
    ],
)
def test_a_wrong_model_list_is_told_with_place_and_rule(tmp_path: Path, text: str, place: str, words: str) -> None:
    found = problems_of(tmp_path, text)
    assert [where for where, _ in found] == [place]
    assert words in found[0][1]


@pytest.mark.parametrize(
    ("params", "info", "place", "words"),
    [
        ("", "id: a", "", "no price is known for 'openai/x': add input_cost_per_token and output_cost_per_token"),
        ("input_cost_per_token: 1e-6", "id: a", "", "output_cost_per_token is missing beside input_cost_per_token"),
        ("", "output_cost_per_token: 1e-6", "", "input_cost_per_token is missing beside output_cost_per_token"),
        ("input_cost_per_second: 1e-4", "id: a", "", "its price is per second: add model_info.tokens_per_hour"),
        ("input_cost_per_token: -1", "id: a", ".litellm_params.input_cost_per_token", "is -1, must be a number >= 0"),
        ("", "input_cost_per_token: .nan", ".model_info.input_cost_per_token", "is nan, must be a number >= 0"),
        ("", "input_cost_per_token: .inf", ".model_info.input_cost_per_token", "is inf, must be a number >= 0"),
        ("", "input_cost_per_token: true", ".model_info.input_cost_per_token", "is true, must be a number >= 0"),
        (
            "input_cost_per_token: 1",
            "input_cost_per_token: 2, output_cost_per_token: 1",
            "",
            "is 2 under model_info and 1",
        ),
        (
            "",
            "free: true, input_cost_per_token: 1, output_cost_per_token: 1",
            "",
            "has more than one price (free: true and",
        ),
        ("", "free: true, usd_per_gpu_hour: 2", "", "has more than one price (free: true and usd_per_gpu_hour)"),
        ("", "usd_per_gpu_hour: 2", ".model_info.usd_per_gpu_hour", "needs tokens_per_hour beside it"),
        ("", "usd_per_gpu_hour: 2, tokens_per_hour: 0", ".model_info.tokens_per_hour", "is 0, must be a number > 0"),
    ],
)
def test_a_price_is_complete_or_a_problem(tmp_path: Path, params: str, info: str, place: str, words: str) -> None:
    found = problems_of(tmp_path, entry(params, info) + "eccos: {unpriced: error}\n")
    assert [where for where, _ in found] == ["model_list[0] 'm'" + place]
    assert words in found[0][1]


def test_a_misspelt_model_is_met_with_the_nearest_name_and_never_with_its_price(tmp_path: Path) -> None:
    [(_, message)] = problems_of(tmp_path, entry(model="openai/gpt-4o-mni", info="id: a") + "eccos: {unpriced: error}")
    assert "did you mean 'gpt-4o-mini'?" in message


def test_an_unset_variable_is_named_wherever_it_stands(tmp_path: Path) -> None:
    text = entry(
        "api_key: os.environ/KEY_A, extra_headers: {Authorization: [os.environ/KEY_B]}, api_base: os.environ/EMPTY"
    )
    assert problems_of(tmp_path, text, {"EMPTY": ""}) == [
        (
            "model_list[0] 'm'.litellm_params.api_key",
            "the environment variable KEY_A is not set; export KEY_A=... before starting",
        ),
        (
            "model_list[0] 'm'.litellm_params.extra_headers.Authorization[0]",
            "the environment variable KEY_B is not set; export KEY_B=... before starting",
        ),
        (
            "model_list[0] 'm'.litellm_params.api_base",
            "the environment variable EMPTY is empty; export EMPTY=... before starting",
        ),
    ]


def test_a_wrong_value_from_the_environment_is_not_shown(tmp_path: Path) -> None:
    found = problems_of(tmp_path, entry("rpm: os.environ/RPM"), {"RPM": "hunter2"})
    assert found == [
        (
            "model_list[0] 'm'.litellm_params.rpm",
            "comes from the environment variable RPM, must be a whole number >= 1",
        )
    ]


def test_a_secret_written_after_the_prefix_is_not_repeated(tmp_path: Path) -> None:
    [(_, message)] = problems_of(tmp_path, entry("api_key: os.environ/sk-live-123"))
    assert message == "must name an environment variable after os.environ/ (letters, digits, underscores)"


DEPLOYMENTS = """
model_list:
- {{model_name: m, litellm_params: {{model: openai/x}}, model_info: {{free: true, {first}}}}}
- {{model_name: m, litellm_params: {{model: openai/y}}, model_info: {{free: true, {second}}}}}
"""


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("assumed_quality: 0.4", "assumed_quality: 0.5", "assumed_quality: 0.4 in model_list[0]; 0.5 in"),
    ],
)
def test_deployments_that_contradict_each_other_are_a_problem(
    tmp_path: Path, first: str, second: str, words: str
) -> None:
    [(place, message)] = problems_of(tmp_path, DEPLOYMENTS.format(first=first, second=second))
    assert place == "model_list[1] 'm'"
    assert words in message
    assert "Make them equal, or two models" in message


def test_models_that_are_assumed_like_each_other_in_a_circle_are_a_problem(tmp_path: Path) -> None:
    text = DEPLOYMENTS.format(first="assume_like: n", second="assume_like: m").replace(
        "model_name: m, litellm_params: {model: openai/y}", "model_name: n, litellm_params: {model: openai/y}"
    )
    found = problems_of(tmp_path, text)
    assert [message for _, message in found] == ["leads back to the model itself; end the circle"] * 2


# ------------------------------------------------------------------ eccos:


@pytest.mark.parametrize(
    ("section", "place", "words"),
    [
        ("polcy: {}", "eccos.polcy", "unknown key; did you mean 'policy'? (known here: allowed_call_params,"),
        ("policy: {quality_flor: 0.5}", "eccos.policy.quality_flor", "did you mean 'quality_floor'?"),
        ("policy: {}", "eccos.policy", "names no policy; give exactly one of quality_floor, budget_usd"),
        (
            "policy: {quality_floor: 0.5, budget_usd: 1}",
            "eccos.policy",
            "has quality_floor and budget_usd; give exactly",
        ),
        ("policy: {quality_floor: 75}", "eccos.policy.quality_floor", "is 75, must be a number between 0 and 1"),
        ("policy: {budget_usd: -1}", "eccos.policy.budget_usd", "is -1, must be a number >= 0"),
        (
            "policy: {budget_usd: 1, on_infeasible: fail}",
            "eccos.policy.on_infeasible",
            "must be one of error, best_effort",
        ),
        ("policy: 0.8", "eccos.policy", "is a number, must be a mapping"),
        ("encoder: minlm", "eccos.encoder", "did you mean 'minilm'?"),
        ("encoder: 3", "eccos.encoder", "must be minilm, static, the name or folder of a sentence-transformers model"),
        ("encoder: ./nothing", "eccos.encoder.model", "a folder that exists"),
        ("encoder: {model: minilm}", "eccos.encoder.kind", "is missing, must be one of minilm, static"),
        ("encoder: {kind: statc}", "eccos.encoder.kind", "did you mean 'static'?"),
        ("encoder: {kind: static, dimensions: 0}", "eccos.encoder.dimensions", "is 0, must be a whole number >= 1"),
        ("encoder: {kind: minilm, device: gpu}", "eccos.encoder.device", "is 'gpu', must be auto, cpu, cuda"),
        ("encoder: {kind: minilm, dimensions: 3}", "eccos.encoder.dimensions", "unknown key"),
        ("encoder: []", "eccos.encoder", "is empty, must be a list of encoders"),
        ("encoder: [minilm, {kind: concatenated}]", "eccos.encoder[1].kind", "must not stand in another"),
        ("conversation: last", "eccos.conversation", "must be one of last_user, all_user, everything"),
        ("predictor: hybird", "eccos.predictor", "did you mean 'hybrid'?"),
        ("predictor: {kind: retrieval, neighbours: 0}", "eccos.predictor.neighbours", "must be a whole number >= 1"),
        ("predictor: {kind: prior, neighbours: 3}", "eccos.predictor.neighbours", "unknown key"),
        ("predictor: {artifact: 3}", "eccos.predictor.artifact", "is 3, must be a path"),
        ("history: chroma", "eccos.history", "is text, must be in_memory, or a mapping with a path, a url"),
        ("history: {}", "eccos.history", "names no place; give exactly one of path, url, outcomes"),
        ("history: {path: a, url: 'http://h'}", "eccos.history", "has path and url; give exactly one of"),
        ("history: {url: 'localhost:8000'}", "eccos.history.url", "is not the address of a server"),
        ("history: {url: 'http://:secret@h'}", "eccos.history.url", "credentials belong under headers"),
        ("history: {url: 'http://me:secret@h'}", "eccos.history.url", "credentials belong under headers"),
        ("history: {path: a, headers: {x: y}}", "eccos.history.headers", "are sent to a server only"),
        ("history: {path: a, collection: x}", "eccos.history.collection", "3 to 512 letters"),
        ("optimizer: best", "eccos.optimizer", "must be one of auto, dual, exact, greedy"),
        ("optimizer: {kind: dual, time_limit_s: 0}", "eccos.optimizer.time_limit_s", "is 0, must be a number > 0"),
        ("workload: {default_max_concurrency: 0}", "eccos.workload.default_max_concurrency", "is 0, must be a whole"),
        ("workload: {queue_length: x}", "eccos.workload.queue_length", "is 'x', must be a whole number >= 0"),
        ("workload: {deadline_s: '5'}", "eccos.workload.deadline_s", "is '5', must be a number > 0"),
        ("stream: {window_ms: 51}", "eccos.stream.window_ms", "is 51, must be a number between 0 and 50"),
        (
            "stream: {floor_insurance: best}",
            "eccos.stream.floor_insurance",
            "is 'best', must be history, none or a quality",
        ),
        (
            "stream: {floor_insurance: history}",
            "eccos.stream.floor_insurance",
            "is 'history', but it insures windows only; add promise: window",
        ),
        ("stream: {window_requests: 50}", "eccos.stream", "has window_requests, but keeps the mean over a horizon"),
        ("stream: {promise: median}", "eccos.stream.promise", "must be one of mean, window"),
        (
            "stream: {horizon: 1}",
            "eccos.stream.horizon",
            "is 1, must be a whole number of requests >= 2, or a duration",
        ),
        ("stream: {horizon: a day}", "eccos.stream.horizon", "is 'a day', must be a whole number of requests >= 2"),
        ("stream: {horizon: 0d}", "eccos.stream.horizon", "is '0d', must be a whole number of requests >= 2"),
        ("stream: {usd_per_hour: 1, usd_per_day: 2}", "eccos.stream", "give at most one budget rate"),
        ("retries: {attempts: 0}", "eccos.retries.attempts", "is 0, must be a whole number >= 1"),
        (
            "retries: {initial_backoff_s: 30}",
            "eccos.retries.initial_backoff_s",
            "must not be longer than max_backoff_s",
        ),
        ("sessions: {idle_s: 0}", "eccos.sessions.idle_s", "is 0, must be a number > 0"),
        (
            "decision_log: nowhere",
            "eccos.decision_log",
            "is text, must be a mapping, postgresql://user@host/name, or off",
        ),
        ("telemetry: {enabled: 1}", "eccos.telemetry.enabled", "is 1, must be true or false"),
        ("groups: {a: b}", "eccos.groups", "is a mapping, must be a list"),
        ("groups: [{models: [m], at_least: 0.6, at_most: 0.5}]", "eccos.groups[0]", "no share lies between them"),
        ("groups: [{at_least: 0.5}]", "eccos.groups[0]", "names no models and no tags"),
        ("groups: [{models: [n]}]", "eccos.groups[0].models", "names 'n', must name models of the pool (m)"),
        ("groups: [{tags: [eu]}]", "eccos.groups[0].tags", "names the tag 'eu', which no model carries"),
        ("tenants: {a: {allow: [n]}}", "eccos.tenants.a.allow", "names 'n', must name models of the pool (m)"),
        ("tenants: {a: {allow: [m], deny: [m]}}", "eccos.tenants.a", "leave no model for this tenant"),
        ("tenants: {a: {required_tags: [eu]}}", "eccos.tenants.a.required_tags", "which no model carries"),
        ("tenants: {a: {policy: {quality_floor: 2}}}", "eccos.tenants.a.policy.quality_floor", "between 0 and 1"),
        ("tenants: {a: }", "eccos.tenants.a", "is empty, must be a mapping"),
        ("tenants: {a: {floor: 1}}", "eccos.tenants.a.floor", "unknown key"),
    ],
)
def test_a_wrong_setting_is_told_with_place_value_and_rule(
    tmp_path: Path, section: str, place: str, words: str
) -> None:
    found = problems_of(tmp_path, GOOD_MODEL + f"eccos: {{{section}}}")
    assert [where for where, _ in found] == [place]
    assert words in found[0][1]


def test_the_section_itself_must_be_a_mapping(tmp_path: Path) -> None:
    assert problems_of(tmp_path, GOOD_MODEL + "eccos: [1]") == [("eccos", "is a list, must be a mapping")]


# ------------------------------------------------------------------ all at once


def test_all_problems_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    text = """
model_list:
- {model_name: a, litellm_params: {model: gpt-4o, rpm: none, api_key: os.environ/UNSET}}
- {model_name: b}
- {model_name: c, litellm_params: {model: openai/y}, model_info: {free: true, max_concurrency: -4}}
eccos:
  polcy: {}
  workload: {queue_length: x, deadline: 3}
  groups: [{models: [a, d]}]
"""
    places = {place for place, _ in problems_of(tmp_path, text)}
    assert places == {
        "model_list[0] 'a'.litellm_params.rpm",
        "model_list[0] 'a'.litellm_params.api_key",
        "model_list[1] 'b'.litellm_params",
        "model_list[2] 'c'.model_info.max_concurrency",
        "eccos.polcy",
        "eccos.workload.queue_length",
        "eccos.workload.deadline",
        "eccos.groups[0].models",
    }


def test_a_problem_in_an_included_file_is_placed_there(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("model_list: [{model_name: m, litellm_params: {}}]\neccos: {}")
    found = problems_of(tmp_path, "include: [more.yaml, gone.yaml]")
    assert found == [
        ("more.yaml: eccos", "belongs in eccos.yaml, which includes this file"),
        ("include 'gone.yaml'", "the file does not exist"),
        ("more.yaml: model_list[0] 'm'.litellm_params.model", "is missing"),
    ]


def test_values_are_compared_beside_a_wrong_one(tmp_path: Path) -> None:
    found = problems_of(tmp_path, GOOD_MODEL + "eccos: {retries: {attempts: 0, initial_backoff_s: 30}}")
    assert [place for place, _ in found] == ["eccos.retries.attempts", "eccos.retries.initial_backoff_s"]
