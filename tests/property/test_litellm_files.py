"""Whatever a LiteLLM file holds, it loads or each problem is a message. Nothing else is raised, and no secret shown."""

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eccos_core.config import load_config
from eccos_core.config.litellm_prices import PriceMap
from eccos_core.config.litellm_settings import ENTRY, REST, SETTINGS
from eccos_core.errors import ConfigError

PRICES = PriceMap()
SECTIONS = sorted({row.section for row in SETTINGS} - {"", ENTRY})
KEYS = {name: [key for row in SETTINGS if row.section == name for key in row.keys if key != REST] for name in SECTIONS}
KEYS[ENTRY] = [key for row in SETTINGS if row.section == ENTRY for key in row.keys if key != REST]
TOP = [key for row in SETTINGS if row.section == "" for key in row.keys if key not in (REST, "include", "eccos")]

scalars = (
    st.none() | st.booleans() | st.integers(-3, 10) | st.floats() | st.sampled_from(["", "a", "os.environ/X", "3"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "model", "credential_name", "credential_values"]), inner, max_size=3)
    ),
    max_leaves=5,
)


def mapping(keys: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from([*keys, "anything"]), values, max_size=4)


entries = st.builds(
    lambda params, info: {"model_name": "a", "litellm_params": {**params, "model": "gpt-4o"}, "model_info": info},
    mapping(KEYS[ENTRY]),
    values | mapping(["free", "mode", "tags", "input_cost_per_token", "max_tokens", "supports_vision"]),
)
documents = st.builds(
    lambda top, sections, listed: {**top, **sections, "model_list": listed},
    st.dictionaries(st.sampled_from(TOP), values, max_size=3),
    st.fixed_dictionaries({}, optional={name: values | mapping(KEYS[name]) for name in SECTIONS}),
    st.lists(entries | values, max_size=3) | values,
)


@given(documents)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_litellm_file_loads_or_says_what_is_wrong(tmp_path: Path, document: dict[str, Any]) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(document))
    try:
        config = load_config(file, environment={"X": "hunter2"}, prices=PRICES)
    except ConfigError as error:
        told = str(error)
    else:
        told = repr(config)
        assert config.pool
    assert "hunter2" not in told
