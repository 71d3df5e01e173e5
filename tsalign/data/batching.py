"""Which sequences share a forward pass: by a budget of padded tokens, similar lengths together."""

from __future__ import annotations

from collections.abc import Sequence


def by_tokens(lengths: Sequence[int], budget: int, per_item: Sequence[int] | None = None) -> list[list[int]]:
    """Indices in batches whose padded size stays within `budget` tokens, longest first.

    Args:
        lengths: tokens of each item's longest sequence.
        per_item: sequences of each item, 1 by default.

    An item larger than the budget gets its own batch.
    """
    width = per_item or [1] * len(lengths)
    batches: list[list[int]] = []
    rows = longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not batches or (rows + width[index]) * longest > budget:
            batches.append([])
            rows, longest = 0, lengths[index]
        batches[-1].append(index)
        rows += width[index]
    return batches
