"""The parts around `EccosLLM`, on a scripted pool: who is selected, why, what is recorded; and what is refused."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from llama_index.core.base.llms.types import CacheControl, CachePoint, ChatMessage, TextBlock, ThinkingBlock
from llama_index.core.base.response.schema import Response
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.evaluation import BaseEvaluator, BatchEvalRunner, EvaluationResult
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import CustomQueryEngine, RouterQueryEngine
from llama_index.core.tools import FunctionTool, QueryEngineTool, ToolMetadata

from eccos_core.domain import Capability, Chunk, Completion, Model, Request
from eccos_core.errors import (
    AttemptsExhausted,
    BackendError,
    InfeasibleError,
    InputError,
    MissingDependencyError,
    Overloaded,
)
from eccos_core.router import Router
from eccos_core.testing import ScriptedBackend, WordEncoder, scripted_router
from eccos_integrations.llama_index import (
    EccosEmbedding,
    EccosLLM,
    EccosSelection,
    EccosSelector,
    EvaluationRecorder,
    ModelChoice,
)
from eccos_integrations.llama_index.errors import llama_index_error
from eccos_integrations.llama_index.messages import StreamAccumulator, to_openai

NAMES = ("small", "medium", "large")
QUALITY = {"easy": [0.9, 0.9, 0.95], "hard": [0.1, 0.5, 0.9], "": [0.5, 0.6, 0.7]}


class Labels:
    """A history that only remembers what it was told."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []

    def add(self, outcomes: Any, vectors: Any) -> int:
        self.outcomes += outcomes
        return len(outcomes)


@pytest.fixture
def labels() -> Labels:
    return Labels()


@pytest.fixture
def router(labels: Labels) -> Router:
    models = [
        Model(name, price, 4 * price, max_concurrency=2, context_window=window, capabilities=frozenset(Capability))
        for name, price, window in zip(NAMES, (1e-7, 1e-6, 1e-5), (4_000, 8_000, 100_000), strict=True)
    ]
    backend = ScriptedBackend({name: [f"{name} says so"] for name in NAMES}, models)
    return scripted_router(backend, models, QUALITY, usd_per_quality=0.005, history=labels)  # type: ignore[arg-type]


def choices(*names: str) -> list[ToolMetadata]:
    return [ToolMetadata(name=name, description=f"about {name}") for name in names]


# ------------------------------------------------------------------------------------------------------------ selector


async def test_the_cheapest_choice_that_is_good_enough_is_selected(router: Router) -> None:
    selector = EccosSelector(router=router)
    easy = selector.select(choices("large", "small"), "an easy question")
    hard = await selector.aselect(choices("large", "small"), "a hard question")
    assert (easy.ind, hard.ind) == (1, 0)
    selection = hard.selections[0]
    assert isinstance(selection, EccosSelection)
    assert (selection.model, selection.quality) == ("large", pytest.approx(0.9))
    assert selection.cost_usd > 0
    assert "0.90" in hard.reason
    assert "USD" in hard.reason


@pytest.mark.parametrize(
    ("given", "models"),
    [
        (choices("quick", "thorough"), {"quick": "small", "thorough": "large"}),
        (choices("quick", "thorough"), {"about quick": "small", "about thorough": "large"}),
        (choices("quick", "thorough"), ["small", "large"]),
        ([ModelChoice("quick", model="small"), ModelChoice("thorough", model="large")], None),
        (["small", "large"], None),
        ([ToolMetadata("quick", name="small"), ModelChoice("thorough", name="small", model="large")], None),
    ],
)
def test_choices_are_bound_by_name_order_or_metadata(router: Router, given: Any, models: Any) -> None:
    selector = EccosSelector(router=router, models=models)
    assert selector.select(given, "an easy question").ind == 0
    assert selector.select(given, "a hard question").ind == 1


def test_several_are_selected_best_first_until_enough(router: Router) -> None:
    three = EccosSelector(router=router, max_outputs=3).select(choices(*NAMES), "a hard question")
    assert len(three.inds) == 3
    assert three.inds[0] == 2
    assert "next best" in three.reasons[1]
    one = EccosSelector(router=router, max_outputs=3, enough=0.85).select(choices(*NAMES), "a hard question")
    assert one.inds == [2]
    two = EccosSelector(router=router, max_outputs=3, enough=0.94).select(choices(*NAMES), "a hard question")
    assert len(two.inds) == 2


