"""Ways to read a question that eccos tried and does not ship: see docs/benchmarks/index.md.

Every vector of words has the surface beside it. Numbers are differences to ours, in thousandths of R2 and area, as
in `encoders.py`. They are noisy: on 2,000 rows, 3 of R2 and 2 of area mean nothing. `--layers` adds the other layers of
MiniLM, which takes one forward pass a question.
"""

from __future__ import annotations

import argparse
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from encoders import DATA, SETS, TrainingRows, encoders

from eccos_core.domain import Float32Array, IntArray
from eccos_core.encoders import SentenceTransformerEncoder, StaticEncoder, SurfaceEncoder
from eccos_core.encoders.static import MOST_CHARACTERS
from eccos_core.encoders.static_training import token_vectors

Ways = Iterator[tuple[str, Float32Array]]

CODE_WORD = re.compile(r"\b(def|return|import|class|for|while|if|else|function|var|let|const|public|void|self)\b")
NEGATION = re.compile(r"\b(not|except|no|never|none|neither|nor|without|n't|least|false|incorrect)\b", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
MORE_SURFACE: dict[str, Callable[[str], float]] = {
    "indented lines": lambda text: sum(line.startswith(("  ", "\t")) for line in text.split("\n")),
    "brackets": lambda text: sum(map(text.count, "()[]{}<>")),
    "code words": lambda text: len(CODE_WORD.findall(text)),
    "code fences": lambda text: text.count("```"),
    "identifiers": lambda text: len(re.findall(r"\w_\w|\w\.\w+\(|[a-z][A-Z]", text)),
    "negations": lambda text: len(NEGATION.findall(text)),
    "longest sentence": lambda text: max(map(len, SENTENCE_END.split(text))),
    "LaTeX commands": lambda text: len(re.findall(r"\\[a-z]+", text)),
    "beyond Latin": lambda text: sum(character >= "\u0250" for character in text),
}


def unit(vectors: Float32Array) -> Float32Array:
    """Scale every row to length one. Rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths), dtype=np.float32)


def join(*parts: Float32Array) -> Float32Array:
    """Concatenate unit rows. Weights would change nothing: the predictor weighs the parts itself."""
    return np.concatenate([unit(part) for part in parts], axis=1) * np.float32(len(parts) ** -0.5)


def centre(vectors: Float32Array) -> Float32Array:
    """Take the mean row off every row."""
    return np.asarray(vectors - vectors.mean(axis=0))


def whiten(vectors: Float32Array, power: float) -> Float32Array:
    """Centre, turn to principal axes, and divide each axis by its deviation to this power. 0.5 is half whitened."""
    centred = centre(vectors)
    _, deviations, axes = np.linalg.svd(centred, full_matrices=False)
    return unit(centred @ axes.T * (deviations / deviations[0] + 0.01) ** -power)


def sign_keys(keys: Iterable[str], dimensions: int = 256) -> Float32Array:
    """Add up one fixed random row of signs for each distinct key."""
    total = np.zeros(dimensions, dtype=np.float32)
    for key in sorted(set(keys)):
        words = np.random.PCG64(zlib.crc32(key.encode("utf-8", "replace"))).random_raw(dimensions // 64)
        total += 2.0 * np.unpackbits(np.asarray(words, dtype="<u8").view(np.uint8)) - 1
    return total


def weigh_by_inverse_frequency(tokens: Sequence[IntArray], axes: Float32Array) -> Float32Array:
    """Sum the vectors of distinct tokens, weighted by how rare each is among these questions."""
    distinct = [np.unique(row) for row in tokens]
    frequency = np.bincount(np.concatenate(distinct), minlength=len(axes))
    weight = np.log((len(tokens) + 1) / (frequency + 1)).astype(np.float32)
    return np.stack([weight[row] @ axes[row] for row in distinct])


def static_ways(queries: Sequence[str]) -> Ways:
    """Yield variants of the static encoder, the shipped one first."""
    texts = [text[:MOST_CHARACTERS] for text in queries]
    shipped, learned = StaticEncoder(), token_vectors("minilm", 256, None)
    vectors = shipped.encode(texts)
    yield "static (shipped)", vectors
    yield "no lexical part", StaticEncoder(dimensions=256, lexical=0).encode(texts)
    yield "lexical part of 256", StaticEncoder(dimensions=512, lexical=256).encode(texts)
    axes = learned.codes[:, :256] * learned.scales[:256]
    encodings = learned.tokenizer.encode_batch(texts, add_special_tokens=False)
    tokens = [np.array([i for i in found.ids if i != learned.unknown] or [0]) for found in encodings]
    pooled = [np.concatenate([axes[row, :128].max(axis=0), axes[row, :128].min(axis=0)]) for row in tokens]
    yield "maximum and minimum pooling beside", join(vectors, centre(np.stack(pooled)))
    spread = np.stack([axes[row].std(axis=0) for row in tokens])
    yield "deviation pooling beside", join(vectors, centre(spread))
    pairs = [sign_keys(f"{a},{b}" for a, b in pairwise(row[:3000])) for row in tokens]
    yield "signature of word pairs beside", join(vectors, np.stack(pairs))
    characters = [sign_keys(text[i : i + 4].lower() for i in range(min(len(text), 4000))) for text in texts]
    yield "signature of 4 characters beside", join(vectors, np.stack(characters))
    rare = weigh_by_inverse_frequency(tokens, axes)
    yield "rarity from the history", join(rare, vectors[:, 256:])
    first, last = (shipped.encode([text[cut] for text in texts]) for cut in (slice(200), slice(-200, None)))
    yield "end less beginning beside", join(vectors, last - first)
    yield "quarter whitened", whiten(vectors, 0.25)
    yield "half whitened", whiten(vectors, 0.5)


def surface_ways(queries: Sequence[str], shipped: Float32Array) -> Ways:
    """Yield variants of the surface, the shipped one first. Clipped at 1.9 deviations, 26 features still fit."""
    yield "surface (shipped)", shipped
    more = np.log1p([[count(text) for count in MORE_SURFACE.values()] for text in queries])
    features = np.concatenate([shipped[:, :-1], 0.1 * centre(more) / (more.std(axis=0) + 1e-9)], axis=1)
    features = np.clip(features, -0.19, 0.19)
    rest = np.sqrt(1 - (features**2).sum(axis=1, keepdims=True))
    yield "nine more features", np.concatenate([features, rest], axis=1, dtype=np.float32)


def minilm_ways(queries: Sequence[str], *, layers: bool) -> Ways:
    """Yield variants of MiniLM, the shipped one first."""
    vectors = encoders()["MiniLM with its middle layer"].encode(queries)
    last, middle = vectors[:, :384], vectors[:, 384:]
    static = StaticEncoder().encode(queries)
    yield "MiniLM with its middle layer (shipped)", vectors
    yield "last layer alone", last
    yield "middle layer alone", middle
    yield "middle layer centred", join(last, centre(middle))
    yield "static beside", join(vectors, static)
    yield "quarter whitened", whiten(vectors, 0.25)
    yield "half whitened", whiten(vectors, 0.5)
    if layers:
        yield from layer_ways(queries, last, middle)


def layer_ways(queries: Sequence[str], last: Float32Array, middle: Float32Array) -> Ways:
    """Yield MiniLM with other layers, and other pooling of the middle one. One forward pass of 16 questions a time."""
    import torch

    model = SentenceTransformerEncoder(intermediate_layer=True).load()
    means = np.empty((len(queries), 7, 384), dtype=np.float32)
    first, highest, spread = (np.empty((len(queries), 384), dtype=np.float32) for _ in range(3))
    order = sorted(range(len(queries)), key=lambda i: len(queries[i]))
    for start in range(0, len(order), 16):
        batch = order[start : start + 16]
        features = model.preprocess([queries[i] for i in batch])
        with torch.inference_mode():
            layers = torch.stack(model(features)["all_layer_embeddings"], dim=1)
        real = features["attention_mask"][:, None, :, None].bool()
        count = real.sum(dim=2)
        means[batch] = (layers * real).sum(dim=2) / count
        fourth, mask, mean = layers[:, 4], real[:, 0], torch.from_numpy(means[batch, 4])[:, None]
        first[batch] = fourth[:, 0]
        highest[batch] = fourth.masked_fill(~mask, -torch.inf).amax(dim=1)
        spread[batch] = (((fourth - mean) ** 2 * mask).sum(dim=1) / count[:, 0]).sqrt()
    for others in ((2,), (3,), (5,), (2, 4), (3, 5), (0, 1, 2, 3, 4, 5)):
        yield f"last layer with {others}", join(last, *(means[:, layer] for layer in others))
    yield "first token of the middle layer beside", join(last, middle, centre(first))
    yield "maximum of the middle layer beside", join(last, middle, centre(highest))
    yield "deviation of the middle layer beside", join(last, middle, centre(spread))


def compare(rows: TrainingRows, ways: Ways) -> None:
    """Print what each way gains over the first, in thousandths."""
    shipped = None
    for way, vectors in ways:
        found = rows.measure(vectors)
        shipped = shipped or found
        r2, area = 1000 * (found.r2 - shipped.r2), 1000 * (found.area - shipped.area)
        print(f"| {way} | {r2:+.1f} | {area:+.1f} |", flush=True)


def main() -> int:
    """Print one table for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--rows", type=int, default=2000, help="at most so many training rows of a set")
    parser.add_argument("--layers", action="store_true", help="read the other layers of MiniLM too")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"needs {DATA}, which is not here")
        return 0
    for name in options.sets:
        rows = TrainingRows.draw(name, options.rows)
        queries = rows.table.queries
        static, surface = StaticEncoder().encode(queries), SurfaceEncoder().encode(queries)
        print(f"\n{name}: {len(rows.table)} rows\n| way | R2 | area |\n|---|---|---|")
        compare(rows, ((way, join(vectors, surface)) for way, vectors in static_ways(queries)))
        compare(rows, ((way, join(static, vectors)) for way, vectors in surface_ways(queries, surface)))
        minilm = minilm_ways(queries, layers=options.layers)
        compare(rows, ((way, join(vectors, surface)) for way, vectors in minilm))
    return 0


if __name__ == "__main__":
    sys.exit(main())
