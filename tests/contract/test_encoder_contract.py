"""What every encoder promises, over all of them. MiniLM itself is the real one; the others use a tiny real model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny_encoder import make_tiny_model

from eccos_core.encoders import (
    CachedEncoder,
    ConcatenatedEncoder,
    SentenceTransformerEncoder,
    StaticEncoder,
    StepEncoder,
    SurfaceEncoder,
)
from eccos_core.protocols import Encoder

TEXTS = [
    "What is the capital of France?",
    "the sum of two plus three",
    "Is Müller > 5 × 3?\nOptions:\nA. yes\nB. no",
    "中文 и русский 🙂",
    "x",
]
TOLERANCE = 2e-6


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distilled")


MAKERS: dict[str, Callable[[Path, Path], Encoder]] = {
    "minilm": lambda _, __: SentenceTransformerEncoder(),
    "intermediate_layer": lambda tiny, _: SentenceTransformerEncoder(str(tiny), device="cpu", intermediate_layer=True),
    "sentence_transformer": lambda tiny, _: SentenceTransformerEncoder(str(tiny), device="cpu"),
    "static": lambda tiny, kept: StaticEncoder(str(tiny), dimensions=20, lexical=8, cache_dir=kept),
    "static_without_lexical": lambda tiny, kept: StaticEncoder(str(tiny), dimensions=16, lexical=0, cache_dir=kept),
    "surface": lambda _, __: SurfaceEncoder(),
    "concatenated": lambda tiny, kept: ConcatenatedEncoder(
        [StaticEncoder(str(tiny), dimensions=12, cache_dir=kept), SurfaceEncoder()], [2.0, 1.0]
    ),
    "step": lambda tiny, kept: StepEncoder(StaticEncoder(str(tiny), dimensions=12, cache_dir=kept)),
    "cached": lambda tiny, kept: CachedEncoder(
        StaticEncoder(str(tiny), dimensions=12, cache_dir=kept), kept / "cache.sqlite"
    ),
}


@pytest.fixture(scope="session", params=MAKERS)
def encoder(request: pytest.FixtureRequest, tiny: Path, distilled: Path) -> Encoder:
    return MAKERS[request.param](tiny, distilled)


def test_it_is_an_encoder_with_a_name_and_dimensions(encoder: Encoder) -> None:
    assert isinstance(encoder, Encoder)
    assert encoder.name
    assert encoder.dimensions > 0


def test_rows_are_float32_of_unit_length(encoder: Encoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert (vectors.shape, vectors.dtype) == ((len(TEXTS), encoder.dimensions), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_no_texts_give_no_rows(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.dimensions)


def test_the_empty_text_and_blanks_have_a_unit_vector_too(encoder: Encoder) -> None:
    vectors = encoder.encode(["", " \n\t "])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_the_same_text_has_the_same_vector_whenever_it_is_asked(encoder: Encoder) -> None:
    np.testing.assert_array_equal(encoder.encode(TEXTS[:1]), encoder.encode(TEXTS[:1]))


def test_a_text_alone_and_in_a_batch_has_one_vector(encoder: Encoder) -> None:
    many = [f"{text} {i}" for i in range(20) for text in TEXTS]
    together = encoder.encode(many)
    for i in range(0, len(many), 7):
        np.testing.assert_allclose(encoder.encode([many[i]])[0], together[i], atol=TOLERANCE)


def test_order_does_not_matter_and_repetitions_agree(encoder: Encoder) -> None:
    forward = encoder.encode(TEXTS)
    np.testing.assert_allclose(encoder.encode(TEXTS[::-1])[::-1], forward, atol=TOLERANCE)
    np.testing.assert_allclose(encoder.encode(TEXTS + TEXTS)[len(TEXTS) :], forward, atol=TOLERANCE)


def test_different_texts_have_different_vectors(encoder: Encoder) -> None:
    vectors = encoder.encode(["the capital of france", "two plus three = 5"])
    assert float(vectors[0] @ vectors[1]) < 1 - 1e-4


def test_a_very_long_text_is_encoded(encoder: Encoder) -> None:
    vectors = encoder.encode(["capital of france " * 20_000, "a" * 100_000])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_texts_that_no_tokenizer_expects_are_encoded(encoder: Encoder) -> None:
    vectors = encoder.encode(["\x00\x01\x7f", "\u200b\u202e", "[PAD] [CLS] [UNK]", "�" * 50])
    assert np.isfinite(vectors).all()


def test_threads_get_what_one_thread_gets(encoder: Encoder) -> None:
    texts = [f"question {i} of {text}" for i in range(8) for text in TEXTS]
    alone = encoder.encode(texts)
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda text: encoder.encode([text])[0], texts))
        halves = list(pool.map(encoder.encode, [texts[::2], texts[1::2]] * 2))
    np.testing.assert_allclose(np.stack(rows), alone, atol=TOLERANCE)
    np.testing.assert_allclose(halves[2], alone[::2], atol=TOLERANCE)


def test_another_encoder_made_the_same_way_has_the_same_name_and_vectors(
    encoder: Encoder, request: pytest.FixtureRequest, tiny: Path, distilled: Path
) -> None:
    again = MAKERS[request.node.callspec.params["encoder"]](tiny, distilled)
    assert (again.name, again.dimensions) == (encoder.name, encoder.dimensions)
    np.testing.assert_allclose(again.encode(TEXTS), encoder.encode(TEXTS), atol=TOLERANCE)


def test_no_two_encoders_share_a_name(tiny: Path, distilled: Path) -> None:
    names = [make(tiny, distilled).name for kind, make in MAKERS.items() if kind != "cached"]
    assert len(set(names)) == len(names)
