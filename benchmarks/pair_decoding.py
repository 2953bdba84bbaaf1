"""Decode with two models, token by token: the small one writes, and a gate asks the large one for single tokens.

After CITER (Zheng et al. 2025, arXiv 2502.01976, section 3). `benchmarks/pair.py` measures whether it pays. Both models
choose greedily, so every answer that any gate can cause is a path in a tree of at most two children a node.
`grow_tree` writes this tree once. Then `walk` replays a gate at any threshold without a model. `decode_pair` does the
same live, with both caches, and a test holds the two against each other. `pair_gate.py` has the gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from eccos_core.backends.local.numpy_llama import NumpyBatch, NumpyLlama, NumpyTokenizer
from eccos_core.domain import BoolArray, Float32Array, FloatArray, IntArray

SMALL, LARGE = 0, 1  # columns of a tree
LONGEST_ANSWER = 12  # tokens, the end included. The longest right answer of the pocket pool has 6.


class HiddenLlama(NumpyLlama):
    """A `NumpyLlama` that keeps the last hidden states of its last pass: `hidden` (B, width), float32."""

    hidden: Float32Array

    def _norm(self, hidden: Float32Array, weight: str) -> Float32Array:
        normed = super()._norm(hidden, weight)
        if weight == "model.norm.weight":
            self.hidden = normed
        return normed


class Gate(Protocol):
    """Says how much the next token needs the large model."""

    def need(self, hidden: Float32Array) -> FloatArray:
        """Return a number above 0 and at most 1 (K,) for hidden states (K, width) of the small model."""
        ...


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models that share a tokenizer."""

    small: HiddenLlama
    large: HiddenLlama
    tokenizer: NumpyTokenizer

    def prompt_ids(self, query: str) -> list[int]:
        """Tokenise a question."""
        chat = [{"role": "user", "content": query}]
        text = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def text(self, tokens: Sequence[int]) -> str:
        """Return the answer that tokens spell."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    def batch(self, model: NumpyLlama) -> NumpyBatch:
        """Start an empty batch of one of the models."""
        return NumpyBatch(model, self.tokenizer.pad_token_id or 0)


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens that went through each model, (N,) each.

    `large_tokens` counts its prefill, its catch-up on tokens that the small model wrote, and its own tokens.
    `large_written` counts the tokens of the answer that the large model chose. `answer_tokens` counts all.
    """

    small_tokens: IntArray
    large_tokens: IntArray
    large_written: IntArray
    answer_tokens: IntArray

    def flops(self, small_parameters: int, large_parameters: int, gate_parameters: int = 0) -> FloatArray:
        """Return the compute of each answer (N,): two operations for each parameter and token.

        The gate runs once for each token that the small model was asked to write.
        """
        small = (small_parameters * self.small_tokens + gate_parameters * self.answer_tokens).astype(np.float64)
        return 2.0 * (small + large_parameters * self.large_tokens)

    def usd(self, prompt_tokens: IntArray, small: tuple[float, float], large: tuple[float, float]) -> FloatArray:
        """Return the price of each answer (N,). small, large: USD per input and output token.

        The large model is charged each token that it reads once, and each that it writes.
        """
        by_small = small[0] * prompt_tokens + small[1] * self.answer_tokens
        read = np.where(self.large_written > 0, self.large_tokens - self.large_written + 1, 0)
        return np.asarray(by_small + large[0] * read + large[1] * self.large_written, dtype=np.float64)


def count_work(prompt_tokens: IntArray, asked: BoolArray, answer_tokens: IntArray) -> Work:
    """Count tokens. prompt_tokens (N,), asked (N, T): the large model wrote token t, answer_tokens (N,).

    To write token t, a model must have read the prompt and the t tokens before it, whoever wrote them. So the large
    model reads up to the last token that it is asked for. The last token of an answer is read by nobody.
    """
    places = np.arange(1, asked.shape[1] + 1)
    last = np.where(asked, places, 0).max(axis=1, initial=0)
    large = np.where(last > 0, prompt_tokens + last - 1, 0)
    return Work(prompt_tokens + answer_tokens - 1, large, asked.sum(axis=1), answer_tokens)


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """Every answer that a pair can write to N questions, in K nodes. A node is an answer so far.

    Node n < N is question n with nothing written. `hidden` (K, width) is what the small model knows there. Columns are
    SMALL and LARGE: `child` (K, 2) is the node after this model's token, -1 where the answer ends, and then `grade`
    (K, 2) is what it is worth, NaN elsewhere. Where both models choose the same token, both columns are the same, and
    `differs` (K,) is False. `question` (K,) is the question of a node. `prompt_tokens` is (N,).
    """

    hidden: Float32Array
    child: IntArray
    grade: FloatArray
    differs: BoolArray
    question: IntArray
    prompt_tokens: IntArray

    def __len__(self) -> int:
        return len(self.prompt_tokens)

    def values(self, asks: BoolArray) -> FloatArray:
        """Return the final grade (K, 2) after each model's token, when `asks` (K,) decides about all later ones."""
        found = self.grade.copy()
        for node in range(len(self.child) - 1, -1, -1):  # a child comes after its parent
            for writer in (SMALL, LARGE):
                after = self.child[node, writer]
                if after >= 0:
                    found[node, writer] = found[after, LARGE if asks[after] else SMALL]
        return found


