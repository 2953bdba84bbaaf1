"""What of a conversation is embedded, how it is counted, and the key that a text goes by.

Tokens are counted with cl100k_base (tiktoken), whose vocabulary LiteLLM ships: no network, no import of LiteLLM. Other
models' tokenizers count differently, usually by less than 15 % for English; a provider's own count arrives with the
completion and is what is charged.
"""

from __future__ import annotations

import binascii
import functools
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from eccos_core.domain import ConversationView, Message
from eccos_core.errors import MissingDependencyError
from eccos_core.io.agent_step import add_step, read_step

if TYPE_CHECKING:
    from tiktoken import Encoding

TOKENS_PER_MESSAGE = 3  # role and separators, as OpenAI's chat format counts them
TOKENS_TO_START_THE_ANSWER = 3
TOKENS_PER_IMAGE = {"low": 85, "high": 765, "auto": 765}  # OpenAI: a flat 85; a 1024 x 1024 picture in tiles
MOST_COUNTED_CHARACTERS = 200_000  # of a longer text a prefix is counted and scaled up
MOST_WORDS, LONGEST_WORD = 100_000, 64  # words remembered with their tokens (10 MB), and their most characters

_CL100K_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
_ODD_SPACES = ("  ", " \n", "\n ", "\t", "\r", "\v", "\f")
_RARE_SPACE = re.compile(r"[^\S \n]")
_CL100K_FILE = "litellm_core_utils/tokenizers/9b5ad71b2ce5302211f9c61530b329a4922fc6a4"  # the SHA-1 of its address


def text_key(text: str) -> str:
    """The key of a text: 32 hexadecimal digits of the SHA-256 of its UTF-8. The same text, the same key, anywhere."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


# ------------------------------------------------------------------------------------------------------- conversations


def conversation_text(
    messages: Sequence[Message], view: ConversationView = "last_user", *, has_tools: bool = False
) -> str:
    """The text of a conversation that is embedded.

    `last_user` (default): the last user message that has text: usually the question. `all_user`: every user message.
    `everything`: every message of every role. `agent_step`: the last user message, the first one where that is another,
    and the line of the agent's step (`io/agent_step.py`), if it is one. `has_tools` tells that tools are offered.
    Several messages are joined by a blank line, the *latest first*: an
    encoder cuts the end of what is too long, and what is cut is then the oldest. Of a message made of parts the text
    parts count; images, audio and files say nothing here. Where a view finds no text (only system messages, or only a
    picture), the whole conversation's text is taken, and "" where there is none at all.
    """
    newest_first = [(message.get("role"), text) for message in reversed(messages) if (text := message_text(message))]
    match view:
        case "last_user":
            chosen = [text for role, text in newest_first if role == "user"][:1]
        case "all_user":
            chosen = [text for role, text in newest_first if role == "user"]
        case "agent_step":
            asked = [text for role, text in newest_first if role == "user"]
            task = "\n\n".join(dict.fromkeys([*asked[:1], *asked[-1:]]) or [text for _, text in newest_first])
            return add_step(task, read_step(messages, has_tools=has_tools))
        case "everything":
            chosen = []
        case _:
            assert_never(view)
    return "\n\n".join(chosen or [text for _, text in newest_first])


def message_text(message: Message) -> str:
    """The text of one message, without surrounding white space; parts are joined by line ends."""
    text = "\n".join(_texts(message.get("content"))).strip()
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


def _texts(content: Any) -> Iterator[str]:
    """Text of OpenAI-style content: a string, or parts of type text, input_text, refusal and so on."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        if isinstance(text := content.get("text"), str):
            yield text
        elif isinstance(nested := content.get("content"), (list, str)):
            yield from _texts(nested)
    elif isinstance(content, Sequence):
        for part in content:
            yield from _texts(part)


# --------------------------------------------------------------------------------------------------------------- tokens


