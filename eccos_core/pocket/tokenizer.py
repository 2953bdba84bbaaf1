"""The tokenizer of the pocket models: whole words, and one token per digit that knows its place.

A word of our questions is one token, any other word falls apart into letters. A number is one token per digit, and
the token of a digit also says its place (units, tens, hundreds ...): a tiny model then need not count positions to
know which digits to add. The text stays normal: the place marks come and go inside the tokenizer.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from eccos_core.io.optional import needs_extra
from eccos_core.pocket.knowledge import knowledge_families, openings
from eccos_core.pocket.questions import TrainingMix, generate_questions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["ASSISTANT", "CHAT_TEMPLATE", "END", "USER", "build_tokenizer"]

PAD, UNKNOWN, USER, ASSISTANT, END = "<|pad|>", "<|unknown|>", "<|user|>", "<|assistant|>", "<|end|>"
#: Private-use characters after a digit of the tens, hundreds, ... place; the units have none.
_PLACES = "\ue001\ue002\ue003\ue004\ue005"
_WORD_SAMPLE = 20_000

#: System messages are left out: no pocket model has ever seen one.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def _words() -> list[str]:
    """Every word and mark of our questions and answers, sorted."""
    texts: list[str] = list(openings())
    for family in knowledge_families():
        texts += [*family.wordings, *(text for fact in family.facts for text in fact)]
    # The wordings of mathematics are few: a sample of this size has them all.
    for question in generate_questions(_WORD_SAMPLE, seed=0, split="train", diet=TrainingMix(knowledge_share=0.0)):
        texts += [question.query, question.reference]
    return sorted({word for text in texts for word in re.findall(r"[A-Za-z]+", text)})


def _vocabulary(words: Iterable[str]) -> dict[str, int]:
    tokens = [PAD, UNKNOWN, USER, ASSISTANT, END]
    tokens += [digit + place for place in ("", *_PLACES) for digit in string.digits]
    tokens += list(string.punctuation)
    tokens += [prefix + letter for prefix in ("", "##") for letter in string.ascii_letters]
    tokens += [word for word in words if len(word) > 1]
    return {token: index for index, token in enumerate(tokens)}


def build_tokenizer(context_window: int) -> PreTrainedTokenizerFast:
    """Build the tokenizer from our own words; the same every time, nothing is downloaded."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    with needs_extra("local", "building the pocket tokenizer"):
        from transformers import PreTrainedTokenizerFast

    vocabulary = _vocabulary(_words())
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=100))
    marks: list[Any] = [normalizers.NFC(), normalizers.Replace(Regex(f"[{_PLACES}]"), "")]
    following = "(?![0-9])"
    for place in _PLACES:
        marks.append(normalizers.Replace(Regex(f"(?<=[0-9])(?=[0-9]{following})"), place))
        following = place
    tokenizer.normalizer = normalizers.Sequence(marks)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(f"[0-9][{_PLACES}]?|[^0-9A-Za-z{_PLACES}]"), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=True),
            decoders.Fuse(),
            decoders.Replace(Regex(f"[{_PLACES}] ?"), ""),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        model_max_length=context_window,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