@pytest.mark.parametrize(
    ("given", "models", "match"),
    [
        ([], None, "there are no choices"),
        (choices("quick"), None, r"choices\[0\] 'quick' stands for no model of the pool"),
        (choices("quick"), {"quick": "smal"}, r"did you mean 'small'\?"),
        (choices("quick", "thorough"), ["small"], "one per choice"),
        (choices("a", "b"), ["small", "small"], "both bound to 'small'"),
    ],
)
def test_choices_that_cannot_be_told_apart_are_refused_with_a_way_out(
    router: Router, given: Any, models: Any, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        EccosSelector(router=router, models=models).select(given, "an easy question")


def test_a_selector_needs_a_router_and_sound_numbers(router: Router) -> None:
    with pytest.raises(ValueError, match="EccosSelector needs a router"):
        EccosSelector()
    with pytest.raises(ValueError, match="max_outputs is 0"):
        EccosSelector(router=router, max_outputs=0)
    with pytest.raises(ValueError, match="must be a chance"):
        EccosSelector(router=router, enough=2)
    with pytest.raises(ValueError, match="question is empty"):
        EccosSelector(router=router).select(choices("small"), " ")
    with pytest.raises(InfeasibleError) as caught:
        EccosSelector(router=router, min_quality=0.99).select(choices(*NAMES), "a hard question")
    assert isinstance(caught.value, ValueError)


def test_a_selector_waits_for_a_slot_as_long_as_it_is_told(router: Router) -> None:
    selector = EccosSelector(router=router, wait_s=0.01)
    with router.workload.hold("small"), router.workload.hold("small"):
        with pytest.raises(Overloaded):
            selector.select(choices("small"), "an easy question")
        assert selector.select(choices("small", "medium"), "an easy question").ind == 1
    assert selector.select(choices("small"), "an easy question").ind == 0


def test_a_selector_gets_the_slot_that_becomes_free(router: Router) -> None:
    selector = EccosSelector(router=router, wait_s=10)
    slots = ExitStack()
    for _ in range(2):
        slots.enter_context(router.workload.hold("small"))
    timer = threading.Timer(0.05, slots.close)
    timer.start()
    assert selector.select(choices("small"), "an easy question").ind == 0
    timer.join()


# ----------------------------------------------------------------------------------------------------------- recording


class Marked(BaseEvaluator):
    """An evaluator that gives the mark it was made with."""

    def __init__(self, **mark: Any) -> None:
        self.mark = mark

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: Any) -> None: ...

    async def aevaluate(self, query: Any = None, response: Any = None, contexts: Any = None, **_: Any) -> Any:
        return EvaluationResult(query=query, response=response, **self.mark)


class Faithful(Marked):
    """Another evaluator."""


class Asking(CustomQueryEngine):
    """A query engine that asks an LLM."""

    llm: EccosLLM

    def custom_query(self, query_str: str) -> Response:
        return Response(response=self.llm.complete(f"Query: {query_str}").text)


@pytest.fixture
def recorder(router: Router) -> Iterator[EvaluationRecorder]:
    with EvaluationRecorder(router) as recorder:
        yield recorder


def test_an_evaluation_labels_the_decision_behind_a_response(
    router: Router, recorder: EvaluationRecorder, labels: Labels
) -> None:
    engine = Asking(llm=EccosLLM(router=router))
    easy, hard = engine.query("an easy one"), engine.query("a hard one")
    recorder.recording(Marked(score=2.0), scale=(1, 5)).evaluate_response(query="a hard one", response=hard)
    recorder.recording(Marked(passing=True)).evaluate_response(query="an easy one", response=easy)
    assert [(each.query, each.model, each.quality) for each in labels.outcomes] == [
        ("Query: a hard one", "large", 0.25),
        ("Query: an easy one", "small", 1.0),
    ]


def test_the_lowest_of_several_marks_counts(router: Router, recorder: EvaluationRecorder, labels: Labels) -> None:
    response = EccosLLM(router=router).complete("an easy one")
    for evaluator in (Marked(score=0.9), Faithful(score=0.2), Marked(score=1.0)):
        recorder.recording(evaluator).evaluate(query="an easy one", response=response.text)
    assert [each.quality for each in labels.outcomes] == [0.9, 0.2, 0.2]


