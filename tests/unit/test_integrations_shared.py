"""What LangChain and LlamaIndex share: no framework is imported there, kinds decide on errors, scores have a scale."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from langchain_core.exceptions import ContextOverflowError
from two_models import two_models

import eccos_integrations
from eccos_core.errors import (
    Attempt,
    AttemptsExhausted,
    BackendError,
    Exclusion,
    ExclusionKind,
    FailureKind,
    InputError,
    MissingDependencyError,
    NoEligibleModelError,
)
from eccos_integrations._shared.errors import InvalidRequestError, combine_error, find_failure_kind
from eccos_integrations._shared.lazy_import import require_module
from eccos_integrations._shared.scores import ScoreScale
from eccos_integrations._shared.settings import RouterSettings
from eccos_integrations._shared.tools import check_chosen_function, choose_function
from eccos_integrations.langchain import ChatEccos
from eccos_integrations.langchain.errors import langchain_error
from eccos_integrations.llama_index import EccosLLM
from eccos_integrations.llama_index.errors import llama_index_error

PACKAGE = Path(eccos_integrations.__file__).parent
SHARED = sorted((PACKAGE / "_shared").glob("*.py"))


def imported_by(path: Path) -> set[str]:
    """Every module that a file imports: late imports and those for type checkers, too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_nothing_shared_knows_a_framework() -> None:
    known = ("langchain", "llama_index", "eccos_integrations.langchain", "eccos_integrations.llama_index")
    assert len(SHARED) >= 6
    for path in SHARED:
        assert not [name for name in imported_by(path) if name.startswith(known)], path


def test_the_integrations_have_no_import_cycle() -> None:
    names = {
        ".".join(("eccos_integrations", *path.relative_to(PACKAGE).with_suffix("").parts)): path
        for path in PACKAGE.rglob("*.py")
    }
    graph = {name: imported_by(path) & names.keys() for name, path in names.items()}
    assert "eccos_integrations._shared.settings" in graph["eccos_integrations.langchain.settings"]
    while leaves := [name for name, needed in graph.items() if not needed]:
        for leaf in leaves:
            del graph[leaf]
        graph = {name: needed - set(leaves) for name, needed in graph.items()}
    assert not graph, f"these modules import each other in a circle: {sorted(graph)}"


@pytest.mark.parametrize("words", ["context window of 128 tokens is too small", "context length is too small"])
def test_the_kind_of_an_exclusion_decides_and_never_its_words(words: str) -> None:
    in_words = NoEligibleModelError("r1", {"small": words})
    assert langchain_error(in_words) is in_words
    assert isinstance(llama_index_error(in_words), ValueError)
    real = NoEligibleModelError("r1", {"small": Exclusion(ExclusionKind.CONTEXT_WINDOW, words)})
    assert isinstance(langchain_error(real), ContextOverflowError)
    assert isinstance(llama_index_error(real), ValueError)


def test_several_kinds_of_failure_are_none() -> None:
    timeout, limit = (Attempt("m", kind, "x", 1.0) for kind in (FailureKind.TIMEOUT, FailureKind.RATE_LIMIT))
    assert find_failure_kind(AttemptsExhausted("r", [timeout, timeout])) is FailureKind.TIMEOUT
    assert find_failure_kind(AttemptsExhausted("r", [timeout, limit])) is None
    assert find_failure_kind(InputError("x")) is None


def test_a_combined_error_can_be_caught_again() -> None:
    first, second = (combine_error(BackendError("m", "x", kind="timeout"), TimeoutError) for _ in range(2))
    assert type(first) is type(second)
    assert isinstance(first, BackendError)
    assert isinstance(first, TimeoutError)
    assert combine_error(first, TimeoutError) is first


def test_a_score_becomes_a_quality_and_the_way_out_is_named() -> None:
    scale = ScoreScale(1, 5, set_by="here(lowest=..., highest=...)")
    assert [scale.to_quality(score) for score in (1, 2, 5)] == [0.0, 0.25, 1.0]
    with pytest.raises(InputError, match=r"score 6 is outside the scale from 1 to 5\. Set another scale with here"):
        scale.to_quality(6)
    with pytest.raises(InputError, match="has no length"):
        ScoreScale(1, 1, set_by="here")


def test_a_choice_of_a_tool_that_is_not_there_names_those_that_are() -> None:
    assert check_chosen_function(choose_function("add"), ["add"]) == {"type": "function", "function": {"name": "add"}}
    with pytest.raises(ValueError, match=r"'ad', which is not one of the tools; did you mean 'add'\?"):
        check_chosen_function(choose_function("ad"), ["add"])
    with pytest.raises(ValueError, match="The tools are: none"):
        check_chosen_function(choose_function("ad"), [])


@pytest.mark.parametrize("kind", [ChatEccos, EccosLLM])
def test_one_name_a_list_and_a_set_of_names_mean_the_same(kind: type[RouterSettings]) -> None:
    router, _ = two_models()
    for given in ("small", ["small"], {"small"}):
        assert kind(router=router, deny=given).deny == frozenset({"small"})
    assert kind(router=router, stop="END").stop == ["END"]  # type: ignore[call-arg, attr-defined]


@pytest.mark.parametrize("kind", [ChatEccos, EccosLLM])
def test_a_call_has_one_answer(kind: type[RouterSettings]) -> None:
    model = kind(router=two_models()[0])
    with pytest.raises(InvalidRequestError, match=r"n is 2, must be 1\. A call has one answer"):
        model.invoke("easy", n=2) if isinstance(model, ChatEccos) else model.complete("easy", n=2)  # type: ignore[attr-defined]


def test_a_module_that_is_not_there_says_what_to_install() -> None:
    require_module("json", "json", "a test")
    require_module("no_such_parent.child", "x", "a test")  # the parent is missing: the caller says so
    with pytest.raises(MissingDependencyError, match=r"pip install 'langchain>=9'"):
        require_module("no_such_module", "langchain>=9", "EccosMiddleware")
