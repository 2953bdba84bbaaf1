"""The local engine over a real (tiny, random) Llama: batching, sampling, limits, faults."""

from __future__ import annotations

import gc
import queue
import random
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eccos_core.backends.local.engine import LocalEngine
from eccos_core.backends.local.generation import Delivery, Generated, GeneratedPiece, Generation, GenerationHandle
from eccos_core.backends.local.model import EngineOptions
from eccos_core.errors import BackendError
from eccos_core.pocket import pocket_path
from eccos_core.testing import build_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[LocalEngine]:
    engine = LocalEngine("tiny", folder)
    yield engine
    engine.close()


class Inbox:
    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self.put = self._arrived.put

    def all(self) -> list[Delivery]:
        found = [self._arrived.get(timeout=120)]
        while isinstance(found[-1], GeneratedPiece):
            found.append(self._arrived.get(timeout=120))
        return found

    def answer(self) -> Generated:
        last = self.all()[-1]
        if isinstance(last, BackendError):
            raise last
        assert isinstance(last, Generated)
        return last


def user(text: str) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": text},)


def ask(engine: LocalEngine, text: str, **settings: Any) -> Generated:
    inbox = Inbox()
    engine.submit(Generation(user(text), **{"max_tokens": 12, **settings}), inbox.put)
    return inbox.answer()


QUESTIONS = ["What is 12 + 7?", "Hi", "Name the capital of France, please.", "a" * 60, "1", "why, though?"]


def test_together_or_alone_the_greedy_answers_are_the_same(engine: LocalEngine) -> None:
    alone = [ask(engine, question) for question in QUESTIONS]
    inboxes = [Inbox() for _ in range(20 * len(QUESTIONS))]
    for place, inbox in enumerate(inboxes):
        limit = 12 if place % 3 else 5 + place % 7  # rows leave at different times
        engine.submit(Generation(user(QUESTIONS[place % len(QUESTIONS)]), max_tokens=limit), inbox.put)
    for place, inbox in enumerate(inboxes):
        expected = alone[place % len(QUESTIONS)]
        answer = inbox.answer()
        assert expected.text.startswith(answer.text)
        assert answer.input_tokens == expected.input_tokens
        if place % 3:
            assert answer == expected


