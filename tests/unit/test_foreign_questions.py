"""A question in another language than the history gets a vector, low familiarity and the prior, never an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_encoder import make_tiny_multilingual_model

from eccos_core.assembly.encoder import build_encoder
from eccos_core.config import load_config
from eccos_core.encoders import SentenceTransformerEncoder, StaticEncoder, SurfaceEncoder
from eccos_core.pocket import pocket_predictor_path, pool_config_path
from eccos_core.predictors import load_predictor
from eccos_core.predictors.ensemble.predictor import EnsemblePredictor
from eccos_core.protocols import Encoder

CAPITAL = {
    "German": "Was ist die Hauptstadt von Frankreich?",
    "French": "Quelle est la capitale de la France ?",
    "Russian": "Какой город является столицей Франции?",
    "Arabic": "ما هي عاصمة فرنسا؟",
    "Chinese": "法国的首都是哪里\uff1f",
    "Japanese": "フランスの首都はどこですか\uff1f",
    "Hindi": "फ्रांस की राजधानी क्या है?",
    "Thai": "เมืองหลวงของฝรั่งเศสคืออะไร",
}
SORT = {
    "German": "Schreibe ein Programm, das eine Liste von Zahlen sortiert.",
    "French": "Écris un programme qui trie une liste de nombres.",
    "Russian": "Напиши программу, которая сортирует список чисел.",
    "Arabic": "اكتب برنامجا يرتب قائمة من الأرقام.",
    "Chinese": "写一个程序\uff0c对数字列表进行排序。",
}
TOKENS = np.array([12.0])


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build_encoder(load_config(pool_config_path()).encoder)


@pytest.fixture(scope="module")
def predictor(encoder: Encoder) -> EnsemblePredictor:
    return load_predictor(pocket_predictor_path(), encoder=encoder.name)


def test_a_question_of_the_history_is_familiar(encoder: Encoder, predictor: EnsemblePredictor) -> None:
    forecast = predictor.predict(encoder.encode(["What is the capital of France?"]), TOKENS)
    assert forecast.familiarity[0] > 0.9


@pytest.mark.parametrize("question", CAPITAL.values(), ids=CAPITAL.keys())
def test_the_same_question_in_another_language_is_not(
    question: str, encoder: Encoder, predictor: EnsemblePredictor
) -> None:
    vectors = encoder.encode([question])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    forecast = predictor.predict(vectors, TOKENS)
    assert forecast.familiarity[0] < 0.5
    unrelated = predictor.predict(encoder.encode(["\u1200\u1208\u1210" * 30]), TOKENS)  # no word of any history
    assert unrelated.familiarity[0] < 0.01
    np.testing.assert_allclose(forecast.quality, unrelated.quality, atol=0.2)


@pytest.mark.parametrize("language", SORT)
def test_static_vectors_tell_questions_of_one_language_apart(language: str) -> None:
    capital, longer, sort = StaticEncoder().encode(
        [CAPITAL[language], f"{CAPITAL[language]} {CAPITAL[language]} 1", SORT[language]]
    )
    assert capital @ longer > capital @ sort + 0.05


def test_only_the_surface_of_a_script_without_known_signs_is_read() -> None:
    thai, longer = [CAPITAL["Thai"], CAPITAL["Thai"] * 4]
    np.testing.assert_array_equal(*StaticEncoder().encode([thai, longer]))
    assert np.abs(np.subtract(*SurfaceEncoder().encode([thai, longer]))).max() > 0.05


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_multilingual_model(tmp_path_factory.mktemp("tiny"), [*CAPITAL.values(), *SORT.values()] * 4)


@pytest.mark.parametrize("kind", ["sentence_transformer", "static"])
def test_a_multilingual_model_in_a_folder_reads_every_script(multilingual: Path, tmp_path: Path, kind: str) -> None:
    encoder: Encoder
    if kind == "static":
        encoder = StaticEncoder(str(multilingual), dimensions=24, lexical=8, cache_dir=tmp_path)
    else:
        encoder = SentenceTransformerEncoder(str(multilingual), intermediate_layer=True)
    vectors = encoder.encode([*CAPITAL.values(), CAPITAL["Thai"] * 4, ""])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    likeness = vectors[:-2] @ vectors[:-2].T - np.eye(len(CAPITAL))
    assert likeness.max() < 0.999
