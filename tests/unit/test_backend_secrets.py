"""No secret ever reaches a message."""

from __future__ import annotations

import json
import string
import traceback
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.backends.litellm.error_mapping import to_backend_error
from eccos_core.backends.litellm.redaction import HIDDEN, SecretRedactor

litellm = pytest.importorskip("litellm")
KEYS = st.text(alphabet=string.ascii_letters + string.digits + "-_+/=.%&\"'\\ é", min_size=12, max_size=60).filter(
    lambda key: len(key.strip()) >= 12 and any(map(str.isdigit, key))  # no word that a traceback has anyway
)
NAMES = st.sampled_from(["api_key", "azure_ad_token", "aws_secret_access_key", "vertex_credentials", "password"])


@given(NAMES, KEYS, st.text(max_size=20), st.text(max_size=20))
def test_a_key_appears_in_no_form(name: str, key: str, before: str, after: str) -> None:
    scrubber = SecretRedactor.for_parameters([{name: key, "model": "x"}])
    for form in (key, quote(key), quote(key, safe=""), json.dumps(key), repr(key), f"Bearer {key}", f"?key={key}&x=1"):
        shown = scrubber.redact(f"{before} {form} {after}")
        assert key not in shown.replace(before, "").replace(after, "")
        assert HIDDEN in shown


@given(KEYS)
def test_a_key_inside_nested_parameters_is_found(key: str) -> None:
    scrubber = SecretRedactor.for_parameters(
        [{"extra_headers": {"Authorization": f"Bearer {key}"}, "list": [{"token": key}]}]
    )
    assert key not in scrubber.redact(f"x {key} y")


@given(KEYS)
def test_a_key_that_the_provider_repeats_is_not_in_the_error(key: str) -> None:
    scrubber = SecretRedactor.for_parameters([{"api_key": key}])
    error = to_backend_error("gpt-4o", litellm.AuthenticationError(f"no access with {key}", "openai", "m"), scrubber)
    assert key not in "".join(traceback.format_exception(error))
    assert HIDDEN in str(error)


def test_what_looks_like_a_key_is_hidden_even_when_unknown() -> None:
    scrubber = SecretRedactor([])
    for text in ("sk-proj-abcdefghijkl", "Bearer abc.def", "https://me:secret@host/x", "hf_abcdefghijklmnop"):
        shown = scrubber.redact(f"call failed with {text} today")
        assert HIDDEN in shown
        assert "abcdef" not in shown
        assert "secret" not in shown


def test_keys_in_an_address_are_hidden_there_and_wherever_they_are_repeated() -> None:
    address = "https://bob:hunter2%2Bsecret@host/v1?api_key=zq-value-1&subscription-key=zq-value-2&x=1#sig=0"
    scrubber = SecretRedactor.for_parameters([{"api_base": address}])
    assert scrubber.redact(f"no answer from {address}") == (
        f"no answer from https://{HIDDEN}@host/v1?api_key={HIDDEN}&subscription-key={HIDDEN}&x=1#sig=0"
    )
    for repeated in ("zq-value-1", "zq-value-2", "hunter2+secret"):
        assert repeated not in scrubber.redact(f"the provider says: {repeated} is wrong")
    unknown = SecretRedactor([])
    for text in ("http://h/?token=abcdef", "http://h/?a=1&sig=abcdef", "https://abcdef@host/x"):
        assert "abcdef" not in unknown.redact(f"GET {text} failed")


def test_ordinary_parameters_and_placeholders_are_no_secrets() -> None:
    scrubber = SecretRedactor.for_parameters(
        [{"api_key": "none", "max_tokens": "1234567", "api_base": "http://host/v1"}]
    )
    assert (
        scrubber.redact("none of the 1234567 tokens at http://host/v1")
        == "none of the 1234567 tokens at http://host/v1"
    )


def test_keys_of_the_environment_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PROVIDER_API_KEY", "zq-environment-value-1")
    assert SecretRedactor.for_parameters([]).redact("got zq-environment-value-1") == f"got {HIDDEN}"
