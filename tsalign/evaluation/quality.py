"""What answers look like, whatever a judge makes of them: length, repetition, diversity. Pure functions."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

REPEATED = 4  # length of the n-grams whose repetition counts, as in the literature
DISTINCT = (1, 2, 3)
MIXING = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplying by it loses nothing
SHIFT = np.uint64(29)

Units = np.ndarray[tuple[int], np.dtype[np.int64]]


class Answer(NamedTuple):
    """One completion.

    Attributes:
        units: its token ids, or numbers that stand for its words where an endpoint wrote it.
        cut: whether it ended at `max_tokens`.
        log_prob: per token, under the initial policy; None where unknown.
    """

    units: Units
    cut: bool
    log_prob: float | None


@dataclass(frozen=True)
class Quality:
    """Numbers of all answers of one model.

    Attributes:
        length: mean number of tokens, or of words.
        cut: share of the answers that ended at `max_tokens`.
        repetition: mean of `repetition`.
        distinct: n -> `distinct`, as text, for JSON.
        log_prob: mean log-prob per token under the initial policy, the answers weighing the same.
    """

    length: float
    cut: float
    repetition: float
    distinct: dict[str, float | None] = field(default_factory=dict)
    log_prob: float | None = None


def quality(answers: Sequence[Answer]) -> Quality:
    """The numbers of some answers, at least one."""
    units = [answer.units for answer in answers]
    known = [answer.log_prob for answer in answers if answer.log_prob is not None]
    return Quality(
        length=fmean(map(len, units)),
        cut=fmean(answer.cut for answer in answers),
        repetition=fmean(map(repetition, units)),
        distinct={str(n): distinct(units, n) for n in DISTINCT},
        log_prob=fmean(known) if known else None,
    )


def repetition(units: Units, n: int = REPEATED) -> float:
    """Share of an answer's n-grams that stood in it before: 1 - different / all; 0 where it has none.

    seq-rep-n of Welleck et al. 2020 (arXiv 1908.04319).
    """
    grams = ngrams(units, n)
    return 1 - len(np.unique(grams)) / len(grams) if len(grams) else 0.0


def distinct(answers: Sequence[Units], n: int) -> float | None:
    """Different n-grams over all n-grams of all answers together; None where no answer has n units.

    distinct-n of Li et al. 2016 (arXiv 1510.03055).
    """
    grams = np.concatenate([ngrams(units, n) for units in answers])
    return len(np.unique(grams)) / len(grams) if len(grams) else None


def ngrams(units: Units, n: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """A 64-bit hash of each n-gram, in order."""
    if len(units) < n:
        return np.empty(0, np.uint64)
    hashes = np.zeros(len(units) - n + 1, np.uint64)
    for column in sliding_window_view(units, n).T.astype(np.uint64):
        hashes = (hashes ^ column) * MIXING
        hashes ^= hashes >> SHIFT
    return hashes


def answers_of(completions: Sequence[dict[str, Any]], log_probs: Sequence[float] | None, words: bool) -> list[Answer]:
    """Completions of a candidate set with their log-probs, where known; counted in words where asked for."""
    known: Sequence[float | None] = log_probs or [None] * len(completions)
    return [Answer(_units(made, words), made["finish"] == "length", one) for made, one in zip(completions, known)]


def _units(completion: dict[str, Any], words: bool) -> Units:
    ids = map(_number, completion["text"].split()) if words else completion["token_ids"]
    return np.array(list(ids), np.int64)


def _number(word: str) -> int:
    return zlib.crc32(word.encode())