def test_the_answers_equal_those_of_transformers_own_generate(engine: LocalEngine, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for question in QUESTIONS:
        prompt = tokenizer.apply_chat_template(user(question), add_generation_prompt=True, tokenize=False)
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        output = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert ask(engine, question).text == tokenizer.decode(output, skip_special_tokens=True)


@pytest.mark.parametrize(("early", "late"), [("hi", "a much longer question than the first one"), ("a" * 50, "hi")])
def test_a_late_request_joins_the_running_batch_and_changes_nobodys_answer(folder: Path, early: str, late: str) -> None:
    engine = LocalEngine("tiny", folder)
    alone = [ask(engine, early, max_tokens=40), ask(engine, late, max_tokens=20)]
    sizes: list[int] = []
    steps = threading.Semaphore(0)

    def count(_: Any, __: Any, keywords: dict[str, Any]) -> None:
        sizes.append(keywords["input_ids"].shape[0])
        steps.acquire(timeout=60)

    engine.model.register_forward_pre_hook(count, with_kwargs=True)
    first, second = Inbox(), Inbox()
    engine.submit(Generation(user(early), max_tokens=40), first.put)
    steps.release(3)
    while len(sizes) < 4:  # the first is running, and waits for its fourth step
        threading.Event().wait(0.005)
    engine.submit(Generation(user(late), max_tokens=20), second.put)
    steps.release(1000)
    assert [first.answer(), second.answer()] == alone
    assert 2 in sizes
    engine.close()


def test_streamed_pieces_make_the_whole_answer(engine: LocalEngine) -> None:
    inbox = Inbox()
    engine.submit(Generation(user("tell me"), max_tokens=12, stream=True), inbox.put)
    *pieces, last = inbox.all()
    assert isinstance(last, Generated)
    assert "".join(piece.text for piece in pieces if isinstance(piece, GeneratedPiece)) == last.text
    assert last == ask(engine, "tell me")
    assert len(pieces) > 3


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(engine: LocalEngine) -> None:
    whole = ask(engine, "tell me", max_tokens=20).text
    stop = whole[5:7]
    cut = ask(engine, "tell me", max_tokens=20, stop=(stop,))
    assert cut.text == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"


def test_max_tokens_ends_the_answer(engine: LocalEngine) -> None:
    answer = ask(engine, "tell me", max_tokens=3)
    assert (answer.output_tokens, answer.finish_reason) == (3, "length")


def test_without_max_tokens_an_answer_may_fill_the_context_window(engine: LocalEngine) -> None:
    answer = ask(engine, "tell me", max_tokens=None)
    if answer.finish_reason == "length":
        assert answer.input_tokens + answer.output_tokens == 128


def test_a_seed_gives_the_same_answer_in_any_company(engine: LocalEngine) -> None:
    def sampled(seed: int | None) -> str:
        return ask(engine, "tell me", temperature=1.5, seed=seed).text

    alone = sampled(5)
    inboxes = [Inbox() for _ in range(20)]
    for seed, inbox in enumerate(inboxes):
        engine.submit(Generation(user("tell me"), max_tokens=12, temperature=1.5, seed=seed), inbox.put)
    answers = [inbox.answer().text for inbox in inboxes]
    assert answers[5] == alone == sampled(5)
    assert len(set(answers)) > 5


def test_sampling_follows_the_probabilities() -> None:
    import torch

    from eccos_core.backends.local.running_batch import sample

    draws = 20_000
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(draws, 1)
    uniform = (torch.arange(draws) + 0.5) / draws
    for top_p, expected in ((1.0, [0.5, 0.3, 0.15, 0.05]), (0.8, [0.625, 0.375, 0, 0]), (0.01, [1, 0, 0, 0])):
        tokens = sample(logits, torch.ones(draws), torch.full((draws,), top_p), uniform)
        shares = torch.bincount(tokens, minlength=4) / draws
        assert shares.tolist() == pytest.approx(expected, abs=0.002)
    greedy = sample(logits, torch.zeros(draws), torch.ones(draws), uniform)
    assert greedy.tolist() == [0] * draws


def test_a_prompt_past_the_context_window_is_refused(engine: LocalEngine) -> None:
    with pytest.raises(BackendError, match="do not fit into the context window of 128 tokens") as caught:
        ask(engine, "a" * 200)
    assert (caught.value.kind, caught.value.retryable) == ("context_window", False)
    with pytest.raises(BackendError, match="context window"):
        ask(engine, "short", max_tokens=127)


def test_messages_that_the_template_refuses_are_a_bad_request(engine: LocalEngine) -> None:
    for messages in (
        ({"role": "system", "content": "be kind"},),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},),
        ({"role": "user", "content": 5},),
    ):
        inbox = Inbox()
        engine.submit(Generation(messages, max_tokens=3), inbox.put)
        with pytest.raises(BackendError, match="cannot be rendered") as caught:
            inbox.answer()
        assert (caught.value.kind, caught.value.retryable) == ("bad_request", False)


def test_text_parts_are_read_as_text(engine: LocalEngine) -> None:
    inbox = Inbox()
    parts = [{"type": "text", "text": "tell "}, {"type": "text", "text": "me"}]
    engine.submit(Generation(({"role": "user", "content": parts},), max_tokens=12), inbox.put)
    assert inbox.answer() == ask(engine, "tell me")


def test_without_a_chat_template_the_contents_are_put_one_under_the_other(tmp_path: Path) -> None:
    engine = LocalEngine("plain", build_tiny_model(tmp_path, chat_template=False))
    inbox = Inbox()
    messages = ({"role": "system", "content": "ab"}, {"role": "user", "content": "cd"})
    engine.submit(Generation(messages, max_tokens=2), inbox.put)
    assert inbox.answer().input_tokens == len("ab\ncd")
    engine.close()


def test_a_cancelled_request_leaves_and_the_others_stay(engine: LocalEngine) -> None:
    expected = ask(engine, "keep me", max_tokens=40)
    inboxes = [Inbox() for _ in range(8)]
    tickets: list[GenerationHandle] = [
        engine.submit(Generation(user("keep me"), max_tokens=40, stream=place % 2 == 0), inbox.put)
        for place, inbox in enumerate(inboxes)
    ]
    for ticket in tickets[::2]:
        ticket.cancel()
    for inbox in inboxes[1::2]:
        assert inbox.answer() == expected
    ask(engine, "anything")
    assert engine.statistics().running == 0
    assert engine.statistics().waiting == 0


