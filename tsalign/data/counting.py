"""How many rows prompt files hold, for a plan: no row is looked into, and storage elsewhere is not asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import IO

import pyarrow.parquet as pq

from tsalign.common.registry import builtin, is_builtin
from tsalign.common.storage import is_remote
from tsalign.data.sources import find_files, opened, read_json
from tsalign.runs.plan import Amount, Plan


def count_rows(locations: Sequence[str], plan: Plan) -> Amount:
    """Rows of all locations, each file once: JSONL lines, a JSON array's length, or what a Parquet footer says.

    Unknown where a location is not on this machine, or nothing is there, which is noted in `plan.uncounted`; where a
    file cannot be read, which is noted among the problems; and where a run is about to start, which will count itself.
    """
    found = count_sets(locations, plan)
    return None if found is None else sum(found.values())


def count_sets(locations: Sequence[str], plan: Plan) -> dict[str, int] | None:
    """Name of a set -> its rows: of files the name of the file, of built-in rows the set of each. See `count_rows`."""
    if plan.ready:
        return None
    sizes: Counter[str] = Counter()
    files = {}
    with plan.checking(""):
        for location in sorted(set(filter(str.strip, locations))):
            if is_builtin(location):
                sizes.update(_builtin_sets(location))
            elif not is_remote(location) and (found := find_files(location)):
                files.update({str(file): file for file in found})
            else:
                plan.leave_uncounted(location)
        for file in files.values():
            with opened(file) as (content, kind, name):
                sizes[name] += COUNTERS[kind](content)
        return None if plan.uncounted.keys() & set(locations) else dict(sizes)
    return None


@cache
def _builtin_sets(location: str) -> Counter[str]:
    return Counter(name for name, _ in builtin("rows", location))


def _count_lines(file: IO[bytes]) -> int:
    return sum(1 for line in file if line.strip())


def _count_array(file: IO[bytes]) -> int:
    return sum(1 for _ in read_json(file))


def _count_footer(file: IO[bytes]) -> int:
    return int(pq.ParquetFile(file).metadata.num_rows)


COUNTERS = {".jsonl": _count_lines, ".json": _count_array, ".parquet": _count_footer}
