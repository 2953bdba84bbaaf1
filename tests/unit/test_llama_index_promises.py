"""What LlamaIndex and its users rely on: stored components, windows, selectors, evaluations, call arguments."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.evaluation import EvaluationResult
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import CustomQueryEngine, RouterQueryEngine
from llama_index.core.tools import QueryEngineTool
from llama_index.core.workflow import JsonSerializer
from two_models import two_models

from eccos_core.config import TenantConfig
from eccos_core.domain import Completion
from eccos_core.encoders import StaticEncoder, SurfaceEncoder
from eccos_core.errors import InputError
from eccos_core.router import Router
from eccos_core.routing.tenants import Tenants
from eccos_core.testing import WordEncoder
from eccos_integrations.llama_index import (
    EccosEmbedding,
    EccosLLM,
    EccosSelector,
    EvaluationRecorder,
    router_query_engine,
)

CONFIG = """\
model_list:
  - model_name: small
    litellm_params: {model: openai/small, api_base: "http://127.0.0.1:9/v1", api_key: none}
    model_info: {input_cost_per_token: 1.0e-7, output_cost_per_token: 4.0e-7, assumed_quality: 0.6}
  - model_name: large
    litellm_params: {model: openai/large, api_base: "http://127.0.0.1:9/v1", api_key: none}
    model_info: {input_cost_per_token: 2.0e-6, output_cost_per_token: 8.0e-6, assumed_quality: 0.9}
eccos: {encoder: static, predictor: prior, history: in_memory, decision_log: off}
"""


class Locked(WordEncoder):
    """An encoder that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__(["river"])
        self.lock = threading.Lock()


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "eccos.yaml"
    file.write_text(CONFIG)
    return str(file)


@pytest.fixture
def index() -> VectorStoreIndex:
    return VectorStoreIndex.from_documents([Document(text="Oslo is easy.")], embed_model=MockEmbedding(embed_dim=4))


# ------------------------------------------------------------------------------------------------ stored and copied


def test_an_llm_is_stored_as_json_and_reads_the_same_in_every_process(path: str) -> None:
    llm = EccosLLM(config=path, allow={"small", "large"}, deny={"x"}, required_tags=[], session_id=7)
    stored = json.loads(llm.to_json())
    assert (stored["allow"], stored["deny"], stored["session_id"]) == (["large", "small"], ["x"], "7")
    for again in (EccosLLM.from_json(llm.to_json()), JsonSerializer().deserialize(JsonSerializer().serialize(llm))):
        assert again.allow == {"small", "large"}
        assert again.router is llm.router  # one router for each file of this process


def test_a_selector_can_be_pickled_and_copied(path: str) -> None:
    selector = EccosSelector(config=path, max_outputs=2)
    again = pickle.loads(pickle.dumps(selector))
    assert again.router is copy.deepcopy(selector).router is selector.router
    assert again._max_outputs == 2
    with pytest.raises(TypeError, match=r"EccosSelector\(router=...\) cannot be pickled"):
        pickle.dumps(EccosSelector(router=selector.router))


def test_a_window_follows_the_file_too(path: str) -> None:
    llm = EccosLLM(config=path, window_s=0.01)
    assert llm.router.follows_file
    before = llm._called_router
    assert before is llm._called_router
    assert before.parts.window_s == 0.01
    Path(path).write_text(CONFIG.replace("large", "huge"))
    assert llm.router.reload()
    assert [model.name for model in llm._called_router.models] == ["small", "huge"]
    assert copy.deepcopy(llm)._called_router is llm._called_router


def test_an_embedding_comes_back_with_its_encoder_or_with_an_error() -> None:
    words = EccosEmbedding(encoder=WordEncoder(["river"]))
    for again in (pickle.loads(pickle.dumps(words)), copy.deepcopy(words), words.model_copy(deep=True)):
        assert again.get_text_embedding("a river") == words.get_text_embedding("a river")
    with pytest.raises(ValueError, match=r"made with the encoder 'words:river'.*from_dict\(stored, encoder="):
        EccosEmbedding.from_dict(words.to_dict())
    assert EccosEmbedding.from_dict(words.to_dict(), encoder=WordEncoder(["river"])).model_name == "words:river"

    with pytest.raises(TypeError, match="its encoder 'words:river' cannot: cannot pickle"):
        pickle.dumps(EccosEmbedding(encoder=Locked()))
    assert copy.deepcopy(EccosEmbedding(encoder=Locked())).model_name == "words:river"


@pytest.mark.parametrize("encoder", [StaticEncoder(), SurfaceEncoder(), None])
def test_an_embedding_of_ours_survives_a_pickle(encoder: Any) -> None:
    embedding = EccosEmbedding(encoder=encoder)
    again = pickle.loads(pickle.dumps(embedding))
    assert again.model_name == embedding.model_name
    assert copy.deepcopy(embedding).encoder is embedding.encoder


# ------------------------------------------------------------------------------------------------ metadata


def test_metadata_speaks_of_the_tenants_models() -> None:
    parts = two_models()[0].parts
    tenants = Tenants(
        {"free": TenantConfig(allow=frozenset({"small"})), "paid": TenantConfig(deny=frozenset({"small"}))}
    )
    router = Router.from_parts(replace(parts, tenants=tenants))
    free, paid = (EccosLLM(router=router, tenant=name).metadata for name in ("free", "paid"))
    assert (free.context_window, free.is_function_calling_model) == (2000, False)
    assert (paid.context_window, paid.is_function_calling_model) == (8000, True)


