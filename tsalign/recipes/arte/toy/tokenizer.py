"""The toy tokenizer with the tags and words of ARTE's world, each one token: small models have to write them."""

from __future__ import annotations

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from tsalign.recipes.arte.toy.world import CHANGES, NAMES, PICKS
from tsalign.toy.tokenizer import build_tokenizer

QUESTIONS = 8  # numbered tags that there are
WORDS = ("ask", "expert", "recall", "plain", "eliminate", "rule", "zero", *PICKS, *CHANGES, *NAMES)


def tags() -> list[str]:
    """All that a draft and an answer are wrapped in."""
    inner = [tag for name in ("ans", "input", "target") for tag in (f"<{name}>", f"</{name}>")]
    outer = [tag for x in range(1, QUESTIONS + 1) for tag in (f"<Question_{x}>", f"</Question_{x}>")]
    return inner + outer


def build_arte_tokenizer() -> PreTrainedTokenizerFast:
    """The ids of `build_tokenizer`, and after them what it lacks. Tags are ordinary tokens: decoding keeps them."""
    tokenizer = build_tokenizer()
    known = tokenizer.get_vocab()
    new = [AddedToken(tag, normalized=False) for tag in tags()]
    new += [AddedToken(word, normalized=False, single_word=True) for word in WORDS if word not in known]
    tokenizer.add_tokens(new)
    return tokenizer
