"""A real sentence-transformers model, tiny and random, made on the spot: encodes and distils in a moment."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

WORDS = "the a of is what who capital france paris berlin germany sum two three plus minus number larger than it and"


def make_tiny_model(folder: Path, *, seed: int = 0, dimensions: int = 16) -> Path:
    """A BERT with one layer and WordPiece, saved as a sentence-transformers folder; reads 32 tokens."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    characters = string.ascii_lowercase + string.digits + string.punctuation
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *WORDS.split()[2:]]
    vocabulary += [f"##{character}" for character in string.ascii_lowercase + string.digits] + ["##ing", "##er", "ü"]
    source = folder / "source"
    source.mkdir(parents=True)
    (source / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)), encoding="utf-8")
    BertTokenizerFast(vocab=str(source / "vocab.txt"), do_lower_case=True, model_max_length=64).save_pretrained(source)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(dict.fromkeys(vocabulary)),
        hidden_size=dimensions,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(source)
    transformer = Transformer(str(source), max_seq_length=32)
    model = SentenceTransformer(modules=[transformer, Pooling(dimensions)], device="cpu")
    model.save_pretrained(str(folder / "model"))
    return folder / "model"


def make_tiny_multilingual_model(folder: Path, texts: Sequence[str]) -> Path:
    """An XLM-RoBERTa with one layer, and SentencePiece-like pieces learned from texts of any script."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    pieces = Tokenizer(models.Unigram())
    pieces.normalizer = normalizers.NFKC()
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    special = [*names.values(), "<mask>"]
    pieces.train_from_iterator(
        texts, trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>")
    )
    source = folder / "source"
    PreTrainedTokenizerFast(tokenizer_object=pieces, mask_token="<mask>", model_max_length=64, **names).save_pretrained(
        source
    )
    XLMRobertaModel(
        XLMRobertaConfig(
            vocab_size=pieces.get_vocab_size(),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=70,
        )
    ).save_pretrained(source)
    transformer = Transformer(str(source), max_seq_length=32)
    SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu").save_pretrained(str(folder / "model"))
    return folder / "model"