def test_equal_answers_are_told_apart_by_their_questions(router: Router, recorder: EvaluationRecorder) -> None:
    llm = EccosLLM(router=router, model="small")
    first, second = llm.complete("first"), llm.complete("second")
    assert recorder.decisions_of(first.text, "first") == (first.additional_kwargs["decision_id"],)
    assert recorder.decisions_of(second.text, "second") == (second.additional_kwargs["decision_id"],)
    assert recorder.decisions_of(first) == (first.additional_kwargs["decision_id"],)


def test_the_selector_learns_too(router: Router, recorder: EvaluationRecorder, labels: Labels) -> None:
    llm = EccosLLM(router=router)
    tools = [QueryEngineTool.from_defaults(Asking(llm=llm.only(name)), name=name, description="x") for name in NAMES]
    engine = RouterQueryEngine(EccosSelector(router=router), tools, llm=llm)
    response = engine.query("a hard one")
    recorder.recording(Marked(score=1.0)).evaluate_response(query="a hard one", response=response)
    assert [(each.query, each.model) for each in labels.outcomes] == [
        ("a hard one", "large"),
        ("Query: a hard one", "large"),
    ]


async def test_batches_of_evaluations_are_recorded(
    router: Router, recorder: EvaluationRecorder, labels: Labels
) -> None:
    engine = Asking(llm=EccosLLM(router=router))
    runner = BatchEvalRunner({"marked": recorder.recording(Marked(score=0.5))}, workers=2)
    await runner.aevaluate_queries(engine, queries=["an easy one", "a hard one"])
    assert sorted(each.query for each in labels.outcomes) == ["Query: a hard one", "Query: an easy one"]


def test_what_says_nothing_labels_nothing_and_what_was_not_heard_is_refused(
    router: Router, recorder: EvaluationRecorder, labels: Labels
) -> None:
    answer = EccosLLM(router=router).complete("an easy one").text
    assert recorder.record(answer, EvaluationResult(invalid_result=True, score=1.0)) == 0
    assert recorder.record(answer, EvaluationResult()) == 0
    assert labels.outcomes == []
    with pytest.raises(InputError, match="no answer of eccos that was heard"):
        recorder.record("never said", EvaluationResult(score=1.0))
    with pytest.raises(InputError, match="outside the scale"):
        recorder.record(answer, EvaluationResult(score=4.0))
    with pytest.raises(InputError, match="has no length"):
        recorder.record(answer, EvaluationResult(score=1.0), scale=(1, 1))
    recorder.stop()
    EccosLLM(router=router, model="large").complete("unheard")
    assert recorder.decisions_of("large says so") == ()


# -------------------------------------------------------------------------------------------------------------- pieces


def test_metadata_follows_who_may_answer(router: Router) -> None:
    """LlamaIndex fills the window that it is told. So every model that may answer can hold it."""
    assert EccosLLM(router=router).metadata.context_window == 4_000
    assert EccosLLM(router=router, deny=["small"]).metadata.context_window == 8_000
    assert EccosLLM(router=router, model="large").metadata.context_window == 100_000
    assert EccosLLM(router=router, context_window=50_000).metadata.context_window == 50_000
    assert EccosLLM(router=router).metadata.num_output == 256


def test_a_window_too_small_for_llama_indexs_own_prompts_does_not_count() -> None:
    models = [Model(f"m{window}", 0.0, 0.0, context_window=window) for window in (256, 2048, 4096)]
    router = scripted_router(ScriptedBackend({each.name: ["x"] for each in models}, models), models, {"": [0.5] * 3})
    assert EccosLLM(router=router).metadata.context_window == 2048
    assert EccosLLM(router=router, model="m256").metadata.context_window == DEFAULT_CONTEXT_WINDOW


def test_a_setting_of_a_call_holds_for_that_call(router: Router) -> None:
    llm = EccosLLM(router=router)
    assert llm.complete("an easy one", model="large").text == "large says so"
    assert llm.complete("an easy one", deny=["small"]).text == "medium says so"
    assert llm.complete("an easy one", min_quality=0.94).text == "large says so"
    assert llm.complete("an easy one").text == "small says so"
    asked = [request for _, request in router.backend.calls]  # type: ignore[attr-defined]
    assert all(not request.parameters for request in asked)
    with pytest.raises(ValueError, match="n is 2"):
        llm.complete("an easy one", n=2)


def test_system_prompts_and_parameters_reach_the_model(router: Router) -> None:
    llm = EccosLLM(router=router, system_prompt="Be brief.", stop="END", seed=7, additional_kwargs={"top_k": 3})
    llm.predict(PromptTemplate("{what}"), what="an easy one")
    request = router.backend.calls[-1][1]  # type: ignore[attr-defined]
    assert request.messages[0] == {"role": "system", "content": "Be brief."}
    assert dict(request.parameters) == {"stop": ["END"], "seed": 7, "top_k": 3}


