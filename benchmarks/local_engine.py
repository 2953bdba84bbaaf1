"""Compare the local engine with the continuous batching of transformers, on one CPU thread.

Both answer the same greedy requests with the same Llama of 17 million random weights, 1, 4 and 16 at once. Each engine
runs in a process of its own, in turn, `ROUNDS` times. You see medians: output tokens per processor second, the time to
the first token, and the peak memory of the process. The script fails when the two give different tokens.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

AT_ONCE = (1, 4, 16)
NEW_TOKENS, ROUNDS, REPEATS = 48, 3, 2
CACHE = {"num_blocks": 64, "max_batch_tokens": 512}  # room for 16 requests; left alone, it takes 90 % of free memory
SHARE = {"max_memory_percent": 0.1, "max_batch_tokens": 512}  # the same, with a cache of a tenth of the free memory
ENGINES = ("eccos", "sdpa", "paged|eager", "sdpa, 10 % of free memory")
Answers = tuple[list[str], list[float], int]  # texts, seconds to each first token, output tokens
Serve = Callable[[list[str]], Answers]


def question(place: int) -> str:
    """A prompt of about 40 tokens, one per character."""
    return f"What is {place} plus {3 * place}, and why so?"


@contextmanager
def eccos(folder: Path) -> Iterator[Serve]:
    """Our engine."""
    from eccos_core.backends.local.engine import LocalEngine
    from eccos_core.backends.local.generation import Delivery, Generated, Generation
    from eccos_core.backends.local.model import EngineOptions

    engine = LocalEngine("bench", folder, EngineOptions(device="cpu", dtype="float32"))
    assert engine.model is not None

    def serve(questions: list[str]) -> Answers:
        started = time.perf_counter()
        arrived: queue.SimpleQueue[tuple[int, float, Delivery]] = queue.SimpleQueue()
        for place, text in enumerate(questions):
            asked = Generation(({"role": "user", "content": text},), max_tokens=NEW_TOKENS, temperature=0, stream=True)
            engine.submit(asked, lambda it, place=place: arrived.put((place, time.perf_counter(), it)))
        first: dict[int, float] = {}
        done: dict[int, Generated] = {}
        while len(done) < len(questions):
            place, at, delivery = arrived.get(timeout=120)
            first.setdefault(place, at - started)
            if isinstance(delivery, Generated):
                done[place] = delivery
        texts = [done[place].text for place in range(len(questions))]
        return texts, list(first.values()), sum(answer.output_tokens for answer in done.values())

    yield serve
    engine.close()


@contextmanager
def transformers(folder: Path, attention: str, cache: dict[str, Any]) -> Iterator[Serve]:
    """`ContinuousBatchingManager` of transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, ContinuousBatchingConfig, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()
    greedy = GenerationConfig(max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=tokenizer.eos_token_id)
    with model.continuous_batching_context_manager(
        generation_config=greedy, continuous_batching_config=ContinuousBatchingConfig(**cache)
    ) as manager:

        def serve(questions: list[str]) -> Answers:
            prompts = [
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
                )
                for text in questions
            ]
            started = time.perf_counter()
            names = [
                manager.add_request(tokenizer(text, add_special_tokens=False)["input_ids"], streaming=True)
                for text in prompts
            ]
            first: dict[str, float] = {}
            done: dict[str, list[int]] = {}
            while len(done) < len(questions):
                result = manager.get_result(timeout=120)
                first.setdefault(result.request_id, time.perf_counter() - started)
                if result.is_finished():
                    done[result.request_id] = result.generated_tokens
            texts = [tokenizer.decode(done[name], skip_special_tokens=True) for name in names]
            return texts, list(first.values()), sum(map(len, done.values()))

        yield serve


def measure(engine: str, folder: Path) -> dict[str, Any]:
    """Measure one engine in this process.

    Returns the peak MB, and for each number of requests at once: output tokens per processor second, seconds to the
    first token, and the texts.
    """
    attention, _, own_cache = engine.partition(", ")
    loaded = eccos(folder) if engine == "eccos" else transformers(folder, attention, SHARE if own_cache else CACHE)
    figures = []
    with loaded as serve:
        serve([question(place) for place in range(max(AT_ONCE))])  # warm up
        for count in AT_ONCE:
            rates, latencies, texts = [], [], []
            for _ in range(REPEATS):
                started = time.process_time()
                texts, first, tokens = serve([question(place) for place in range(count)])
                rates.append(tokens / (time.process_time() - started))
                latencies += first
            figures.append((statistics.median(rates), statistics.median(latencies), texts))
    return {"mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "figures": figures}


def main() -> int:
    """Print the table. Exits 1 when an engine gives other tokens than ours."""
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
        return 0
    from eccos_core.testing import build_tiny_model

    found: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory() as folder:
        build_tiny_model(Path(folder), hidden=512, layers=8, window=512)
        for _ in range(ROUNDS):
            for engine in ENGINES:
                done = subprocess.run(
                    [sys.executable, __file__, engine, folder],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    check=True,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                )
                found[engine].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"| engine | peak memory | {' | '.join(f'{count} at once' for count in AT_ONCE)} |")
    print(f"|---|---|{'---|' * len(AT_ONCE)}")
    for engine, rounds in found.items():
        cells = [f"{statistics.median(each['mb'] for each in rounds):.0f} MB"]
        for place in range(len(AT_ONCE)):
            rate, latency = (statistics.median(each["figures"][place][i] for each in rounds) for i in (0, 1))
            cells.append(f"{rate:.0f} tokens/s, {latency * 1e3:.0f} ms")
        print(f"| {engine} | {' | '.join(cells)} |")
    texts = {engine: [figure[2] for figure in rounds[0]["figures"]] for engine, rounds in found.items()}
    different = [engine for engine in ENGINES if texts[engine] != texts["eccos"]]
    if different:
        print(f"other tokens than ours: {', '.join(different)}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