def test_a_full_queue_refuses_and_says_that_trying_again_helps(folder: Path) -> None:
    engine = LocalEngine("tiny", folder, EngineOptions(max_batch=1, max_queue=2))
    entered, goes_on = threading.Event(), threading.Event()

    def pause(*_: Any) -> None:
        entered.set()
        goes_on.wait(60)

    hook = engine.model.register_forward_pre_hook(pause)
    inboxes = [Inbox() for _ in range(3)]
    engine.submit(Generation(user("one"), max_tokens=2), inboxes[0].put)
    assert entered.wait(60)
    for inbox in inboxes[1:]:
        engine.submit(Generation(user("more"), max_tokens=2), inbox.put)
    with pytest.raises(BackendError, match="queue of the local model is full") as caught:
        engine.submit(Generation(user("too many"), max_tokens=2), Inbox().put)
    assert (caught.value.kind, caught.value.retryable) == ("overloaded", True)
    hook.remove()
    goes_on.set()
    for inbox in inboxes:
        inbox.answer()
    engine.close()


def test_out_of_memory_starts_the_newest_over_and_fails_nobody(folder: Path, engine: LocalEngine) -> None:
    import torch

    small = LocalEngine("tiny", folder, EngineOptions(max_batch=16))

    def small_memory(_: Any, __: Any, keywords: dict[str, Any]) -> None:
        if keywords["input_ids"].shape[0] > 4:
            raise torch.OutOfMemoryError("scripted: out of memory")

    hook = small.model.register_forward_pre_hook(small_memory, with_kwargs=True)
    asked = [Generation(user(f"question {n}"), max_tokens=6, temperature=n % 2, seed=n) for n in range(16)]
    assert _answers(small, asked) == _answers(engine, asked)
    assert small.statistics().preempted > 0
    assert small.statistics().kv_limit is not None
    hook.remove()
    while small.statistics().kv_limit is not None:  # it grows again when memory suffices
        ask(small, "tell me", max_tokens=100)
    small.close()


def test_out_of_memory_alone_is_retryable(folder: Path) -> None:
    import torch

    engine = LocalEngine("tiny", folder)

    def no_memory(*_: Any) -> None:
        raise torch.OutOfMemoryError("scripted: out of memory")

    hook = engine.model.register_forward_pre_hook(no_memory)
    with pytest.raises(BackendError, match="out of memory while") as caught:
        ask(engine, "question")
    assert (caught.value.kind, caught.value.retryable) == ("out_of_memory", True)
    hook.remove()
    assert ask(engine, "question").text
    engine.close()


def _answers(engine: LocalEngine, asked: list[Generation]) -> list[Generated]:
    """The answers to requests that come all at once. The first that fails raises."""
    inboxes = [Inbox() for _ in asked]
    for generation, inbox in zip(asked, inboxes, strict=True):
        engine.submit(generation, inbox.put)
    return [inbox.answer() for inbox in inboxes]


@pytest.mark.parametrize("kv_tokens", [120, 300])
def test_a_soak_within_a_limited_cache_has_no_failure_and_the_same_texts(
    folder: Path, engine: LocalEngine, kv_tokens: int
) -> None:
    """Short answers teach a forecast that long ones then break, so that requests start over in the middle."""
    generator = random.Random(kv_tokens)
    asked = [
        Generation(
            user("abcdefgh "[: 1 + n % 9] * generator.randint(1, 4)),
            max_tokens=generator.choice([1, 2, 3, 60]),
            temperature=generator.choice([0.0, 1.2]),
            seed=n,
            stream=n % 3 == 0,
        )
        for n in range(60)
    ]
    small = LocalEngine("tiny", folder, EngineOptions(max_kv_tokens=kv_tokens))
    answers = _answers(small, asked)
    statistics = small.statistics()
    small.close()
    assert answers == _answers(engine, asked)
    assert 0 < statistics.kv_peak <= kv_tokens
    assert statistics.preempted > 0
    assert (statistics.running, statistics.waiting) == (0, 0)


