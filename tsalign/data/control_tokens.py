"""Control tokens that somebody wrote into a conversation: they are text, as only the chat template may end a turn.

Each is replaced by a stand-in before the template is rendered, and the stand-in by the tokens of its text afterwards.
Transformers has the same as `sanitize_control_tokens`, but refuses what a tokenizer makes of plain text too (DeBERTa's
`[SEP]`), and counts as control tokens those of a model's own reasoning (`<think>`), which have to stay what they are.
"""

from __future__ import annotations

import re
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from tsalign.data.sources import Message

FIRST, LAST = 0xF0000, 0xFFFFD  # Unicode's private characters of plane 15 are the stand-ins
STAND_INS = f"[{chr(FIRST)}-{chr(LAST)}]"
PROBE = [{"role": "user", "content": "Hello"}]


def hide(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> tuple[list[Message], list[str]]:
    """The messages with a stand-in for every control token, and the tokens' texts in the order of their stand-ins.

    Messages without any, which nearly all are, come back as they are.

    Raises:
        TemplateError: the template does not render a plain conversation.
    """
    pattern = _pattern(tokenizer, tokenizer.get_chat_template())
    if not any(pattern.search(text) for message in messages for text in message.values()):
        return messages, []
    texts: dict[str, int] = {}

    def stand_in(found: re.Match[str]) -> str:
        return chr(FIRST + texts.setdefault(found[0], len(texts)))

    hidden = [{name: pattern.sub(stand_in, text) for name, text in message.items()} for message in messages]
    return hidden, list(texts)


def encode(tokenizer: PreTrainedTokenizerBase, chat: str, texts: list[str]) -> list[int]:
    """Token ids of a rendered conversation: its own control tokens as such, those behind stand-ins as text."""
    first, *rest = re.split(f"({STAND_INS})", chat)
    ids = list(tokenizer.encode(first, add_special_tokens=False))
    for number, piece in enumerate(rest):
        if number % 2 == 0:
            ids += _as_text(tokenizer, texts[ord(piece) - FIRST])
        elif piece:
            ids += _going_on(tokenizer, piece)
    return ids


@lru_cache(maxsize=32)
def _pattern(tokenizer: PreTrainedTokenizerBase, template: str) -> re.Pattern[str]:
    """Finds special tokens, other added tokens that the template writes around a prompt, and our own stand-ins."""
    written = tokenizer.apply_chat_template(PROBE, add_generation_prompt=True, tokenize=False)
    tokens = [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if not token.content.isspace() and (token.special or token.content in written)
    ]
    longest_first = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
    begin = "".join(sorted({re.escape(token[0]) for token in tokens}))  # passes over other text six times faster
    return re.compile(f"{STAND_INS}|(?=[{begin}])(?:{longest_first})" if tokens else STAND_INS)


@lru_cache(maxsize=4096)
def _as_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of a control token's letters: the first by itself, as no tokenizer then makes the token again."""
    # `split_special_tokens` would do it too, but switches the tokenizer for all threads of a service.
    ids = [token for part in (text[:1], text[1:]) if part for token in _going_on(tokenizer, part)]
    if tokenizer.added_tokens_decoder.keys().isdisjoint(ids):
        return ids
    return [token for letter in text for token in _going_on(tokenizer, letter)]


def _going_on(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of a text that something stands before: without the space that some put at the beginning of a text."""
    newline, ids = (list(tokenizer.encode(piece, add_special_tokens=False)) for piece in ("\n", "\n" + text))
    return (
        ids[len(newline) :]
        if ids[: len(newline)] == newline
        else list(tokenizer.encode(text, add_special_tokens=False))
    )