def test_memory_is_as_large_as_every_model_can_hold() -> None:
    router, _ = two_models()
    assert ChatMemoryBuffer.from_defaults(llm=EccosLLM(router=router)).token_limit == 1500
    assert ChatMemoryBuffer.from_defaults(llm=EccosLLM(router=router, context_window=4000)).token_limit == 3000


# ------------------------------------------------------------------------------------------------ calls


def test_a_misspelled_argument_of_a_call_is_refused() -> None:
    router, backend = two_models()
    with pytest.raises(ValueError, match="unknown parameter 'min_qualty'; did you mean 'min_quality'"):
        EccosLLM(router=router).complete("easy", min_qualty=0.9)
    assert backend.calls == []


def test_log_probabilities_are_in_the_response() -> None:
    token = {
        "token": "ok",
        "logprob": -0.1,
        "top_logprobs": [{"token": "ok", "logprob": -0.1}, {"token": "no", "logprob": -3}],
    }
    said = Completion("ok", "", 1, 1, 0.0, 0.1, message={"content": "ok"}, logprobs={"content": [token]})
    llm = EccosLLM(router=two_models({"small": [said], "large": [said]})[0])
    found = llm.complete("easy", logprobs=True).logprobs
    assert found is not None
    assert [(each.token, each.logprob) for each in found[0]] == [("ok", -0.1), ("no", -3)]
    assert list(llm.stream_chat([ChatMessage(content="easy")], logprobs=True))[-1].logprobs == found


# ------------------------------------------------------------------------------------------------ selectors


class Fixed(CustomQueryEngine):
    """An engine with one answer."""

    answer: str

    def custom_query(self, query_str: str) -> str:
        return self.answer


def test_engines_without_a_name_are_bound_as_the_message_says() -> None:
    router, _ = two_models()
    described = ("Useful for summaries", "Useful for facts")
    tools = [QueryEngineTool.from_defaults(Fixed(answer=each), description=each) for each in described]

    def ask(models: Any) -> str:
        engine = RouterQueryEngine(EccosSelector(router=router, models=models), tools, llm=EccosLLM(router=router))
        return str(engine.query("easy"))

    for unhelpful in (None, {"query_engine_tool": "small"}):
        with pytest.raises(
            ValueError, match=r"'Useful for summaries' stands for no model.*models={'Useful for summaries': 'small'"
        ):
            ask(unhelpful)
    assert ask({"Useful for summaries": "small", "Useful for facts": "large"}) == "Useful for summaries"
    assert ask(["large", "small"]) == "Useful for facts"
    mixed = {"query_engine_tool": "small", "Useful for summaries": "large"}
    with pytest.raises(ValueError, match="'Useful for facts' stands for no model"):
        ask(mixed)


async def test_two_selected_engines_still_stream(index: VectorStoreIndex) -> None:
    llm = EccosLLM(router=two_models({"small": ["a b"], "large": ["c d"]})[0])
    engine = router_query_engine(index, llm, max_outputs=2, streaming=True)
    response = engine.query("easy")
    assert len(response.metadata["selector_result"].inds) == 2
    assert list(response.response_gen)[:2] == ["a", " b"]
    streamed = await engine.aquery("easy")
    assert [piece async for piece in streamed.response_gen][:2] == ["a", " b"]


# ------------------------------------------------------------------------------------------------ evaluations


def test_a_rewritten_question_is_labelled_by_its_response(index: VectorStoreIndex, monkeypatch: Any) -> None:
    """A chat engine condenses the question, so no prompt of an answer holds it. All answers are the same text."""

    def say(request: Any) -> str:
        text = str(request.messages[-1]["content"])
        return "Is Oslo easy?" if "standalone question" in text.lower() else "Yes."

    router, _ = two_models({"small": [say], "large": [say]})
    labels: list[tuple[str, float]] = []
    monkeypatch.setattr(router, "record", lambda decision_id, quality: labels.append((decision_id, quality)))
    recorder = EvaluationRecorder(router)
    heard: list[str] = []
    remember = recorder.remember_answer
    monkeypatch.setattr(recorder, "remember_answer", lambda *given: (heard.append(given[2]), remember(*given)))
    questions = ("And is Oslo easy?", "Is it?", "Really?")
    with recorder:
        chat = index.as_chat_engine(chat_mode="condense_question", llm=EccosLLM(router=router))
        answered = [(question, chat.chat(question), heard[-1]) for question in questions]
    for question, response, _ in answered:
        assert recorder.record(response, EvaluationResult(query=question, score=1.0)) == 1
    assert [decision_id for decision_id, _ in labels] == [decision_id for *_, decision_id in answered]
    # the bare text could be any of three answers
    assert recorder.record("Yes.", EvaluationResult(query="Really?", score=1.0)) == 0
    assert len(labels) == len(questions)
    with pytest.raises(InputError, match="no answer of eccos that was heard"):
        recorder.record("No.", EvaluationResult(query="Really?", score=1.0))


def test_a_response_that_is_gone_is_forgotten(index: VectorStoreIndex) -> None:
    recorder = EvaluationRecorder(two_models()[0])
    with recorder:
        response = index.as_query_engine(llm=EccosLLM(router=recorder.router)).query("easy")
        assert recorder.decisions_of(response)
        kept = len(recorder._responses)
        del response
    assert len(recorder._responses) < kept
    assert not recorder._spans.open_spans
