"""When the numbers beside a win rate say that it may not be believed: one line each, in plain English."""

from __future__ import annotations

from tsalign.evaluation.quality import REPEATED, Quality
from tsalign.runs.report import MOST, percent

# Nats per token below the initial policy's own answers: e^-2 is an eighth of the probability at every token. Aligned
# models stay within a few tenths of their reference; random tokens of a 32,000-word vocabulary are near -10.
DRIFT = 2.0
# Share of repeated 4-grams inside an answer: people come to about 0.01, the greedy text of a language model that
# degenerates to 0.44 (Welleck et al. 2020).
REPETITION = 0.2
# Of the initial policy's distinct-n: answers that grow tenfold in length come to half of it, the same answer to every
# prompt to next to nothing.
DISTINCT = 1 / 3


def warnings(base: Quality, policy: Quality, tied: float) -> tuple[str, ...]:
    """What to warn of; nothing where all is well.

    Args:
        base: of the initial policy's answers.
        policy: of the answers whose win rate is told.
        tied: share of the answers that the judge ties with the initial policy's.
    """
    found = []
    cut = _cut(base, policy)
    if odd := [reason for reason in (_drift(base, policy), _repeats(base, policy), _same(base, policy)) if reason]:
        reasons = _listed([*odd, *cut])
        found.append(
            f"the policy's answers {reasons}: the win rate may come from degenerate text; look at the samples."
        )
    elif cut:
        found.append(f"the policy's answers {cut[0]}: the judge saw them unfinished; raise max_tokens.")
    if tied > MOST:
        found.append(f"the judge ties {percent(tied)} of the answers: the win rate rests on the others.")
    return tuple(found)


def _drift(base: Quality, policy: Quality) -> str:
    if base.log_prob is None or policy.log_prob is None or policy.log_prob > base.log_prob - DRIFT:
        return ""
    own = f"log-prob {policy.log_prob:.1f} per token, its own: {base.log_prob:.1f}"
    return f"are very unlikely under the initial policy ({own})"


def _repeats(base: Quality, policy: Quality) -> str:
    if policy.repetition <= REPETITION:
        return ""
    return f"repeat themselves ({percent(policy.repetition)} of {REPEATED}-grams, before: {percent(base.repetition)})"


def _same(base: Quality, policy: Quality) -> str:
    pairs = {n: (before, policy.distinct[n]) for n, before in base.distinct.items()}
    known = {n: (before, after) for n, (before, after) in pairs.items() if before is not None and after is not None}
    if not known or any(after > DISTINCT * before for before, after in known.values()):
        return ""
    n, (before, after) = list(known.items())[-1]
    return f"are much alike (distinct-{n} {after:.3f}, before: {before:.3f})"


def _cut(base: Quality, policy: Quality) -> list[str]:
    if policy.cut <= MOST:
        return []
    return [f"are cut at max_tokens ({percent(policy.cut)} of them, before: {percent(base.cut)})"]


def _listed(reasons: list[str]) -> str:
    *others, last = reasons
    return f"{', '.join(others)} and {last}" if others else last