@pytest.mark.parametrize("limited", [True, False])
def test_large_prompts_and_many_rows_never_run_out_of_a_memory_that_the_limit_knows(
    folder: Path, engine: LocalEngine, limited: bool
) -> None:
    """A memory with room for 400 tokens, padding included. Without the limit, the same requests do run out of it."""
    import torch

    cells, ran_out = 400, []
    options = EngineOptions(max_kv_tokens=cells if limited else None, max_batch=48)
    small = LocalEngine("tiny", folder, options)

    def small_memory(_: Any, __: Any, keywords: dict[str, Any]) -> None:
        rows, columns = keywords["attention_mask"].shape
        if rows * columns > cells:
            ran_out.append((rows, columns))
            raise torch.OutOfMemoryError("scripted: out of memory")

    hook = small.model.register_forward_pre_hook(small_memory, with_kwargs=True)
    large, little = user("abcdefgh " * 9), user("why?")
    asked = [Generation(large if n % 8 == 3 else little, max_tokens=4 + 5 * (n % 4), seed=n) for n in range(48)]
    assert _answers(small, asked) == _answers(engine, asked)
    assert bool(ran_out) is not limited
    if limited:
        assert 0 < small.statistics().kv_peak <= cells
        assert small.statistics().kv_limit == cells  # nothing was halved
    hook.remove()
    small.close()


def test_a_pocket_model_on_numpy_keeps_to_its_cache_too() -> None:
    asked = [Generation(user(f"What is {n} + {7 * n}?" * (1 + n % 3)), max_tokens=4 + n % 9) for n in range(24)]
    free = LocalEngine("pocket-small", pocket_path("pocket-small"))
    small = LocalEngine("pocket-small", pocket_path("pocket-small"), EngineOptions(max_kv_tokens=200))
    assert _answers(small, asked) == _answers(free, asked)
    assert 0 < small.statistics().kv_peak <= 200 < free.statistics().kv_peak
    small.close()
    free.close()


def test_a_request_that_can_never_fit_is_refused(folder: Path) -> None:
    engine = LocalEngine("tiny", folder, EngineOptions(max_kv_tokens=40))
    with pytest.raises(BackendError, match="do not fit into max_kv_tokens, which is 40") as caught:
        ask(engine, "short", max_tokens=39)
    assert (caught.value.kind, caught.value.retryable) == ("context_window", False)
    assert ask(engine, "short", max_tokens=None).output_tokens <= 35
    engine.close()


def test_a_model_that_breaks_fails_its_requests_and_serves_the_next(folder: Path) -> None:
    engine = LocalEngine("tiny", folder)

    def broken(*_: Any) -> None:
        raise ValueError("scripted: broken kernel")

    hook = engine.model.register_forward_pre_hook(broken)
    with pytest.raises(BackendError, match="ValueError: scripted: broken kernel"):
        ask(engine, "question")
    hook.remove()
    assert ask(engine, "question").text
    engine.close()


def test_a_folder_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-architecture"}')
    engine = LocalEngine("odd", tmp_path)
    for _ in range(2):
        with pytest.raises(BackendError, match="cannot be loaded on cpu") as caught:
            ask(engine, "question")
        assert not caught.value.retryable
    engine.close()


def test_closing_fails_what_waits_and_a_dropped_engine_stops_its_thread(folder: Path) -> None:
    engine = LocalEngine("tiny", folder)
    ask(engine, "question")
    kept = weakref.ref(engine)
    engine.close()
    with pytest.raises(BackendError, match="closed"):
        engine.submit(Generation(user("late")), Inbox().put)
    del engine
    gc.collect()
    assert kept() is None
    other = LocalEngine("other", folder)
    thread = next(thread for thread in threading.enumerate() if thread.name == "eccos-local other")
    del other
    gc.collect()
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_tokens_per_second_are_measured(engine: LocalEngine) -> None:
    ask(engine, "question")
    statistics = engine.statistics()
    assert statistics.device == "cpu"
    assert statistics.tokens_per_second == pytest.approx(
        (statistics.input_tokens + statistics.output_tokens) / statistics.busy_s
    )


def test_a_small_model_leaves_the_threads_of_others_alone(engine: LocalEngine) -> None:
    import torch

    before = torch.get_num_threads()
    ask(engine, "question")
    assert torch.get_num_threads() == before