@dataclass(frozen=True, slots=True)
class Walk:
    """What a gate did with R questions: `grade` (R,), the final quality of each, and `work`."""

    grade: FloatArray
    work: Work


def walk(tree: Tree, rows: IntArray, need: FloatArray, threshold: float, *, priced: bool = False) -> Walk:
    """Replay a gate on questions `rows` (R,). The large model writes where `need` (K,) is above the threshold.

    priced: the threshold grows with the tokens that the large model must read first, over the mean prompt. So a token
    far from what it has read needs more reason than the one after its own. CITER's threshold is the same everywhere.
    """
    node, running = rows.copy(), np.ones(len(rows), dtype=bool)
    grade, read = np.full(len(rows), np.nan), np.zeros(len(rows), dtype=np.int64)
    prompt = tree.prompt_tokens[rows]
    asked: list[BoolArray] = []
    length = np.zeros(len(rows), dtype=np.int64)
    while running.any():
        unread = (prompt + len(asked) - read) / prompt.mean() if priced else 1.0
        large = running & (need[node] > threshold * unread)
        read = np.where(large, prompt + len(asked), read)
        asked.append(large)
        length += running
        after = tree.child[node, large.astype(np.int64)]
        ends = running & (after < 0)
        grade[ends] = tree.grade[node, large.astype(np.int64)][ends]
        running &= ~ends
        node = np.where(running, after, node)
    return Walk(grade, count_work(prompt, np.stack(asked, axis=1), length))


def cheapest_repair(tree: Tree) -> tuple[FloatArray, IntArray]:
    """Return what the best gate could gain over the small model (N,), and the fewest tokens (N,) that it takes.

    It knows every grade, and asks for exactly the tokens that bring the best one. Zero tokens where nothing is gained.
    """
    alone = walk(tree, np.arange(len(tree)), np.zeros(len(tree.child)), 1.0).grade
    gain, tokens = np.zeros(len(tree)), np.zeros(len(tree), dtype=np.int64)
    for question in range(len(tree)):
        ways = [(question, 0, 0)]
        found: list[tuple[float, int]] = []
        while ways:
            node, written, read = ways.pop()
            for writer in (SMALL, LARGE):
                now = int(tree.prompt_tokens[question]) + written if writer == LARGE else read
                after = int(tree.child[node, writer])
                if after >= 0:
                    ways.append((after, written + 1, now))
                else:
                    found.append((-float(tree.grade[node, writer]), now))
        best, fewest = min(found)
        if -best > alone[question]:
            gain[question], tokens[question] = -best - alone[question], fewest
    return gain, tokens


class Grade(Protocol):
    """Grades the answer to question number n."""

    def __call__(self, question: int, answer: str) -> float:
        """Return 0 to 1."""
        ...


def grow_tree(pair: Pair, queries: Sequence[str], grade: Grade, *, at_once: int = 256) -> Tree:
    """Write every answer that the pair can give to these questions."""
    order = sorted(range(len(queries)), key=lambda row: len(queries[row]))  # less padding
    parts = []
    for start in range(0, len(order), at_once):
        rows = order[start : start + at_once]
        parts.append(_grow(pair, [pair.prompt_ids(queries[row]) for row in rows], rows, grade))
    return _join(parts, order)