def test_turns_of_one_conversation_share_a_session(router: Router) -> None:
    llm = EccosLLM(router=router)
    turns = [ChatMessage(content="an easy one"), ChatMessage(role="assistant", content="yes")]
    llm.chat([*turns, ChatMessage(content="go on")])
    llm.chat(
        [*turns, ChatMessage(content="go on"), ChatMessage(role="assistant", content="b"), ChatMessage(content="c")]
    )
    llm.complete("alone")
    first, second, alone = (request for _, request in router.backend.calls)  # type: ignore[attr-defined]
    assert first.session_id == second.session_id is not None
    assert alone.session_id is None
    llm.chat_with_tools([FunctionTool.from_defaults(fn=choices)], "an easy one")
    assert router.backend.calls[-1][1].session_id is not None  # type: ignore[attr-defined]


def test_thoughts_are_shown_and_go_back_to_who_had_them() -> None:
    gathering = StreamAccumulator()
    half = gathering.add(Chunk(text="", delta={"reasoning_content": "hm"}))
    assert half.additional_kwargs == {"thinking_delta": "hm"}
    thinking = [{"type": "thinking", "thinking": "hm", "signature": "SIG"}]
    message = {"role": "assistant", "content": "yes", "reasoning_content": "hm", "thinking_blocks": thinking}
    whole = gathering.add(Chunk(text="", completion=Completion("yes", "small", 1, 1, 0.0, 0.1, message=message)))
    assert isinstance(whole.message.blocks[0], ThinkingBlock)
    assert whole.message.content == "yes"
    asked = Request(to_openai([ChatMessage(content="a"), whole.message]))
    assert asked.addressed_to("small").messages[1] == message
    assert asked.addressed_to("large").messages[1] == {"role": "assistant", "content": "yes"}
    stranger = ChatMessage(role="assistant", blocks=[ThinkingBlock(content="hm"), TextBlock(text="yes")])
    assert to_openai([stranger])[0] == {"role": "assistant", "content": "yes"}


def test_a_cache_point_marks_what_stands_before_it() -> None:
    point = CachePoint(cache_control=CacheControl(type="ephemeral"))
    with pytest.raises(ValueError, match="stands first"):
        to_openai([ChatMessage(blocks=[point])])


def test_errors_are_what_they_were_and_what_llama_index_raises() -> None:
    timeout = llama_index_error(BackendError("small", "too slow", retryable=True, kind="timeout"))
    assert isinstance(timeout, TimeoutError)
    assert (str(timeout), timeout.model) == ("small: too slow", "small")  # type: ignore[attr-defined]
    assert isinstance(llama_index_error(InputError("no")), ValueError)
    unknown = BackendError("small", "?", retryable=False)
    assert llama_index_error(unknown) is unknown
    mixed = AttemptsExhausted("r", [])
    assert llama_index_error(mixed) is mixed


async def test_an_encoder_is_an_embedding_model() -> None:
    embedding = EccosEmbedding(encoder=WordEncoder(["river", "city"]))
    assert embedding.get_text_embedding("a city") == [0.0, 1.0, 0.0]
    assert await embedding.aget_query_embedding("a river") == [1.0, 0.0, 0.0]
    assert await embedding.aget_text_embedding_batch(["a city", "none"]) == [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert embedding.model_name == "words:river,city"
    assert "encoder" not in embedding.to_dict()


# -------------------------------------------------------------------------------------------------------------- imports


def test_the_package_imports_nothing_heavy_and_says_what_is_missing() -> None:
    code = (
        "import sys; import eccos_integrations.llama_index as li\n"
        "assert not {'llama_index', 'litellm', 'torch'} & set(sys.modules)\n"
        "from eccos_integrations.llama_index import EccosLLM\n"
        "assert not {'litellm', 'torch', 'langchain_core', 'sentence_transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    missing = (
        "import sys; sys.modules['llama_index'] = None\n"
        "import eccos_integrations.llama_index as li\n"
        "try:\n    li.EccosLLM\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", missing], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(MissingDependencyError.__name__)
    assert "pip install 'eccos[llama-index]'" in done.stdout


def test_every_exported_name_can_be_had() -> None:
    import eccos_integrations.llama_index as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'EccosLlm'"):
        _ = package.EccosLlm