def count_tokens(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None) -> int:
    """How many input tokens a conversation will be, estimated without network: cl100k_base for the text, names and
    tool calls, three per message and three for the answer's start, a flat count per image, and the tools as JSON.

    Exact for the text of models that use cl100k_base. About 0.01 ms for a question of 200 tokens whose words are known.
    """
    flat, texts = _counted(messages)
    if tools:
        texts.append(json.dumps(tools, default=str, ensure_ascii=False))
    return flat + sum(count_text_tokens(text) for text in texts)


def _counted(messages: Sequence[Message]) -> tuple[int, list[str]]:
    """(tokens that no text stands for, the texts whose tokens count) of a conversation."""
    flat = TOKENS_TO_START_THE_ANSWER
    texts: list[str] = []
    for message in messages:
        content = message.get("content")
        texts += _texts(content)
        flat += TOKENS_PER_MESSAGE + _image_tokens(content)
        if name := message.get("name"):
            flat += 1
            texts.append(str(name))
        if calls := message.get("tool_calls"):
            texts.append(json.dumps(calls, default=str, ensure_ascii=False))
    return flat, texts


def count_text_tokens(text: str) -> int:
    """Return the tokens of a text in cl100k_base. A text over 200,000 characters is scaled up from its beginning."""
    counted = text[:MOST_COUNTED_CHARACTERS]
    tokens = _count_by_words(counted) if _is_cut_at_spaces(counted) else len(_cl100k().encode_ordinary(counted))
    return tokens if len(counted) == len(text) else round(tokens * len(text) / len(counted))


def _is_cut_at_spaces(text: str) -> bool:
    """Return whether cl100k_base cuts the text before every space: no other white space is next to one."""
    return not any(odd in text for odd in _ODD_SPACES) and (text.isascii() or _RARE_SPACE.search(text) is None)


def _count_by_words(text: str) -> int:
    """Count the tokens of each word, which are remembered. It is three times faster than counting the text."""
    first, *others = text.split(" ")
    return _first_words()[first] + sum(map(_other_words().__getitem__, others))


class _WordTokens(dict[str, int]):
    """The tokens of words, each counted with the same prefix. Forgets all of them when it has too many."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix

    def __missing__(self, word: str) -> int:
        tokens = len(_cl100k().encode_ordinary(self._prefix + word))
        if len(word) <= LONGEST_WORD:
            if len(self) >= MOST_WORDS:
                self.clear()
            self[word] = tokens
        return tokens


@functools.cache
def _first_words() -> _WordTokens:
    return _WordTokens("")


@functools.cache
def _other_words() -> _WordTokens:
    return _WordTokens(" ")


def _image_tokens(content: Any) -> int:
    if not isinstance(content, Sequence) or isinstance(content, str):
        return 0
    total = 0
    for part in content:
        if isinstance(part, Mapping) and part.get("type") in ("image_url", "input_image", "image"):
            image = part.get("image_url")
            detail = image.get("detail", "auto") if isinstance(image, Mapping) else part.get("detail", "auto")
            total += TOKENS_PER_IMAGE.get(str(detail), TOKENS_PER_IMAGE["auto"])
    return total


@functools.cache  # a constant of 100,256 entries, read once (0.2 s, 25 MB)
def _cl100k() -> Encoding:
    install = "pip install litellm tiktoken"
    try:
        import tiktoken
    except ImportError as error:
        raise MissingDependencyError("tiktoken", "counting tokens", install) from error
    package = importlib.util.find_spec("litellm")
    if package is None or not package.submodule_search_locations:
        raise MissingDependencyError("litellm", "counting tokens (it ships the vocabulary)", install)
    try:
        with Path(package.submodule_search_locations[0], _CL100K_FILE).open("rb") as lines:
            ranks = {binascii.a2b_base64(token): int(rank) for token, rank in map(bytes.split, lines)}
    except (OSError, ValueError, binascii.Error) as error:
        raise MissingDependencyError("litellm", f"counting tokens ({_CL100K_FILE} unreadable)", install) from error
    return tiktoken.Encoding("cl100k_base", pat_str=_CL100K_PATTERN, mergeable_ranks=ranks, special_tokens={})
