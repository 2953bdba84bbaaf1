"""A Hugging Face model folder for tests: real Llama architecture, random weights, one token a character."""

from __future__ import annotations

from pathlib import Path

from eccos_core.io.optional import needs_extra

CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,?!:+-*/=\n'"
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}  # in order of their ids
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('no system message, please') }}{% endif %}"
    "{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
)


def build_tiny_model(
    folder: Path, *, hidden: int = 64, layers: int = 2, window: int = 128, chat_template: bool = True, seed: int = 0
) -> Path:
    """Writes model and tokenizer into `folder` (some 100 kB) and returns it. The same arguments, the same weights.

    `window`: context window in tokens. The chat template, if any, refuses system messages, as some do.
    """
    with needs_extra("local", "building a tiny model"):
        import torch
    from tokenizers import Tokenizer, decoders, models

    with needs_extra("local", "building a tiny model"):
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {token: place for place, token in enumerate((*SPECIAL.values(), *CHARACTERS))}
    characters = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=SPECIAL["unk_token"]))
    characters.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=characters, **SPECIAL)
    if chat_template:
        tokenizer.chat_template = CHAT_TEMPLATE
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(vocabulary),
                hidden_size=hidden,
                intermediate_size=2 * hidden,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=window,
                initializer_range=0.5,  # logits far apart, so that no two tokens nearly tie
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=0,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