def _grow(pair: Pair, prompts: Sequence[Sequence[int]], rows: Sequence[int], grade: Grade) -> dict[str, Any]:
    """Grow the trees of some questions, level by level. A level is one pass of both models."""
    batches = [pair.batch(pair.small), pair.batch(pair.large)]
    logits = []
    for batch in batches:
        found, cache, mask = batch.prefill(prompts)
        batch.join(cache, mask)
        logits.append(found)
    written: list[list[int]] = [[] for _ in prompts]
    question = list(range(len(prompts)))
    hidden, tokens, child, grades, owners = [], [], [], [], []
    known = 0
    while question:
        hidden.append(pair.small.hidden)
        chosen = np.stack([found.argmax(axis=1) for found in logits], axis=1)
        tokens.append(chosen)
        owners.append([rows[own] for own in question])
        after = np.full((len(question), 2), -1, dtype=np.int64)
        graded = np.full((len(question), 2), np.nan)
        parents: list[int] = []
        next_written: list[list[int]] = []
        known += len(question)
        for row, (own, choice) in enumerate(zip(question, chosen.tolist(), strict=True)):
            for writer in (SMALL, LARGE):
                if writer == LARGE and choice[LARGE] == choice[SMALL]:
                    after[row, LARGE], graded[row, LARGE] = after[row, SMALL], graded[row, SMALL]
                    continue
                answer = [*written[row], choice[writer]]
                if choice[writer] == pair.tokenizer.eos_token_id or len(answer) >= LONGEST_ANSWER:
                    graded[row, writer] = grade(rows[own], pair.text(answer))
                else:
                    after[row, writer] = known + len(parents)
                    parents.append(row)
                    next_written.append(answer)
        child.append(after)
        grades.append(graded)
        question, written = [question[row] for row in parents], next_written
        for column, batch in enumerate(batches):
            batch.keep(parents)
            if parents:
                logits[column] = batch.step([answer[-1] for answer in written])
    return {
        "hidden": np.concatenate(hidden),
        "tokens": np.concatenate(tokens),
        "question": np.concatenate(owners),
        "child": np.concatenate(child),
        "grade": np.concatenate(grades),
        "prompt_tokens": np.array([len(prompt) for prompt in prompts]),
    }


def _join(parts: Sequence[dict[str, Any]], order: Sequence[int]) -> Tree:
    """Number the nodes anew: first the questions in their own order, then all others, children after parents."""
    total = len(order)
    place: list[IntArray] = []
    roots, others = 0, total
    for part in parts:
        size, inner = len(part["prompt_tokens"]), len(part["child"])
        own = np.empty(inner, dtype=np.int64)
        own[:size] = order[roots : roots + size]
        own[size:] = np.arange(others, others + inner - size)
        roots, others = roots + size, others + inner - size
        place.append(own)
    back = np.argsort(np.concatenate(place))
    child = np.concatenate(
        [np.where(part["child"] < 0, -1, own[part["child"]]) for part, own in zip(parts, place, strict=True)]
    )
    tokens = np.concatenate([part["tokens"] for part in parts])[back]
    return Tree(
        hidden=np.concatenate([part["hidden"] for part in parts])[back],
        child=child[back],
        grade=np.concatenate([part["grade"] for part in parts])[back],
        question=np.concatenate([part["question"] for part in parts])[back],
        differs=tokens[:, SMALL] != tokens[:, LARGE],
        prompt_tokens=np.concatenate([part["prompt_tokens"] for part in parts])[np.argsort(np.asarray(order))],
    )


@dataclass(frozen=True, slots=True)
class Decoded:
    """One live answer: its tokens, which of them the large model wrote, and the tokens that each model processed."""

    tokens: tuple[int, ...]
    asked: tuple[bool, ...]
    small_tokens: int
    large_tokens: int


def decode_pair(pair: Pair, query: str, gate: Gate, threshold: float) -> Decoded:
    """Decode one answer live. The large model writes each token whose need is above the threshold.

    Each model keeps its cache. When the large model is asked, it first reads what it has missed, in one pass.
    """
    prompt = pair.prompt_ids(query)
    read = {SMALL: 0, LARGE: 0}
    caches: dict[int, Any] = {SMALL: None, LARGE: None}
    models = {SMALL: pair.small, LARGE: pair.large}
    tokens: list[int] = []
    asked: list[bool] = []

    def next_token(which: int) -> int:
        ids = np.array([[*prompt, *tokens][read[which] :]])
        places = np.arange(read[which], len(prompt) + len(tokens))[None]
        mask = np.ones((1, places[0, -1] + 1), dtype=bool)
        logits, caches[which] = models[which].forward(ids, places, mask, caches[which])
        read[which] += ids.shape[1]
        return int(logits[0].argmax())

    while not tokens or (tokens[-1] != pair.tokenizer.eos_token_id and len(tokens) < LONGEST_ANSWER):
        token = next_token(SMALL)
        asks = bool(gate.need(pair.small.hidden)[0] > threshold)
        tokens.append(next_token(LARGE) if asks else token)
        asked.append(asks)
    return Decoded(tuple(tokens), tuple(asked), read[SMALL], read[LARGE])
