"""The most different of each prompt's completions: greedy farthest point on Levenshtein distance (PAD's code)."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from tsalign.data.shards import Row, Shard, read_counts
from tsalign.data.workers import map_shards
from tsalign.runs.artifacts import Dataset
from tsalign.runs.plan import PlannedStage, at_most, expected
from tsalign.runs.report import mostly, warn
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function


def farthest_first(texts: Sequence[str], keep: int) -> list[int]:
    """Indices of `keep` texts: the first, then always the one whose nearest chosen text is farthest away.

    The earlier one where two are equally far. Distances are in characters.
    """
    chosen = [0]
    nearest = [Levenshtein.distance(texts[0], text) for text in texts]
    while len(chosen) < min(keep, len(texts)):
        rest = [index for index in range(len(texts)) if index not in chosen]
        chosen.append(max(rest, key=lambda index: nearest[index]))
        nearest = [min(far, Levenshtein.distance(texts[chosen[-1]], text)) for far, text in zip(nearest, texts)]
    return chosen


@stage_function("pad/diversify")
def diversify(stage: Stage, candidates: Dataset, keep: int) -> Dataset:
    """Candidate sets of the `keep` most different completions; sets with fewer different ones are dropped.

    Dropped sets are counted as `too_similar`.
    """
    diverse = map_shards(stage, candidates, DiversityWorker, {"keep": keep}, stage.resources.mine)
    counts = read_counts(diverse)
    similar = f"of the prompts have fewer than {keep} different responses and are dropped: lower keep or sample more."
    warn(stage.out, *mostly(counts["too_similar"], counts["too_similar"] + counts["rows"], similar))
    return diverse


@diversify.expects
def _expect_diverse(stage: PlannedStage, candidates: Dataset, keep: int) -> Dataset:
    sets = expected(candidates)
    stage.needs("", stage.resources.mine, {"rows": sets.rows}, f"the {keep} most different of each")
    return stage.derived(sets, completions=at_most(sets.completions, keep))


class DiversityWorker:
    """Selects within each row."""

    def __init__(self, keep: int) -> None:
        self.keep = keep

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        kept = []
        for row in rows:
            texts = [completion["text"] for completion in row["completions"]]
            if len(set(texts)) >= self.keep:
                chosen = farthest_first(texts, self.keep)
                kept.append({**row, "completions": [row["completions"][index] for index in chosen]})
        return Shard(kept, counts={"too_similar": len(rows) - len(kept)})
